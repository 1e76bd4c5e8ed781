"""Read a sheet of an Excel workbook (``.xlsx``) as rows of text, as Excel shows them.

Parts of a table are read from any offset, by any process, which the format does not allow: it is a
zip file of XML. So a sheet is written once to the cache, one JSON array per row of the sheet::

    line 1    ["id", "image", "title"]        row 1
    line 2    []                              row 2, empty
    line 3    ["0077", "a.jpg", "红裙"]        row 3: the number 77 with the format 0000

- A number is written without a false tail (0.1 + 0.2 is 0.3), an id without an exponent, with the
  zeros of its format. A date is ``2024-05-01`` or ``2024-05-01 13:30:00``, a truth value ``true``.
- A formula is the value that Excel stored for it; an error (``#N/A``) is an empty cell.
- A cell that is merged over several rows stands in each of them, in its first column.
"""

from __future__ import annotations

import errno
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from bagformer_cli.data.byte_ranges import Line, file_stamp
from bagformer_cli.data.csv_cells import Row
from bagformer_cli.data.workbook_rows import RowWriter, not_a_workbook
from bagformer_cli.data.workbook_xml import find_unsafe_part, sheet_notes
from bagformer_cli.errors import InputError, listed
from bagformer_cli.files import atomic_file, cache_folder, sha256_of
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular, require_moderate_zip

ENDINGS = {".xlsx", ".xlsm"}
MOST_BYTES = 4 << 30
"""Size limit of the unpacked workbook: a zip file of some megabytes can unpack to terabytes."""
_KEPT_FILES = 16
_VERSION = 2  # of the rows in the cache


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet as rows of text.

    Args:
        file: One JSON array of cells per row.
        name: Name of the sheet.
        others: Names of the workbook's other sheets.
        no_values: Number of formulas without a stored value.
        long_number: The first number that has more digits than Excel stores, with its cell.
        wide_row: The first row with cells to the right of the first row's last one; 0: no row.
    """

    file: Path
    name: str
    others: tuple[str, ...] = ()
    no_values: int = 0
    long_number: str = ""
    wide_row: int = 0

    def remarks(self, path: Path, chosen: bool) -> list[str]:
        """Say what a reader of the workbook may not expect.

        Args:
            path: The workbook.
            chosen: The user named the sheet.
        """
        found = []
        if self.others and not chosen:
            found.append(
                tr(
                    "{path}: the first sheet '{name}' is read; --sheet names another: {others}",
                    path=path.name,
                    name=self.name,
                    others=listed(self.others),
                )
            )
        if self.no_values:
            found.append(
                tr(
                    "{path}: formulas without a stored value are read as empty: {n}. Open the "
                    "workbook in Excel and save it.",
                    path=path.name,
                    n=self.no_values,
                )
            )
        if self.long_number:
            found.append(
                tr(
                    "{path}: Excel stores 15 digits of a number; the last digits of {number} may "
                    "be lost. Format such columns as text before the ids are typed in.",
                    path=path.name,
                    number=self.long_number,
                )
            )
        if self.wide_row:
            found.append(
                tr(
                    "{path}: cells to the right of the last heading are not read (row {n}).",
                    path=path.name,
                    n=self.wide_row,
                )
            )
        return found


class SheetReader(Iterator[Row]):
    """The rows of a sheet, one at a time.

    Args:
        lines: The lines of :attr:`Sheet.file`.
        number: Number of rows before the first line.
    """

    separator = "\t"  # for messages; the cells may contain it

    def __init__(self, lines: Iterator[Line], number: int = 0) -> None:
        self.width = 1
        """Number of cells of a row; set by the caller when it knows the headings."""
        self._lines = lines
        self._number = number

    def __next__(self) -> Row:
        line = next(self._lines)
        self._number += 1
        cells = [str(cell) for cell in json.loads(line.content)]
        cells += [""] * (self.width - len(cells))
        return Row(cells, self._number, self._number, line.end)


def is_workbook(path: Path) -> bool:
    """Say whether a path has the ending of a workbook that can be read."""
    return path.suffix.lower() in ENDINGS


def open_sheet(path: Path, sheet: str | None = None) -> Sheet:
    """Return a sheet as rows of text; they are made if the cache does not hold them.

    Args:
        path: The workbook.
        sheet: Name or number (from 1) of the sheet; hidden ones come last. None: the first one.

    Raises:
        InputError: The workbook cannot be opened, it is none, or it has no such sheet.
        DataError: It is damaged.
    """
    with open_regular(path):  # a missing file is named here, not by its time stamp
        pass
    return _open_sheet(path, sheet, tuple(file_stamp(path)))


@lru_cache(maxsize=4)
def _open_sheet(path: Path, sheet: str | None, stamp: tuple[int, ...]) -> Sheet:
    key = f"{sha256_of(path)} {_VERSION} {sheet}"
    folder = cache_folder() / "sheets"
    file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl"
    facts = file.with_suffix(".json")
    try:
        stored = json.loads(facts.read_text("utf-8"))
        if file.stat().st_size == stored.pop("size"):
            return Sheet(file, **{**stored, "others": tuple(stored["others"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # it is made again
    found = _convert(path, sheet, file)
    values = {**asdict(found), "size": file.stat().st_size}
    del values["file"]
    with atomic_file(facts) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False), "utf-8")
    _forget_old(folder)
    return found


def _forget_old(folder: Path) -> None:
    """Keep the sheets that were made last; a process that needs another makes it again."""
    made = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for facts in made[:-_KEPT_FILES]:
        facts.unlink(missing_ok=True)
        facts.with_suffix(".jsonl").unlink(missing_ok=True)


def _convert(path: Path, sheet: str | None, file: Path) -> Sheet:
    """Write the rows of a sheet to a file."""
    from openpyxl import load_workbook

    with open_regular(path) as stream:
        _check_zip(path, stream)
        try:
            book = load_workbook(stream, read_only=True, data_only=True, keep_links=False)
            pages = sorted(book.worksheets, key=lambda page: page.sheet_state != "visible")
            names = [page.title for page in pages]
            name = _chosen(names, sheet, path)
            page = book[name]
            page.reset_dimensions()  # the size that a file states is often wrong
            notes = sheet_notes(stream, name)
            writer = RowWriter(notes.merged)
            with atomic_file(file) as temporary, open(temporary, "w", encoding="utf-8") as out:
                out.writelines(writer.lines(page.iter_rows(), path))
        except (InputError, MemoryError):
            raise
        except OSError as error:
            if error.errno not in _DAMAGED:
                raise
            raise not_a_workbook(path, tr("a part of it is damaged")) from error
        except Exception as error:  # XML, zip, numbers, dates: the library raises whatever comes
            raise not_a_workbook(path, tr("a part of it is damaged")) from error
    others = tuple(one for one in names if one != name)
    return Sheet(file, name, others, notes.no_values, writer.long_number, writer.wide_row)


_DAMAGED = (None, errno.EINVAL)
"""Numbers of the OSErrors for impossible contents: of openpyxl, and for offsets before the file."""


def _check_zip(path: Path, stream: IO[bytes]) -> None:
    """Refuse what is no workbook, or unpacks to too much, before it is read.

    Raises:
        InputError: It is no zip file, it has a password, or it would fill the memory.
    """
    head = stream.read(8)
    if head == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":  # the container of .xls and of passwords
        raise not_a_workbook(path, tr("an .xls file, or a workbook with a password"))
    try:
        with zipfile.ZipFile(stream) as packed:
            if "xl/workbook.xml" not in packed.namelist():
                raise not_a_workbook(path, tr("a zip file without a workbook"))
            require_moderate_zip(packed, path, MOST_BYTES, tr("Save the sheet as CSV (UTF-8)."))
            wrong = find_unsafe_part(packed)
            if wrong is not None:
                raise not_a_workbook(path, wrong)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, EOFError) as error:
        raise not_a_workbook(path, error) from None
    except RuntimeError as error:  # a part has a password
        raise not_a_workbook(path, error) from None
    except OSError as error:
        if error.errno not in _DAMAGED:
            raise
        raise not_a_workbook(path, tr("a part of it is damaged")) from error
    stream.seek(0)


def _chosen(names: list[str], sheet: str | None, path: Path) -> str:
    if not names:
        raise not_a_workbook(path, tr("no sheet of cells"))
    if sheet is None:
        return names[0]
    if sheet in names:
        return sheet
    if sheet.isascii() and sheet.isdigit() and 1 <= int(sheet[:6]) <= len(names):
        return names[int(sheet) - 1]
    raise InputError(
        tr("The workbook has no such sheet."),
        where=path,
        found=f"--sheet {sheet}",
        expected=listed(names),
    )
