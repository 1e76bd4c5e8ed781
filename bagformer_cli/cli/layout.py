"""Lay out tables of text columns by display width; ``wrapping`` breaks the cells into lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bagformer_cli.wrapping import display_width, fitting, units, wrap

GAP = 2  # columns between two cells
MIN_TEXT_WIDTH = 8  # a column of text is not made narrower than this


def shortened(text: str, width: int) -> str:
    """Cut a text to ``width`` columns; the last one is an ellipsis if something was cut.

    >>> shortened("红色连衣裙", 5)
    '红色…'
    """
    return text if display_width(text) <= width else f"{fitting(text, max(1, width - 1))}…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Fill a text with spaces up to ``width`` columns."""
    spaces = " " * (width - display_width(text))
    return spaces + text if right else text + spaces


def column_widths(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Sequence[bool],
    width: int | None,
) -> list[int] | None:
    """Choose the widths of a table's columns: the widest one gives way first.

    Headings and cells of text may be wrapped, numbers may not.

    Args:
        headings: The headings.
        rows: The cells.
        numeric: Which columns hold numbers.
        width: Columns of the terminal; None: no limit.

    Returns:
        One width per column; None if the columns do not fit next to each other.
    """
    cells = [list(map(display_width, row)) for row in rows]
    widths = [max([display_width(name), *(row[i] for row in cells)]) for i, name in
              enumerate(headings)]  # fmt: skip
    if width is None:
        return widths
    least = []
    for i, name in enumerate(headings):
        word = max([0, *map(display_width, units(name))])
        most = max([0, *(row[i] for row in cells)]) if numeric[i] else MIN_TEXT_WIDTH
        least.append(min(widths[i], max(word, most)))
    spare = width - GAP * (len(widths) - 1) - sum(widths)
    for _ in range(-spare):
        can = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not can:
            return None
        widths[max(can, key=lambda i: widths[i])] -= 1
    return widths


def row_lines(
    cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]
) -> Iterator[list[str]]:
    """Yield the lines of one row of a table, each as its padded cells."""
    parts = [
        [cell] if display_width(cell) <= size else wrap(cell, size, cut=True)
        for cell, size in zip(cells, widths, strict=True)
    ]
    for number in range(max(1, *map(len, parts))):
        yield [
            padded(part[number] if number < len(part) else "", size, right=right)
            for part, size, right in zip(parts, widths, numeric, strict=True)
        ]
