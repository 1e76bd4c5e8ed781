"""How values and texts are written in a terminal: widths of Chinese, lines, numbers, times."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator

from bagformer_cli.messages import tr

_NEVER_FIRST = set("，。、；：？！）》”’％…])")
_NEVER_LAST = set("（《“‘")
_OPENING = _NEVER_LAST | set("[(")


def cells(text: str) -> int:
    """How many terminal columns ``text`` takes; a Chinese character takes two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrap(text: str, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` columns, between words or Chinese characters.

    A line never starts with closing punctuation nor ends with an opening bracket; a word longer
    than a line is left whole.
    """
    lines: list[str] = []
    line = ""
    for piece in _pieces(" ".join(text.split())):
        fits = cells(line) + cells(piece) <= width or piece in _NEVER_FIRST
        if line and not fits:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> Iterator[str]:
    """What a line may be broken between: words, the spaces between them, wide characters."""
    word = ""
    for character in text:
        alone = character == " " or character in _NEVER_LAST or cells(character) == 2
        if alone and word and word[-1] not in _OPENING:
            yield word
            word = ""
        word += character
        if alone and character not in _NEVER_LAST:
            yield word
            word = ""
    if word:
        yield word


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def in_words(value: object) -> str:
    """A value as a table shows it: None is a dash, floats have two decimals."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        small = value != 0 and abs(value) < 0.01
        return f"{value:.3g}" if small or not math.isfinite(value) else f"{value:,.2f}"
    return str(value)


def shorten(text: str, limit: int = 600) -> str:
    """Cut a long value: an error block stays one screen, a table a table."""
    text = text.replace("\n", "\n    ")
    return text if len(text) <= limit else f"{text[:limit]}…"
