"""The headings of a table: the separator of its cells, and which row names the columns.

A CSV without headings, two columns of paths and titles, begins with a product::

    id,image,title            headings                sep=;             names the separator
    商品表 2024年               refused: a title above the headings
    a.jpg,红裙                 no headings: image and title
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.columns import (
    LOOKED_AT,
    are_headings,
    check_headings,
    clean_heading,
    columns_of,
    looks_like_heading,
)
from bagformer_cli.data.csv_cells import IsRow, Row
from bagformer_cli.data.text_form import text_lines
from bagformer_cli.data.workbook import SheetReader, is_workbook, open_sheet
from bagformer_cli.errors import InputError, listed
from bagformer_cli.messages import tr

SEPARATORS = (",", "\t", ";")
_PICTURE = re.compile(r"^\S+\.[A-Za-z][A-Za-z0-9]{2,4}$|^https?://")
_IMAGE_PATH = re.compile(r"[./\\]")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?[,;\t]*', re.I)

Check = Callable[[Sequence[str], str], None]
"""Receives headings and where they stand; raises if it refuses them."""


class Table(NamedTuple):
    """A table and how its headings are found.

    Args:
        source: The file.
        encoding: The encoding that the user gave.
        sheet: Name or number of a workbook's sheet; None: the first one.
        chosen: Role to the heading of its column, where the user named it.
        check: The caller's check of the headings; None: no check.
    """

    source: Path
    encoding: str
    sheet: str | None
    chosen: Mapping[str, str]
    check: Check | None


def separator_of(source: Path, encoding: str = "utf-8") -> str:
    """Find the character between the cells of a CSV or TSV: by its ending and its first line.

    Raises:
        InputError: The file cannot be read.
    """
    usual = "\t" if source.suffix.lower() == ".tsv" else ","
    for line in text_lines(source, encoding):
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


def has_content(row: Row, separator: str) -> bool:
    """False for a blank row, and for the line ``sep=;``, which names the separator for Excel."""
    text = separator.join(row.cells).strip()
    return bool(text) and not _SEPARATOR_LINE.fullmatch(text)


def headings_of(row: Row, table: Table) -> list[str] | None:
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


def _refuse_headings_below(first: int, table: Table) -> None:
    """Refuse a table with a title or a version above its headings: its rows would be misread.

    Raises:
        InputError: The error names the row of the headings.
    """
    for number, cells in _first_rows(table):
        if number > first and are_headings(cells, table.chosen):
            raise InputError(
                tr("The headings of the table are not in its first row."),
                where=f"{table.source}:{number}",
                found=listed(cell for cell in map(clean_heading, cells) if cell)[:200],
                hint=tr("Delete the rows above the headings."),
            )


def row_test(headings: Sequence[str], columns: Mapping[str, str]) -> IsRow:
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


def _first_rows(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each of the first rows, by every separator in turn."""
    if is_workbook(table.source):
        file = open_sheet(table.source, table.sheet).file
        for row in islice(SheetReader(ByteRange(file).lines()), LOOKED_AT):
            yield row.first, row.cells
        return
    for line in islice(text_lines(table.source, table.encoding), LOOKED_AT):
        for separator in SEPARATORS:
            yield line.number, [cell.strip(' "') for cell in line.text.split(separator)]
