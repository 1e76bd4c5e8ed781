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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular, require_regular

MAX_LINE = 128 << 20
"""Bytes of the longest line that is read. A longer line keeps only its first bytes, so that a file
without line ends does not fill the memory."""
_KEPT = 1 << 10  # bytes of a line that is too long
_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line of a file.

    Args:
        raw: Its bytes with the line end, without a byte-order mark; only the first bytes of a line
            that is too long.
        begin: Offset of its first byte in the file.
        end: Offset of the next line.
    """

    raw: bytes
    begin: int
    end: int

    @property
    def content(self) -> bytes:
        """The bytes without the line end.

        Raises:
            DataError: The line is longer than :data:`MAX_LINE`. The caller adds file and line.
        """
        self.require_whole()
        return self.raw.rstrip(b"\r\n")

    @property
    def blank(self) -> bool:
        """True if the line holds white space only."""
        return not self.raw or self.raw.isspace()

    def require_whole(self) -> None:
        """Check that ``raw`` is the whole line.

        Raises:
            DataError: The line is longer than :data:`MAX_LINE`.
        """
        size = self.end - self.begin
        if size > MAX_LINE:
            raise DataError(
                tr("The line is too long."),
                found=tr("{n} MB", n=size >> 20),
                expected=tr("at most {n} MB", n=MAX_LINE >> 20),
                hint=tr("The file may have no line ends."),
            )


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The lines of a file that begin at offsets from ``begin`` up to, but not including, ``end``.

    Args:
        path: The file.
        begin: First byte of the range.
        end: One past the last byte; None: the end of the file.
        newline: The bytes that end a line. Files in UTF-16 or UTF-32 have 2 or 4 of them.
    """

    path: Path
    begin: int = 0
    end: int | None = None
    newline: bytes = b"\n"

    def lines(self, *, skip_blank_end: bool = False) -> Iterator[Line]:
        """Read the lines that begin in the range, one at a time.

        Args:
            skip_blank_end: Leave out blank lines after the last line of the *file* that is not
                blank. Blank lines elsewhere are always given.

        Raises:
            InputError: The file cannot be read.
        """
        with open_regular(self.path) as stream:
            begin = self._seek(stream)
            if self.end is not None and begin >= self.end:
                return  # before a line is read that may fill many ranges
            read = _lf_lines if self.newline == b"\n" else partial(_other_lines, self.newline)
            content_end = None
            for raw, size in read(stream):
                if begin == 0:
                    raw = raw.removeprefix(_BOM)
                line = Line(raw, begin, begin + size)
                if skip_blank_end and line.blank:
                    content_end = _content_end(self.path) if content_end is None else content_end
                    if line.end >= content_end:
                        return
                yield line
                begin += size  # counting is faster than asking the stream
                if self.end is not None and begin >= self.end:
                    return

    def _seek(self, stream: BinaryIO) -> int:
        """Go to the first line that begins in the range; return its offset.

        The search starts one line end back: if the range starts at a line's first byte, it finds
        only the end of the line before; else the rest of the previous range's last line.
        """
        if not self.begin:
            return 0
        position = self.begin - len(self.newline)
        stream.seek(position)
        if self.newline == b"\n":
            # Reading stops at the end of the range: a line that fills many ranges is read once.
            while raw := stream.readline(_CHUNK):
                position += len(raw)
                if raw.endswith(b"\n") or (self.end is not None and position >= self.end):
                    break
            return position
        for _, size in _other_lines(self.newline, stream):
            position += size
            break
        stream.seek(position)
        return position

    def digest(self) -> str:
        """Hash the bytes of the range: 32 hex digits of BLAKE2b."""
        found = hashlib.blake2b(digest_size=16)
        for chunk in self._chunks():
            found.update(chunk)
        return found.hexdigest()

    def _chunks(self) -> Iterator[bytes]:
        with open(self.path, "rb") as stream:
            stream.seek(self.begin)
            left = (file_stamp(self.path)[0] if self.end is None else self.end) - self.begin
            while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
                yield chunk
                left -= len(chunk)


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


def digests_and_numbers(ranges: Iterable[ByteRange]) -> Iterator[tuple[str, int]]:
    r"""Hash all ranges of a file, and number the first line that begins in each, from 1.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile() as file:
    ...     _ = Path(file.name).write_bytes(b"abc\nde\nfghijk\nlmnop")
    ...     [number for _, number in digests_and_numbers(byte_ranges(Path(file.name), 8))]
    [1, 4, 5]
    """
    ends, last = 0, b""  # line ends before the range, and the byte before it
    for part in ranges:
        # The first line that begins in the range follows the first line end from that byte on.
        number = ends + 2 - (last == b"\n") if part.begin else 1
        found = hashlib.blake2b(digest_size=16)
        for chunk in part._chunks():
            found.update(chunk)
            ends += chunk.count(b"\n")
            last = chunk[-1:]
        yield found.hexdigest(), number


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


def _lf_lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the lines that end with a line feed, and their sizes in bytes."""
    while raw := stream.readline(MAX_LINE + 1):
        size = len(raw)
        if size > MAX_LINE:
            kept = raw[:_KEPT]
            while not raw.endswith(b"\n") and (raw := stream.readline(_CHUNK)):
                size += len(raw)
            raw = kept
        yield raw, size


def _other_lines(newline: bytes, stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the lines that end with ``newline``, and their sizes in bytes.

    In UTF-16 the bytes of a line end also occur across two characters. Only those that begin at a
    multiple of its width count::

        U+4E0A U+000A     0A 4E 0A 00        newline 0A 00, found at 2
        U+0A4E U+4E00     4E 0A 00 4E        0A 00 at 1 is no line end
    """
    width = len(newline)
    held, position, searched = b"", 0, 0  # bytes read; where the line begins; no end before here
    kept, dropped = b"", 0  # the first bytes of a line that is too long; how many were dropped
    while True:
        at = held.find(newline, searched)
        while at >= 0 and at % width:
            at = held.find(newline, at + 1)
        if at >= 0:
            end = at + width
            yield kept or held[position:end], dropped + end - position
            position = searched = end
            kept, dropped = b"", 0
            continue
        held, position = held[position:], 0
        searched = len(held) - len(held) % width
        if dropped + len(held) > MAX_LINE:
            kept = kept or held[:_KEPT]
            dropped += searched
            held, searched = held[searched:], 0
        chunk = stream.read(max(_CHUNK, len(held)))  # doubling: a long line is copied few times
        if not chunk:
            break
        held += chunk
    if held or dropped:
        yield kept or held, dropped + len(held)


def _content_end(path: Path) -> int:
    """Return the offset after the last byte of a file that is not white space."""
    return _last_content(path, *file_stamp(path))


@lru_cache(maxsize=4)  # every byte range of a file that ends in many blank lines asks for it
def _last_content(path: Path, size: int, *stamp: int) -> int:
    with open(path, "rb") as stream:
        end = size
        while end > 0:
            begin = max(0, end - _CHUNK)
            stream.seek(begin)
            content = stream.read(end - begin).rstrip()
            if content:
                return begin + len(content)
            end = begin
    return 0
