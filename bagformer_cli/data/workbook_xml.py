"""Merged cells, lost formulas, and XML that would fill the memory: openpyxl finds none of them.

openpyxl reads a part element by element and drops the content of a row or a text when it ends. So
what one of them holds, and how many there are, decides about memory; both are counted before.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple
from xml.etree import ElementTree

from bagformer_cli.messages import tr

Merged = dict[int, list[tuple[int, int]]]
"""Row to the cells that begin there and are merged downwards: column from 0, last row."""

_CHUNK, _OVERLAP = 1 << 20, 1 << 10  # an element that is looked for is shorter than the overlap
_MERGED = re.compile(rb'mergeCell\b[^>]{0,200}\bref="([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})"')
_NO_VALUE = re.compile(
    rb"(?:</(?:\w{1,64}:)?f>|<(?:\w{1,64}:)?f\b[^>]{0,200}/>)\s{0,100}"
    rb"(?:<(?:\w{1,64}:)?v\s{0,100}/>|<(?:\w{1,64}:)?v></(?:\w{1,64}:)?v>)?\s{0,100}"
    rb"</(?:\w{1,64}:)?c>"
)
# All repetitions are bounded: without a bound, a stranger's text takes quadratic time.
_ITEM = re.compile(rb"<(?:[^\s<>/:]{1,64}:)?(?:row|si)[\s/>]")
_SMALL = 32 << 20
"""Bytes of a part that may hold anything: read whole, it takes less than a gigabyte."""
_MOST_ITEMS, _MOST_TAGS, _MOST_BETWEEN = 16 << 20, 1 << 20, 64 << 20
"""Rows or shared texts of a part; tags and bytes from one of them to the next."""
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


def find_unsafe_part(packed: zipfile.ZipFile) -> str | None:
    """Say what is wrong with a workbook that must not be parsed; None: it may be.

    Every part is looked at, because a workbook may call any of them a sheet.
    """
    for one in packed.infolist():
        with packed.open(one) as part:
            head = part.read(_CHUNK)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<"):
                return f"{one.filename}: UTF-16"
            start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
            if start and not start.startswith(b"<"):
                continue  # an image, or something else that no parser of XML reads
            if not _is_moderate(itertools.chain([head], iter(lambda: part.read(_CHUNK), b"")),
                                count=one.file_size > _SMALL):  # fmt: skip
                return tr("{name} is no part of a workbook that a program saved", name=one.filename)
    return None


def _is_moderate(chunks: Iterable[bytes], count: bool) -> bool:
    """Tell whether XML defines no entities and, if ``count``, holds only items of moderate size."""
    items = tags = size = 0  # of the part; since the last item
    tail = b""
    for chunk in chunks:
        text = tail + chunk
        if b"<!DOCTYPE" in text:
            return False
        if count:
            last = 0
            for found in _ITEM.finditer(text):
                items += found.end() > len(tail)
                last = found.start()
            if last:
                tags = size = 0
            tags += text.count(b"<", last)
            size += len(text) - last
            if items > _MOST_ITEMS or tags > _MOST_TAGS or size > _MOST_BETWEEN:
                return False
        tail = text[-_OVERLAP:]
    return True


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
