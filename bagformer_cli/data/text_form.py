r"""Find out how a text file is written: its encoding, its byte order, its line ends.

The first bytes decide, in this order::

    EF BB BF, FF FE, FE FF, FF FE 00 00, 00 00 FE FF     a byte-order mark names the encoding
    69 00 64 00 2C 00   i . d . , .                      zeros after ASCII: UTF-16, low byte first
    00 69 00 64 00 2C   . i . d . ,                      zeros before ASCII: UTF-16, high byte first
    anything else                                        the encoding that the user gave

A mark wins over the user's word: a text in another encoding does not begin with these bytes. No
rule separates UTF-8 from GB18030 with certainty, so nothing is guessed there.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from bagformer_cli.data.byte_ranges import MAX_LINE, ByteRange, decode_line, file_stamp
from bagformer_cli.errors import DataError, InputError, cannot_read
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular

_HEAD = 1 << 20  # bytes that are looked at
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_PLAIN_NAMES = {
    "utf-8-sig": "utf-8",  # marks are removed here
    "gb2312": "gb18030",  # files that are called GB2312 or GBK often hold later characters
    "gbk": "gb18030",
}
_LINE_ENDS = re.compile("[\r\n]+")


@dataclass(frozen=True, slots=True)
class TextForm:
    """The encoding and the line ends of a text file.

    Args:
        encoding: A codec of Python, with a byte order.
        newline: The end of its lines: a line feed, or a carriage return (old Macintosh files).
    """

    encoding: str = "utf-8"
    newline: str = "\n"

    def byte_range(self, path: Path, begin: int = 0) -> ByteRange:
        """Return the lines of a file of this form from an offset on."""
        return ByteRange(path, begin, newline=self.newline.encode(self.encoding))


def text_form(path: Path, encoding: str) -> TextForm:
    """Find out how a file is written.

    Args:
        path: The file.
        encoding: The encoding that the user gave.

    Raises:
        InputError: The file cannot be read, or there is no such encoding.
        DataError: Most of its lines are not text in this encoding.
    """
    try:
        return _text_form(path, encoding, *file_stamp(path))
    except OSError as error:
        raise cannot_read(path, error) from error


@lru_cache(maxsize=8)  # each part of a table asks for it
def _text_form(path: Path, encoding: str, *stamp: int) -> TextForm:
    with open_regular(path) as stream:
        head = stream.read(_HEAD)
    name = _codec(encoding)
    found = _encoding_of(head, name, path)
    text = _decoded(head, found, "replace")
    ends = _LINE_ENDS.search(text)
    newline = "\r" if ends and "\n" not in ends[0] else "\n"
    form = TextForm(found, newline)
    if found not in _WIDE:
        _require_text(path, head, form)
    return form


class TextLine(NamedTuple):
    """A decoded line.

    Args:
        text: Its text without the line end; the first characters if there is an error.
        number: Its number in the file, from 1.
        end: Offset of the next line.
        error: Why it is not text; None: it is.
    """

    text: str
    number: int
    end: int
    error: DataError | None = None


def text_lines(source: Path, encoding: str, offset: int = 0, number: int = 0) -> Iterator[TextLine]:
    """Read the lines of a text file; one that is no text has an error.

    Args:
        source: The file.
        encoding: The encoding that the user gave.
        offset: Offset of the first byte of a line, at which to start.
        number: Number of lines before it.

    Raises:
        InputError: The file cannot be read, or there is no such encoding.
        DataError: Most of its lines are not text in this encoding.
    """
    form = text_form(source, encoding)
    codec, hint = form.encoding, encoding_hint(form.encoding)
    for line in form.byte_range(source, offset).lines():
        raw, begin, end = line
        number += 1
        error = None
        try:
            if end - begin > MAX_LINE:
                line.require_whole()
            text = decode_line(raw, None, codec, hint)
        except DataError as caught:
            text, error = raw[:60].decode(codec, "replace"), caught
        yield TextLine(text.rstrip("\r\n").lstrip("\ufeff"), number, end, error)


def encoding_hint(encoding: str) -> str:
    """Return the advice for a line that is not text in the encoding."""
    if encoding == "utf-8":
        return tr("A table from Excel in China: try --encoding gb18030")
    return tr("Choose another --encoding, or save the file as UTF-8.")


def _codec(encoding: str) -> str:
    """Return Python's name of an encoding."""
    try:
        codecs.getincrementaldecoder(encoding)("replace").decode("\n".encode(encoding))
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):  # no such codec; one of bytes; an odd name
        raise InputError(
            tr("There is no such encoding."),
            found=encoding,
            expected="utf-8, gb18030, big5, utf-16, …",
        ) from None
    return _PLAIN_NAMES.get(name, name)


def _encoding_of(head: bytes, given: str, path: Path) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    wide = given.startswith(("utf-16", "utf-32"))
    if b"\0" in head:
        for name in sorted(_WIDE, key=lambda name: not name.startswith(given)):
            if _reads_as(head, name):
                return name
    if not wide:
        return given
    if b"\0" not in head and head.strip():
        raise DataError(
            tr("The file is not {encoding} text.", encoding=given.upper()),
            where=path,
            hint=tr("Leave out --encoding if the file is UTF-8."),
        )
    return given if given in _WIDE else f"{given}-le"


def _reads_as(head: bytes, encoding: str) -> bool:
    """Tell whether bytes are text in a wide encoding, with line ends or separators, without NUL."""
    try:
        text = _decoded(head, encoding, "strict")
    except UnicodeDecodeError:
        return False
    return "\0" not in text and any(mark in text for mark in "\n\r,\t;")


def _decoded(head: bytes, encoding: str, errors: str) -> str:
    """Decode the head of a file, in which the last character may be cut."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    return decoder.decode(head, final=len(head) < _HEAD)


def _require_text(path: Path, head: bytes, form: TextForm) -> None:
    """Refuse a file of which the first line, or most lines, are in another encoding.

    A line that alone is broken costs only itself: its reader names it.
    """
    try:
        _decoded(head, form.encoding, "strict")
        return
    except UnicodeDecodeError:
        pass
    first: DataError | None = None
    bad = others = 0
    for number, line in enumerate(form.byte_range(path).lines(), 1):
        if line.end > len(head) and number > 1:
            break
        if line.raw.isascii():
            continue
        try:
            decode_line(line.raw, f"{path}:{number}", form.encoding, encoding_hint(form.encoding))
            others += 1
        except DataError as error:
            first, bad = first or error, bad + 1
            if number == 1:
                raise
    if first is not None and bad > max(1, others):
        raise first
