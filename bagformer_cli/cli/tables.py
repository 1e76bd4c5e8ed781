"""Lay out tables, lists of facts and paragraphs as lines of styled spans that fit a width.

``console.py`` prints the lines. Every text passes :func:`one_line` or :func:`printable` here or
there, so that data cannot control the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from bagformer_cli.cli.formatting import format_value, truncate
from bagformer_cli.cli.layout import GAP, column_widths, padded, row_lines
from bagformer_cli.cli.printable import one_line, printable
from bagformer_cli.wrapping import display_width, wrap

Spans: TypeAlias = list[tuple[str, str]]
"""A line: texts, each with a Rich style such as ``bold green``."""

MAX_CELL_LENGTH = 120  # characters of a text in a table
MIN_BODY_WIDTH = 16  # a narrower paragraph starts on the next line


def table_lines(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    width: int | None,
    *,
    notes: Sequence[str] = (),
    best: Sequence[int] = (),
) -> Iterator[Spans]:
    """Lay out a table; columns of numbers are aligned to the right.

    Where the columns do not fit next to each other, every row becomes a list of its values.

    Args:
        columns: The headings.
        rows: The cells, formatted by :func:`format_value`.
        width: Columns of the terminal; None: no limit.
        notes: A dim text below each row, or nothing; an empty one is left out.
        best: Indices of columns in which the largest number is bold.
    """
    numeric = [
        any(isinstance(row[i], (int, float)) for row in rows)
        and all(row[i] is None or isinstance(row[i], (int, float)) for row in rows)
        for i in range(len(columns))
    ]
    top = {i: max((row[i] for row in rows if row[i] is not None), default=None) for i in best}
    names = [one_line(name) for name in columns]
    cells = [[truncate(one_line(format_value(v)), MAX_CELL_LENGTH) for v in row] for row in rows]
    widths = column_widths(names, cells, numeric, width)
    if widths is None:
        yield from _record_lines(names, cells, width, notes)
        return
    for line in row_lines(names, widths, numeric):
        yield [("  ".join(line).rstrip(), "bold")]
    yield [("─" * (sum(widths) + GAP * (len(widths) - 1)), "dim")]
    indent = sum(widths[:-1]) + GAP * (len(widths) - 1)
    for number, (row, own) in enumerate(zip(rows, cells, strict=True)):
        styles = ["bold" if i in top and row[i] == top[i] else "" for i in range(len(row))]
        for line in row_lines(own, widths, numeric):
            yield _joined(line, styles)
        if notes and notes[number]:
            yield from _note_lines(notes[number], indent, width)


def _joined(cells: Sequence[str], styles: Sequence[str]) -> Spans:
    """Put cells side by side; nothing follows the last one that is not empty."""
    while len(cells) > 1 and not cells[-1].strip():
        cells = cells[:-1]
    spans: Spans = []
    for number, (cell, style) in enumerate(zip(cells, styles, strict=False)):
        last = number == len(cells) - 1
        spans.append((cell.rstrip() if last else cell, style))
        if not last:
            spans.append((" " * GAP, ""))
    return spans


def _note_lines(note: str, indent: int, width: int | None) -> Iterator[Spans]:
    if width is not None and width - indent < MIN_BODY_WIDTH:
        indent = GAP
    return hanging([(" " * indent, "")], one_line(note), width, "dim")


def _record_lines(
    names: Sequence[str], cells: Sequence[Sequence[str]], width: int | None, notes: Sequence[str]
) -> Iterator[Spans]:
    for number, row in enumerate(cells):
        if number:
            yield []
        yield from fact_lines(dict(zip(names, row, strict=True)), width)
        if notes and notes[number]:
            yield from _note_lines(notes[number], GAP, width)


def fact_lines(values: Mapping[str, object], width: int | None) -> Iterator[Spans]:
    """Lay out names and values in two columns."""
    names = [one_line(name) for name in values]
    column = max(map(display_width, names), default=0)
    for name, value in zip(names, values.values(), strict=True):
        prefix = [(padded(name, column), "dim"), (" " * GAP, "")]
        yield from hanging(prefix, one_line(format_value(value)), width)


def hanging(prefix: Spans, text: str, width: int | None, style: str = "") -> Iterator[Spans]:
    """Lay out a paragraph after a prefix; its further lines start below its first one.

    Args:
        prefix: The beginning of the first line, for example a label.
        text: The paragraph. Its line feeds stay, and so do spaces at the start of its lines.
        width: Columns of the terminal; None: lines are not wrapped.
        style: The style of the paragraph.
    """
    indent = sum(display_width(part) for part, _ in prefix)
    start = prefix
    if width is not None and width - indent < min(MIN_BODY_WIDTH, display_width(text)):
        yield prefix
        indent = GAP
        start = [(" " * indent, "")]
    for line in printable(text).split("\n"):
        for part in _wrapped(line, None if width is None else width - indent):
            yield [*start, (part, style)] if part else start
            start = [(" " * indent, "")]


def _wrapped(line: str, width: int | None) -> list[str]:
    """Wrap one line, keeping the spaces at its start; one that fits stays as it is."""
    if width is None or display_width(line) <= width:
        return [line]
    spaces = line[: len(line) - len(line.lstrip(" "))]
    return [spaces + part for part in wrap(line, max(1, width - len(spaces)))] or [""]


def flowing(spans: Spans, width: int | None) -> Iterator[Spans]:
    """Break a line between its spans, none of which is broken unless it is longer than a line."""
    line: Spans = []
    used = 0
    for text, style in spans:
        size = display_width(text)
        if width is not None and line and used + size > width:
            yield line
            line, used = [], 0
        line.append((text, style))
        used += size
    if line:
        yield line
