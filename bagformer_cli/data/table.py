r"""Read CSV, TSV and JSONL tables record by record, from the start or from any record.

A record is one row of a CSV, which may contain line breaks inside quotes, or one line of a JSONL::

    offset  0          id,image,title
            15         1,a.png,"two             a record: line 3, end 35
                       lines"
            35         2,b.png,裙               a record: line 4, end 47

Every record carries the offset where the next one begins, so a table can be divided into parts
that start at a record; :class:`Start` continues there. ``xmr data import`` reads (image, title)
rows from tables (``importing/rows.py``); a catalogue reads any columns (``catalogue/table.py``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bagformer_cli.data.byte_ranges import ByteRange, decode_line
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr

COLUMNS = {
    "image": ("image", "image_path", "path", "file", "图片"),
    "title": ("title", "text", "query_text", "caption", "标题"),
    "image_id": ("image_id", "item_id"),
    "query_id": ("query_id", "text_id"),
    "split": ("split",),
}
"""Accepted headings of each column, in any case."""

HEADLESS = ["image", "title"]
"""Columns of a CSV without headings."""

JSON_ENDINGS = {".jsonl", ".json", ".ndjson"}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a table.

    Args:
        where: File and line.
        values: Column name to value: text in a CSV, any JSON value in a JSONL.
        line: Number of its last line in the file, from 1.
        end: Offset of the first byte after it.
        error: Why it cannot be used; None: it can.
    """

    where: str
    values: dict[str, Any]
    line: int
    end: int
    error: DataError | None = None


class Start(NamedTuple):
    """A position in a table from which reading can continue.

    Args:
        offset: Offset of the first byte of a record.
        line: Number of lines before it.
        headings: Headings of a CSV that are before it; None: none are.
    """

    offset: int = 0
    line: int = 0
    headings: Sequence[str] | None = None


Check = Callable[[Sequence[str], str], None]
"""Receives headings and where they stand; raises if it refuses them."""


def read_records(
    source: Path,
    encoding: str = "utf-8",
    *,
    known: Collection[str] = (),
    check: Check | None = None,
    start: Start = Start(),  # noqa: B008 - a constant
) -> Iterator[Record]:
    """Read the records of a table as a stream.

    Args:
        source: A ``.csv``, ``.tsv`` or JSONL file.
        encoding: Encoding of the file (Excel in China often writes ``gb18030``).
        known: Accepted headings besides :data:`COLUMNS`. A CSV whose first line has none of them
            has no headings: its columns are :data:`HEADLESS`.
        check: Called with the headings of a CSV (also if the first line looks like unknown
            headings), and with the fields of every JSONL record.
        start: Where to start.

    Raises:
        InputError: The file cannot be read, or ``check`` refuses it.
        DataError: A line is broken or in another encoding; the error names it.
    """
    lines = _Lines(source, encoding, start)
    if source.suffix.lower() in JSON_ENDINGS:
        return _json_records(lines, check)
    return _csv_records(lines, known, check, start.headings)


def columns_of(headings: Iterable[str]) -> dict[str, str]:
    """Find which heading is the image, the title, ...; columns that are not there are left out.

    >>> columns_of(["SKU", "Image_Path", "text"])
    {'image': 'Image_Path', 'title': 'text'}
    """
    plain = {heading.lower(): heading for heading in headings}
    found = {}
    for name, spellings in COLUMNS.items():
        for spelling in spellings:
            if spelling in plain:
                found[name] = plain[spelling]
                break
    return found


class _Lines(Iterator[str]):
    """Decoded lines with their line ends, as ``csv.reader`` takes them, and the position.

    Args:
        source: The file.
        encoding: Its encoding.
        start: Where to start.
    """

    def __init__(self, source: Path, encoding: str, start: Start) -> None:
        self.source, self._encoding = source, encoding
        self.end, self.number = start.offset, start.line
        self._lines = ByteRange(source, start.offset).lines()

    @property
    def where(self) -> str:
        return f"{self.source}:{self.number}"

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.end = line.end
        hint = tr("A table from Excel in China: try --encoding gb18030")
        try:
            return decode_line(line.raw, self.where, self._encoding, hint)
        except LookupError:
            raise InputError(tr("There is no such encoding."), found=self._encoding) from None


def _csv_records(
    lines: _Lines, known: Collection[str], check: Check | None, headings: Sequence[str] | None
) -> Iterator[Record]:
    delimiter = "\t" if lines.source.suffix.lower() == ".tsv" else ","
    try:
        for cells in csv.reader(lines, delimiter=delimiter):
            if not any(cell.strip() for cell in cells):
                continue
            if headings is None:
                first = [cell.strip() for cell in cells]
                named = columns_of(first) or any(name.lower() in known for name in first)
                if check is not None and (named or _looks_like_heading(first[0])):
                    check(first, lines.where)
                headings = first if named else HEADLESS
                if named:
                    continue
            values = dict(zip(headings, cells, strict=False))
            error = None
            extra = any(cell.strip() for cell in cells[len(headings) :])
            if extra and list(headings) != HEADLESS:
                error = DataError(
                    tr("The row has more cells than the table has columns."),
                    where=lines.where,
                    found=len(cells),
                    expected=len(headings),
                    hint=tr("Put a cell that contains a comma in double quotes."),
                )
            yield Record(lines.where, values, lines.number, lines.end, error)
    except csv.Error as error:
        raise DataError(tr("The line is not CSV."), where=lines.where, found=error) from None


def _looks_like_heading(cell: str) -> bool:
    """True for an unknown heading (``name``, ``名称``), False for an image path."""
    return cell.isidentifier() and not any(character.isdigit() for character in cell)


def _json_records(lines: _Lines, check: Check | None) -> Iterator[Record]:
    for text in lines:
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise DataError(
                tr("The line is not a JSON object."),
                where=lines.where,
                found=repr(text.rstrip("\r\n")[:60]),
                expected='{"image": "a.jpg", "title": "…"}',
            )
        if check is not None:
            check(list(values), lines.where)
        yield Record(lines.where, values, lines.number, lines.end)
