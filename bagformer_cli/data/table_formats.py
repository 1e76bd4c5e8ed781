"""Formats that are often given as tables or catalogues and cannot be read, and what to do."""

from __future__ import annotations

from pathlib import Path

from bagformer_cli.errors import InputError
from bagformer_cli.file_kinds import HEAD_BYTES, kind_of
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular

_SPREADSHEETS = {
    ".xls": "Excel 97",
    ".xlsb": "Excel",
    ".ods": "LibreOffice",
    ".numbers": "Numbers",
    ".et": "WPS",
    ".ett": "WPS",
}
_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_MARKS = (
    (b"PK\x03\x04", "Excel"),  # .xlsx with another ending
    (b"\xd0\xcf\x11\xe0", "Excel 97"),
)


def require_table(path: Path) -> None:
    """Refuse a spreadsheet, an archive, an image or a web page where a text table is expected.

    Raises:
        InputError: It is one, or it cannot be read.
    """
    with open_regular(path) as stream:
        head = stream.read(HEAD_BYTES)
    for mark, program in _MARKS:
        if head.startswith(mark):
            raise InputError(
                tr("This file is no text, whatever its ending says."),
                where=path,
                found=tr("a workbook of {program}, or an archive", program=program),
                hint=tr("Rename a workbook to .xlsx; unpack an archive first."),
            )
    if kind := kind_of(head):
        raise InputError(
            tr("This file is not a table."),
            where=path,
            found=kind.found,
            expected=tr("a CSV, TSV, JSONL or .xlsx table"),
            hint=kind.hint,
        )


def unreadable_kind(path: Path) -> InputError | None:
    """Make the error for a spreadsheet of another program or an archive; None: it is neither."""
    ending = path.suffix.lower()
    if program := _SPREADSHEETS.get(ending):
        return InputError(
            tr("Tables of {program} ({ending}) are not read.", program=program, ending=ending),
            where=path,
            hint=tr("Open the file there and save it as .xlsx or as CSV (UTF-8)."),
        )
    if ending in _ARCHIVES:
        return InputError(
            tr("Archives ({ending}) are not read.", ending=ending),
            where=path,
            hint=tr("Unpack it and give the folder of images or the table."),
        )
    return None
