"""Facts of a sheet that openpyxl's streaming reader does not give: merged cells, lost formulas."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple
from xml.etree import ElementTree

Merged = dict[int, list[tuple[int, int]]]
"""Row to the cells that begin there and are merged downwards: column from 0, last row."""

_CHUNK, _OVERLAP = 1 << 20, 1 << 10  # an element that is looked for is shorter than the overlap
_MERGED = re.compile(rb'mergeCell\b[^>]*\bref="([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})"')
_NO_VALUE = re.compile(
    rb"(?:</(?:\w+:)?f>|<(?:\w+:)?f\b[^>]*/>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*"
    rb"</(?:\w+:)?c>"
)
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_STRICT = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"


class Notes(NamedTuple):
    """Facts of a sheet.

    Args:
        merged: Cells that are merged over several rows.
        no_values: Number of formulas without a stored value.
    """

    merged: Merged
    no_values: int


def sheet_notes(stream: IO[bytes], name: str) -> Notes:
    """Read the facts of the sheet ``name`` of an open workbook."""
    merged: Merged = {}
    no_values = 0
    with zipfile.ZipFile(stream) as packed:
        path = _path_of(packed, name)
        if path is None:
            return Notes({}, 0)
        with packed.open(path) as sheet:
            for text, begin in _chunks(sheet):
                for found in _MERGED.finditer(text):
                    if found.end() > begin and found[2] != found[3]:
                        last = (_column(found[1]), int(found[3]))
                        merged.setdefault(int(found[2]), []).append(last)
                no_values += sum(found.end() > begin for found in _NO_VALUE.finditer(text))
    return Notes(merged, no_values)


def _chunks(sheet: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield overlapping chunks; a match that ends in the overlap was found before."""
    before = b""
    while chunk := sheet.read(_CHUNK):
        yield before + chunk, len(before)
        before = (before + chunk)[-_OVERLAP:]


def _path_of(packed: zipfile.ZipFile, name: str) -> str | None:
    """Find the file of a sheet inside the workbook."""
    book = ElementTree.fromstring(packed.read("xl/workbook.xml"))
    links = ElementTree.fromstring(packed.read("xl/_rels/workbook.xml.rels"))
    targets = {link.get("Id"): link.get("Target", "") for link in links}
    for sheet in book.iter():
        if sheet.tag.endswith("}sheet") and sheet.get("name") == name:
            target = targets.get(sheet.get(_RELATION) or sheet.get(_STRICT)) or ""
            path = posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
            return path if path in packed.namelist() else None
    return None


def _column(letters: bytes) -> int:
    """Number of a column from 0: A is 0, AA is 26."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number - 1
