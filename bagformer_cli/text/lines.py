"""Read small text files (dictionaries, marked titles) as a whole, with the line of every problem.

Files of titles, which may be large, are read through :mod:`bagformer_cli.data.byte_ranges`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.messages import tr


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a file.

    Args:
        line: Line number, counted from 1.
        message: The problem, in the user's words.
        found: The text or bytes at that place.
        whole_file: The encoding of the file is wrong and not this line.
    """

    line: int
    message: str
    found: str
    whole_file: bool = False


def read_lines(path: str | Path) -> tuple[list[str], list[Problem]]:
    """Return the lines of a text file, and the problems of its encoding.

    A file that is not UTF-8 is decoded with the encoding that it seems to have, for a repair.

    Raises:
        InputError: The file cannot be read.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    problems: list[Problem] = []
    if raw.startswith(b"\xef\xbb\xbf"):
        message = tr("The file begins with a byte-order mark.")
        problems.append(Problem(1, message, "EF BB BF", whole_file=True))
        raw = raw[3:]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        broken = raw[error.start : error.start + 8].hex(" ").upper()
        encoding, text = _other_encoding(raw)
        message = tr("The file is not UTF-8 (it reads as {name}).", name=encoding)
        problems.append(Problem(line, message, broken, whole_file=True))
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    return lines, problems


def _other_encoding(raw: bytes) -> tuple[str, str]:
    for encoding in ("utf-16", "gb18030"):
        if encoding == "utf-16" and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            continue
        try:
            return encoding, raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return tr("nothing known"), raw.decode("utf-8", "replace")


def raise_first(
    path: str | Path, problems: Sequence[Problem], expected: str, hint: str | None = None
) -> None:
    """Raise a :class:`DataError` for the first of ``problems``, saying how many follow."""
    if not problems:
        return
    first, more = problems[0], len(problems) - 1
    message = first.message
    if more:
        message += " " + tr("({count} more problems follow.)", count=more)
    raise DataError(
        message, where=f"{path}:{first.line}", found=first.found, expected=expected, hint=hint
    )
