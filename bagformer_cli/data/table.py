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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.columns import columns_of, repeats_headings
from bagformer_cli.data.csv_cells import Row, RowReader
from bagformer_cli.data.json_values import json_object
from bagformer_cli.data.table_formats import require_table
from bagformer_cli.data.table_headings import (
    Check,
    Table,
    has_content,
    headings_of,
    row_test,
    separator_of,
)
from bagformer_cli.data.text_form import TextLine, text_lines
from bagformer_cli.data.workbook import SheetReader, is_workbook, open_sheet
from bagformer_cli.errors import DataError, listed, shortened
from bagformer_cli.messages import tr

HEADLESS = ["image", "title"]
"""Columns of a CSV without headings."""

JSON_ENDINGS = {".jsonl", ".json", ".ndjson"}


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
    table = Table(source, encoding, sheet, chosen or {}, check)
    if is_workbook(source):
        rows = ByteRange(open_sheet(source, sheet).file, start.offset).lines()
        return _row_records(table, SheetReader(rows, start.line), start.headings)
    require_table(source)
    lines = text_lines(source, encoding, start.offset, start.line)
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


def _row_records(
    table: Table, reader: RowReader | SheetReader, headings: Sequence[str] | None
) -> Iterator[Record]:
    rows: Iterable[Row] = reader
    at_start = headings is None
    if headings is None:
        row = next((row for row in reader if has_content(row, reader.separator)), None)
        if row is None:
            return
        headings = headings_of(row, table)
        if headings is None:
            headings, rows = HEADLESS, chain([row], reader)
    columns = columns_of(headings, table.chosen)
    if isinstance(reader, SheetReader):
        reader.width = len(headings)
    else:
        reader.is_row = row_test(headings, columns)
    count = len(headings)
    unnamed = [at for at, name in enumerate(headings) if not name]
    file = f"{table.source}:"
    for cells, first, last, end, error in rows:  # runs for every row of the table
        if not (cells and cells[0].strip()) and not "".join(cells).strip():
            continue
        where = f"{file}{first}"
        if error is None and len(cells) != count:
            error = _wrong_count(cells, count)
            if error is not None and columns.get("id") == headings[0]:
                error.product = cells[0].strip() or None  # later cells may be in a wrong column
        elif cells == headings or (at_start and repeats_headings(headings, columns, cells)):
            error = DataError(
                tr("This row repeats the headings; it is no product."),
                found=shortened(listed(cell for cell in cells if cell)),
            )
        at_start = False
        values: dict[str, Any] = dict(zip(headings, cells, strict=False))
        if unnamed:
            values[""] = "".join(cells[at] for at in unnamed if at < len(cells)).strip()
        if error is not None:
            error.where = where
        yield Record(where, values, last, end, error, columns)


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


def _json_records(table: Table, lines: Iterator[TextLine]) -> Iterator[Record]:
    checked = False
    file = f"{table.source}:"
    names: tuple[str, ...] = ()
    columns = columns_of(names, table.chosen)
    for text, number, end, error in lines:
        if not text.strip():
            continue
        where = f"{file}{number}"
        values: dict[str, Any] = {}
        try:
            if error is None:
                values = json_object(text)
        except DataError as caught:
            error = caught
        if error is not None:
            error.where = where
            if not checked and text.lstrip().startswith("["):
                error.hint = tr(
                    "A JSON array is not read: write one object per line, without commas between."
                )
                raise error
        elif not checked and table.check is not None:
            table.check(list(values), where)
            checked = True
        if (own := tuple(values)) != names:  # most records have the fields of the one before
            names, columns = own, columns_of(own, table.chosen)
        yield Record(where, values, number, end, error, columns)
