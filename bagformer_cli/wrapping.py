"""Break text into lines by display width: for a terminal, and for comments in YAML files.

A Chinese character takes two columns. Lines break between words and between Chinese characters,
never inside a word, and punctuation stays with the character it belongs to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_OPENING = "（《“‘「『【〈［｛([{<"
_CLOSING = "，。、；：？！）》”’％…」』】〉］｝—～·,.;:?!)]}>%"


def display_width(text: str) -> int:
    """Count the terminal columns of a text; a Chinese character takes two.

    >>> display_width("红色 dress")
    10
    """
    return len(text) if text.isascii() else sum(map(_character_width, text))


@lru_cache(maxsize=4096)
def _character_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, width: int, *, cut: bool = False) -> list[str]:
    """Break a text into lines of at most ``width`` columns.

    A line neither starts with closing punctuation nor ends with an opening bracket.

    Args:
        text: The text. Runs of spaces, tabs and line feeds count as one space; a no-break space
            stays.
        width: Columns of a line.
        cut: Cut a word that is longer than a line, for example a path in a table. False: it stays
            whole, on a line that is too long.

    >>> wrap("xmr 支持中文（和英文）。", 14)
    ['xmr 支持中文', '（和英文）。']
    """
    lines: list[str] = []
    line, used = "", 0
    for unit in units(" ".join(filter(None, re.split("[ \n\t]", text)))):
        size = display_width(unit)
        if used + size > width and unit != " ":
            if line.strip():
                lines.append(line.rstrip())
            line, used = "", 0
            while cut and size > width:
                head = _cut(unit, width)
                lines.append(head)
                unit = unit[len(head) :]
                size = display_width(unit)
        if unit != " " or line:
            line, used = line + unit, used + size
    return [*lines, line.rstrip()] if line.strip() else lines


def units(text: str) -> Iterator[str]:
    """Split a text where a line may break: spaces, words, and single wide characters.

    Opening brackets go with what follows, closing punctuation with what precedes it.
    """
    unit = ""
    for character in text:
        if character == " ":
            if unit:
                yield unit
            yield " "
            unit = ""
            continue
        if unit and _may_break(unit[-1], character):
            yield unit
            unit = ""
        unit += character
    if unit:
        yield unit


def _may_break(left: str, right: str) -> bool:
    """Tell whether a line may end between two neighbours that no space separates."""
    if left in _OPENING or right in _CLOSING or _character_width(right) == 0:
        return False
    return _character_width(left) == 2 or _character_width(right) == 2


def fitting(text: str, width: int) -> str:
    """Return the longest beginning of a text, of at least one character, within ``width``.

    >>> fitting("红色裙", 5)
    '红色'
    """
    used = 0
    for at, character in enumerate(text):
        used += _character_width(character)
        if used > width and at:
            return text[:at]
    return text


def _cut(word: str, width: int) -> str:
    """Return the beginning of a long word: a path or an address ends after one of its parts."""
    head = fitting(word, width)
    part = max(head.rfind(sign) for sign in "/\\_-=&?,;")
    return head[: part + 1] if part >= len(head) // 2 else head
