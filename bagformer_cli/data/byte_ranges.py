r"""Byte ranges of a text file: read alone, in parallel, and recognised by a digest.

A line belongs to the range in which it *begins*. So ranges of any length hold every line exactly
once, and each range can be read by another process. A file of 19 bytes in ranges of 8::

    offset    0  1  2  3  4  5  6  7 | 8  9 10 11 12 13 14 15 | 16 17 18
    byte      a  b  c \n  d  e \n  f   g  h  i  j  k \n  l  m   n  o  p
    range 0   abc         de       fghijk          (read on past the range, to the line's end)
    range 1                                           lmnop
    range 2   nothing: no line begins in it

Everything that reads a large text file line by line stands on this module: MUGE's files, tables,
titles, region files, catalogues, and the conversion of a dataset to its store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular, require_regular

_MAX_LINE = 512 << 20  # bytes; a file without line ends must not fill the memory
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of a file.

    Args:
        raw: Its bytes with the line end, without a byte-order mark.
        begin: Offset of its first byte in the file.
        end: Offset of the next line.
    """

    raw: bytes
    begin: int
    end: int

    @property
    def content(self) -> bytes:
        """The bytes without the line end."""
        return self.raw.rstrip(b"\r\n")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The lines of a file that begin at offsets from ``begin`` up to, but not including, ``end``.

    Args:
        path: The file.
        begin: First byte of the range.
        end: One past the last byte; None: the end of the file.
    """

    path: Path
    begin: int = 0
    end: int | None = None

    def lines(self, *, skip_blank_end: bool = False) -> Iterator[Line]:
        """Read the lines that begin in the range, one at a time.

        Args:
            skip_blank_end: Leave out blank lines after the last line of the *file* that is not
                blank. Blank lines elsewhere are always given.

        Raises:
            InputError: The file cannot be read.
        """
        with open_regular(self.path) as stream:
            if self.begin:
                # One byte back: if the range starts at a line's first byte, this reads only the
                # line end before it; else it skips the rest of the previous range's last line.
                stream.seek(self.begin - 1)
                stream.readline()
            begin = stream.tell()
            while (self.end is None or begin < self.end) and (raw := stream.readline(_MAX_LINE)):
                end = begin + len(raw)  # counting is faster than asking the stream
                if begin == 0:
                    raw = raw.removeprefix(_BOM)
                if skip_blank_end and (not raw or raw.isspace()):
                    if _only_blank(stream):
                        return
                    stream.seek(end)
                yield Line(raw, begin, end)
                begin = end

    def digest(self) -> str:
        """Hash the bytes of the range: 32 hex digits of BLAKE2b."""
        found = hashlib.blake2b(digest_size=16)
        with open(self.path, "rb") as stream:
            stream.seek(self.begin)
            left = (file_stamp(self.path)[0] if self.end is None else self.end) - self.begin
            while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
                found.update(chunk)
                left -= len(chunk)
        return found.hexdigest()


def byte_ranges(path: Path, size: int) -> list[ByteRange]:
    r"""Divide a file into ranges of ``size`` bytes; the last one may be shorter.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile() as file:
    ...     _ = Path(file.name).write_bytes(b"abc\nde\nfghijk\nlmnop")
    ...     for part in byte_ranges(Path(file.name), 8):
    ...         print(part.begin, part.end, [line.content for line in part.lines()])
    0 8 [b'abc', b'de', b'fghijk']
    8 16 [b'lmnop']
    16 19 []

    Raises:
        InputError: The file cannot be read.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from error
    require_regular(path, found)
    total = found.st_size
    return [ByteRange(path, begin, min(begin + size, total)) for begin in range(0, total, size)]


def file_stamp(path: Path) -> list[int]:
    """Size and times (ns) of a file; if they are as before, nobody has written to it."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def line_number(path: Path, offset: int) -> int:
    """Count the lines up to the one that begins at ``offset``; the first is 1."""
    line = 1
    with open(path, "rb") as stream:
        while offset > 0 and (chunk := stream.read(min(offset, 1 << 20))):
            line += chunk.count(b"\n")
            offset -= len(chunk)
    return line


def decode_line(
    raw: bytes, where: str | None = None, encoding: str = "utf-8", hint: str | None = None
) -> str:
    """Decode one line.

    Args:
        raw: Its bytes.
        where: File and line, for the error; None: the caller adds it.
        encoding: A codec that Python knows.
        hint: Advice for the user; None: save the file as UTF-8.

    Raises:
        DataError: The bytes are not text in this encoding.
    """
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            tr("The line is not {encoding} text.", encoding=encoding.upper()),
            where=where,
            found=tr(
                "byte {byte} at position {position}",
                byte=f"{raw[error.start]:02X}",
                position=error.start + 1,
            ),
            hint=hint or tr("Save the file as UTF-8."),
        ) from None


def _only_blank(stream: BinaryIO) -> bool:
    """Read on; True if the rest of the file is white space."""
    while chunk := stream.read(1 << 16):
        if not chunk.isspace():
            return False
    return True
