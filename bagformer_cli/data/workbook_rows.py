"""Write the cells of a sheet as text, as Excel shows them; refuse a sheet of impossible size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from bagformer_cli.data.columns import LOOKED_AT, are_headings
from bagformer_cli.data.workbook_xml import Merged
from bagformer_cli.errors import DataError, InputError, with_place
from bagformer_cli.messages import tr

MOST_ROWS, MOST_COLUMNS = 1_048_576, 16_384  # Excel's own limits

MOST_TEXT, MOST_ROW_TEXT = 1 << 30, 32 << 20
"""Characters of a sheet, and of one row. The workbook stores a text once, and each cell that shows
it takes a few bytes; so a small file can hold a sheet of terabytes."""

MOST_CELLS, MOST_REPEATED = 100_000_000, 20 * MOST_ROWS
"""Cells of a sheet, with the empty ones left of a row's last cell; cells that merged ones fill."""

_SURE_DIGITS = 10**15  # Excel stores 15 digits of a number

_ZEROS = re.compile(r"0{2,}")


def not_a_workbook(path: Path, found: object) -> DataError:
    """Return the error for a file that is no workbook, or a damaged one."""
    return DataError(
        tr("This is not a readable Excel workbook."),
        where=path,
        found=found,
        hint=tr(
            "Open it in Excel or WPS and save it as .xlsx without a password, or as CSV (UTF-8)."
        ),
    )


class RowWriter:
    """Turns rows of cells into lines.

    Args:
        merged: Cells that are merged over several rows.
    """

    def __init__(self, merged: Merged) -> None:
        self._begin = merged
        self._open: dict[int, tuple[int, str]] = {}  # column: last row, text
        self._width = self._cells = self._repeated = self._characters = 0
        self.long_number = ""
        self.wide_row = 0

    def lines(self, rows: Iterable[tuple[Any, ...]], path: Path) -> Iterator[str]:
        """Write the rows as JSON arrays; empty rows at the end are left out."""
        from openpyxl.cell.read_only import EMPTY_CELL

        blank = 0
        for number, row in enumerate(rows, 1):
            if number > MOST_ROWS or len(row) > MOST_COLUMNS:
                raise not_a_workbook(path, tr("more rows or columns than Excel has"))
            cells = ["" if cell is EMPTY_CELL else self._text(cell) for cell in row]
            cells = self._merge(cells, number)
            self._require_moderate(len(row), cells, number, path)
            while cells and not cells[-1].strip():
                cells.pop()
            if not cells:
                blank += 1
                continue
            if not self._width or (number <= LOOKED_AT and are_headings(cells)):
                self._width = max(self._width, len(cells))
            if len(cells) > self._width and not self.wide_row:
                self.wide_row = number
            yield "[]\n" * blank + json.dumps(cells[: self._width], ensure_ascii=False) + "\n"
            blank = 0

    def _require_moderate(self, width: int, cells: list[str], number: int, path: Path) -> None:
        """Count a row; refuse the sheet if it is much longer than any that a person made."""
        in_row = sum(map(len, cells))
        self._cells += width
        self._characters += in_row
        counts = (self._cells, self._repeated, in_row, self._characters)
        most = (MOST_CELLS, MOST_REPEATED, MOST_ROW_TEXT, MOST_TEXT)
        if any(count > limit for count, limit in zip(counts, most, strict=True)):
            names = (tr("cells"), tr("merged cells"), tr("characters in one row"), tr("characters"))
            at = next(i for i in range(len(most)) if counts[i] > most[i])
            raise InputError(
                tr("The sheet is too large."),
                where=tr("{path}, row {n}", path=path.name, n=number),
                found=with_place(f"{counts[at]:,}", names[at]),
                expected=f"≤ {most[at]:,}",
            )

    def _merge(self, cells: list[str], number: int) -> list[str]:
        """Repeat cells that are merged over several rows."""
        for column, (last, text) in list(self._open.items()):
            if number > last:
                del self._open[column]
                continue
            cells += [""] * (column + 1 - len(cells))
            cells[column] = cells[column] or text
            self._repeated += 1
        for column, last in self._begin.get(number, ()):
            if column < len(cells) and cells[column]:
                self._open[column] = (last, cells[column])
        return cells

    def _text(self, cell: Any) -> str:
        value = cell.value
        if value is None or cell.data_type == "e":
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, (bool, int, float)):
            return self._number(value, cell)
        return shown_date(value)

    def _number(self, value: float, cell: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if abs(value) >= _SURE_DIGITS and not self.long_number:
            self.long_number = f"{shown_number(value)} ({cell.coordinate})"
        text = shown_number(value)
        form = str(cell.number_format)
        return text.zfill(len(form)) if _ZEROS.fullmatch(form) and text.isdigit() else text


def shown_number(value: float) -> str:
    """Write a number with the digits that Excel shows, without an exponent.

    >>> shown_number(60012.0), shown_number(0.1 + 0.2), shown_number(1.5e11), shown_number(-3)
    ('60012', '0.3', '150000000000', '-3')
    """
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e300):
        return str(int(value))
    return f"{Decimal(f'{value:.15g}'):f}"


def shown_date(value: datetime | date | time | timedelta) -> str:
    """Write a date, a time of day or a duration.

    >>> shown_date(datetime(2024, 5, 1)), shown_date(datetime(2024, 5, 1, 13, 30))
    ('2024-05-01', '2024-05-01 13:30:00')
    """
    if isinstance(value, datetime):
        whole = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return value.date().isoformat() if whole else value.isoformat(" ", "seconds")
    return str(value)
