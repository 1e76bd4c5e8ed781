r"""Read CSV, TSV and JSONL tables record by record, from the start or from any record.

A record is one row of a CSV, which may contain line breaks inside quotes, or one line of a JSONL::

    offset  0          id,image,title
            15         1,a.png,"two             a record: lines 2 and 3, end 35
                       lines"
            35         2,b.png,裙               a record: line 4, end 47

Every row with content is a record: one that cannot be used carries its error, so that callers
leave it out and name it, or stop. Every record carries the offset where the next one begins, so a
table can be divided into parts that start at a record; :class:`Start` continues there. ``xmr data
import`` reads (image, title) rows from tables (``importing/rows.py``); a catalogue reads any
columns (``catalogue/table.py``).

A row must have as many cells as there are headings. With more, or with fewer, some cell contains a
separator or a line break without quotes, and nothing says which one: such a row is an error.
Empty cells at the end, which spreadsheets write, do not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bagformer_cli.data.byte_ranges import ByteRange, decode_line
from bagformer_cli.data.columns import (
    LOOKED_AT,
    are_headings,
    check_headings,
    clean_heading,
    columns_of,
    looks_like_heading,
)
from bagformer_cli.data.csv_cells import IsRow, Row, RowReader, TextLine
from bagformer_cli.data.json_values import json_object
from bagformer_cli.data.table_formats import require_table
from bagformer_cli.data.text_form import encoding_hint, text_form
from bagformer_cli.data.workbook import SheetReader, is_workbook, open_sheet
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr

HEADLESS = ["image", "title"]
"""Columns of a CSV without headings."""

JSON_ENDINGS = {".jsonl", ".json", ".ndjson"}
SEPARATORS = (",", "\t", ";")
_PICTURE = re.compile(r"^\S+\.[A-Za-z][A-Za-z0-9]{2,4}$|^https?://")
_IMAGE_PATH = re.compile(r"[./\\]")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?[,;\t]*', re.I)


class Record(NamedTuple):
    """One record of a table.

    Args:
        where: File and first line.
        values: Column name to value: text in a CSV, any JSON value in a JSONL.
        line: Number of its last line in the file, from 1.
        end: Offset of the first byte after it.
        error: Why it cannot be used; None: it can.
        columns: Role (``id``, ``image``, ``title`` …) to the name of its column.
    """

    where: str
    values: dict[str, Any]
    line: int
    end: int
    error: DataError | None = None
    columns: Mapping[str, str] = MappingProxyType({})


class Start(NamedTuple):
    """A position in a table from which reading can continue.

    Args:
        offset: Offset of the first byte of a record.
        line: Number of lines before it.
        headings: Headings of a CSV that are before it; None: none are.
        separator: The character between the cells of a CSV; None: find it in the first line.
    """

    offset: int = 0
    line: int = 0
    headings: Sequence[str] | None = None
    separator: str | None = None


Check = Callable[[Sequence[str], str], None]
"""Receives headings and where they stand; raises if it refuses them."""


def read_records(
    source: Path,
    encoding: str = "utf-8",
    *,
    chosen: Mapping[str, str] | None = None,
    check: Check | None = None,
    start: Start = Start(),  # noqa: B008 - a constant
    sheet: str | None = None,
) -> Iterator[Record]:
    """Read the records of a table as a stream.

    Args:
        source: A CSV, TSV or JSONL file, or an Excel workbook.
        encoding: Encoding of the file (Excel in China often writes ``gb18030``); a byte-order mark
            in the file wins. See ``text_form.py``.
        chosen: Role (``image``, ``title``, ``id`` …) to the heading of its column, where the user
            named it. The other roles are found by :data:`~bagformer_cli.data.columns.ROLES`. A CSV
            whose first line has no known heading has no headings: its columns are
            :data:`HEADLESS`.
        check: Called with the headings of a CSV (also if the first line looks like unknown
            headings), or with the fields of the first record of a JSONL.
        start: Where to start.
        sheet: Name or number of a workbook's sheet; None: the first one.

    Raises:
        InputError: The file cannot be read, its headings are not in the first row or leave open
            which column is meant, or ``check`` refuses them.
        DataError: Most lines are in another encoding, or the file is no JSONL.
    """
    first_rows = partial(_first_rows, source, encoding, sheet)
    table = _Table(source, chosen or {}, check, first_rows)
    if is_workbook(source):
        rows = ByteRange(open_sheet(source, sheet).file, start.offset).lines()
        return _row_records(table, SheetReader(rows, start.line), start.headings)
    require_table(source)
    lines = _lines(source, encoding, start)
    if source.suffix.lower() in JSON_ENDINGS:
        return _json_records(table, lines)
    separator = start.separator or separator_of(source, encoding)
    reader = RowReader(lines, separator, quotes=source.suffix.lower() != ".tsv")
    return _row_records(table, reader, start.headings)


def text_of(source: Path, sheet: str | None) -> Path:
    """Return the file whose offsets the records of a table have.

    Args:
        source: The table.
        sheet: Name or number of a workbook's sheet; None: the first one.
    """
    return open_sheet(source, sheet).file if is_workbook(source) else source


def remarks_of(source: Path, sheet: str | None) -> list[str]:
    """Say what a reader of a table's file may not expect; see :meth:`Sheet.remarks`."""
    if not is_workbook(source):
        return []
    return open_sheet(source, sheet).remarks(source, sheet is not None)


def separator_of(source: Path, encoding: str = "utf-8") -> str:
    """Find the character between the cells of a CSV or TSV: by its ending and its first line.

    Raises:
        InputError: The file cannot be read.
    """
    usual = "\t" if source.suffix.lower() == ".tsv" else ","
    for line in _lines(source, encoding, Start()):
        if not line.text.strip():
            continue
        if given := _SEPARATOR_LINE.fullmatch(line.text.strip()):
            return given[1]
        others = [one for one in SEPARATORS if one in line.text]
        if usual in others:
            return usual
        for other in others:
            if columns_of(cell.strip(' "') for cell in line.text.split(other)):
                return other
        return usual
    return usual


class _Table(NamedTuple):
    """A table, the columns that the user named, the caller's check of headings, its first rows."""

    source: Path
    chosen: Mapping[str, str]
    check: Check | None
    first_rows: Callable[[], Iterator[tuple[int, list[str]]]]


def _first_rows(source: Path, encoding: str, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each of the first rows, by every separator in turn."""
    if is_workbook(source):
        for row in islice(
            SheetReader(ByteRange(open_sheet(source, sheet).file).lines()), LOOKED_AT
        ):
            yield row.first, row.cells
        return
    for line in islice(_lines(source, encoding, Start()), LOOKED_AT):
        for separator in SEPARATORS:
            yield line.number, [cell.strip(' "') for cell in line.text.split(separator)]


def _lines(source: Path, encoding: str, start: Start) -> Iterator[TextLine]:
    form = text_form(source, encoding)
    hint = encoding_hint(form.encoding)
    number = start.line
    for line in form.byte_range(source, start.offset).lines():
        number += 1
        error = None
        try:
            line.require_whole()
            text = decode_line(line.raw, None, form.encoding, hint)
        except DataError as caught:
            text, error = line.raw[:60].decode(form.encoding, "replace"), caught
        yield TextLine(text.rstrip("\r\n").lstrip("\ufeff"), number, line.end, error)


def _row_records(
    table: _Table, reader: RowReader | SheetReader, headings: Sequence[str] | None
) -> Iterator[Record]:
    rows: Iterable[Row] = reader
    if headings is None:
        row = next((row for row in reader if _has_content(row, reader.separator)), None)
        if row is None:
            return
        headings = _headings(row, table)
        if headings is None:
            headings, rows = HEADLESS, chain([row], reader)
    columns = columns_of(headings, table.chosen)
    if isinstance(reader, SheetReader):
        reader.width = len(headings)
    else:
        reader.is_row = _row_test(headings, columns)
    named = [(at, name) for at, name in enumerate(headings) if name]
    unnamed = [at for at, name in enumerate(headings) if not name]
    for row in rows:
        cells, error = row.cells, row.error
        if not (cells and cells[0].strip()) and not "".join(cells).strip():
            continue
        if error is None and len(cells) != len(headings):
            error = _wrong_count(cells, len(headings))
        values: dict[str, Any] = dict(zip(headings, cells, strict=False))
        if unnamed:
            values = {name: cells[at] for at, name in named if at < len(cells)}
            values[""] = "".join(cells[at] for at in unnamed if at < len(cells)).strip()
        where = f"{table.source}:{row.first}"
        if error is not None:
            error.where = where
        yield Record(where, values, row.last, row.end, error, columns)


def _has_content(row: Row, separator: str) -> bool:
    """False for a blank row, and for the line ``sep=;``, which names the separator for Excel."""
    text = separator.join(row.cells).strip()
    return bool(text) and not _SEPARATOR_LINE.fullmatch(text)


def _headings(row: Row, table: _Table) -> list[str] | None:
    """Return the headings if the first row has some; None: it is a product.

    Raises:
        InputError: They leave open which column is meant, or the caller refuses them.
    """
    where = f"{table.source}:{row.first}"
    found = [clean_heading(cell) for cell in row.cells]
    while len(found) > 1 and not found[-1]:
        found.pop()  # spreadsheets write empty cells at the end of every row
    if not columns_of(found, table.chosen):
        _refuse_headings_below(row.first, table)
    named = bool(table.chosen or columns_of(found))
    unknown = looks_like_heading(found[0]) or len(found) > 2
    if not named and (not unknown or _IMAGE_PATH.search(found[0])):
        return None
    if row.error is not None:
        row.error.where = where
        raise row.error
    check_headings(found, where, table.chosen)
    if table.check is not None:
        table.check(found, where)
    return found if named else None


def _refuse_headings_below(first: int, table: _Table) -> None:
    """Refuse a table with a title or a version above its headings: its rows would be misread.

    Raises:
        InputError: The error names the row of the headings.
    """
    for number, cells in table.first_rows():
        if number > first and are_headings(cells, table.chosen):
            raise InputError(
                tr("The headings of the table are not in its first row."),
                where=f"{table.source}:{number}",
                found=", ".join(cell for cell in map(clean_heading, cells) if cell)[:200],
                hint=tr("Delete the rows above the headings."),
            )


def _row_test(headings: Sequence[str], columns: Mapping[str, str]) -> IsRow:
    """Return the test for a line inside quotes that is a row by itself: see ``csv_cells.py``.

    A text inside quotes may well contain a separator, so the number of cells alone says little:
    the cell of the image must look like a file name.
    """
    count = len(headings)
    if "image" not in columns:
        return lambda cells: len(cells) == count
    at = list(headings).index(columns["image"])

    def is_row(cells: list[str]) -> bool:
        return len(cells) > at and _PICTURE.search(cells[at].strip()) is not None

    return is_row


def _wrong_count(cells: list[str], count: int) -> DataError | None:
    """Return the error for a row that has more or fewer cells than the table has columns."""
    if len(cells) > count and not "".join(cells[count:]).strip():
        return None
    if len(cells) > count:
        message = tr("The row has more cells than the table has headings.")
        hint = tr("Put a cell that contains a comma in double quotes.")
    else:
        message = tr("The row has fewer cells than the table has headings.")
        hint = tr("Put a cell that contains a line break in double quotes.")
    return DataError(message, found=len(cells), expected=count, hint=hint)


def _json_records(table: _Table, lines: Iterator[TextLine]) -> Iterator[Record]:
    checked = False
    for line in lines:
        if not line.text.strip():
            continue
        where = f"{table.source}:{line.number}"
        values: dict[str, Any] = {}
        error = line.error
        try:
            if error is None:
                values = json_object(line.text)
        except DataError as caught:
            error = caught
        if error is not None:
            error.where = where
            if not checked and line.text.lstrip().startswith("["):
                error.hint = tr(
                    "A JSON array is not read: write one object per line, without commas between."
                )
                raise error
        elif not checked and table.check is not None:
            table.check(list(values), where)
            checked = True
        yield Record(where, values, line.number, line.end, error, columns_of(values, table.chosen))
