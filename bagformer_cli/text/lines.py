"""Read small text files (dictionaries, marked titles) as a whole, with the line of every problem.

Files of titles, which may be large, are read through :mod:`bagformer_cli.data.byte_ranges`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.errors import DataError
from bagformer_cli.file_kinds import require_text_file
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

MOST_BYTES = 256 << 20
"""Bytes of a file at most: it is read as a whole."""

BYTE_ORDER_MARK = "\ufeff"
BYTE_ORDER_MARK_HEX = "EF BB BF"

FEW = 0.1
"""Share of the lines with other than ASCII characters up to which lines that are not UTF-8 are
taken for broken. With more, the file is rather in another encoding, in which some lines happen to
be UTF-8."""

_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # begins with the mark of UTF-16
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""The marks with which files of other encodings than UTF-8 begin."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a file.

    Args:
        line: Line number, counted from 1.
        message: The problem, in the user's words.
        found: The text or bytes at that place.
        whole_file: It concerns the encoding of the file and not this line.
        harmless: Nothing is lost: the line is read, or there is nothing on it that could be lost.
    """

    line: int
    message: str
    found: str
    whole_file: bool = False
    harmless: bool = False

    @property
    def fatal(self) -> bool:
        """True if nothing of the file can be read."""
        return self.whole_file and not self.harmless


def read_lines(path: str | Path) -> tuple[list[str], list[Problem]]:
    """Return the lines of a text file, and the problems of its encoding.

    A file in another encoding than UTF-8 is read with the encoding that it seems to have (UTF-16,
    UTF-32 or GB18030), which is a harmless problem. If only a few lines are not UTF-8, these are
    empty. Lines end as on Linux, Windows or old Macs.

    Raises:
        InputError: The file cannot be read.
    """
    require_text_file(path, tr("lines of text"))
    raw = read_regular(path, MOST_BYTES)
    text, problems = _decode(raw)
    if text.startswith(BYTE_ORDER_MARK):
        text = text[1:]
        if not problems:  # in UTF-16 the mark is usual
            message = tr("The file begins with a byte-order mark.")
            problems.append(
                Problem(1, message, BYTE_ORDER_MARK_HEX, whole_file=True, harmless=True)
            )
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    return lines, problems


def _decode(raw: bytes) -> tuple[str, list[Problem]]:
    """Decode a file and describe what was unusual about its encoding."""
    encoding, start = _by_mark(raw), 0
    if encoding is None:
        try:
            return raw.decode("utf-8"), []
        except UnicodeDecodeError as error:
            start = error.start
        lines = raw.split(b"\n")
        broken = [n for n, line in enumerate(lines, 1) if not _can_be(line, "utf-8")]
        few = len(broken) <= FEW * sum(not line.isascii() for line in lines)
        if few or (len(broken) < len(lines) - 1 and not _can_be(raw, "gb18030")):
            message = tr("The line is not UTF-8 text.")
            problems = [Problem(n, message, _hex(lines[n - 1])) for n in broken]
            for n in broken:
                lines[n - 1] = b""
            return b"\n".join(lines).decode("utf-8"), problems
        encoding = "gb18030"
    line, found = raw.count(b"\n", 0, start) + 1, _hex(raw[start:])
    if not _can_be(raw, encoding):
        message = tr("The file is not UTF-8, nor in another encoding that is known.")
        return "", [Problem(line, message, found, whole_file=True)]
    message = tr("The file is not UTF-8 (it reads as {name}).", name=encoding)
    problem = Problem(line, message, found, whole_file=True, harmless=True)
    return raw.decode(encoding), [problem]


def _by_mark(raw: bytes) -> str | None:
    """Name the encoding by the mark at the beginning, or by the zeros of UTF-16 without a mark."""
    for encoding, marks in _MARKS.items():
        if raw.startswith(marks):
            return encoding
    head = raw[:4096]
    if b"\0" not in head:
        return None
    return "utf-16-le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16-be"


def _can_be(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _hex(raw: bytes) -> str:
    return raw[:8].hex(" ").upper()


def raise_first(
    path: str | Path, problems: Sequence[Problem], expected: str, hint: str | None = None
) -> None:
    """Raise a :class:`DataError` for the first of ``problems``, saying how many follow.

    Harmless problems are left out.
    """
    problems = [problem for problem in problems if not problem.harmless]
    if not problems:
        return
    first, more = problems[0], len(problems) - 1
    message = first.message
    if more:
        follow = tr("({count} more problems follow.)", count=f"{more:,}")
        message = tr("{sentence} {hint}", sentence=message, hint=follow)
    raise DataError(
        message, where=f"{path}:{first.line}", found=first.found, expected=expected, hint=hint
    )
