"""Format values for the terminal and for JSON: numbers, times, line breaks, widths of Chinese."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass

from bagformer_cli.messages import tr

_NEVER_FIRST = set("，。、；：？！）》”’％…])")
_NEVER_LAST = set("（《“‘")
_OPENING = _NEVER_LAST | set("[(")


def display_width(text: str) -> int:
    """Count the terminal columns of a text; a Chinese character takes two.

    >>> display_width("红色 dress")
    10
    """
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` columns.

    Lines break between words and between Chinese characters. A line neither starts with closing
    punctuation nor ends with an opening bracket. A word longer than a line stays whole.

    >>> wrap("xmr 支持中文（和英文）。", 14)
    ['xmr 支持中文', '（和英文）。']
    """
    lines: list[str] = []
    line = ""
    for unit in _units(" ".join(text.split())):
        fits = display_width(line) + display_width(unit) <= width or unit in _NEVER_FIRST
        if line and not fits:
            lines.append(line.rstrip())
            line = ""
        line += unit if line else unit.lstrip()
    return [*lines, line.rstrip()] if line.strip() else lines


def _units(text: str) -> Iterator[str]:
    """Split a text where a line may break: into words, single spaces and wide characters."""
    word = ""
    for character in text:
        alone = character == " " or character in _NEVER_LAST or display_width(character) == 2
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
    """Format a time.

    >>> duration(0.4), duration(12), duration(185), duration(7800)
    ('0.4 s', '12 s', '3 min 05 s', '2 h 10 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_value(value: object) -> str:
    """Format a table cell: None is a dash, integers have separators, floats two decimals."""
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


def truncate(text: str, limit: int = 600) -> str:
    """Cut a text after ``limit`` characters and indent its further lines."""
    text = text.replace("\n", "\n    ")
    return text if len(text) <= limit else f"{text[:limit]}…"


def to_json_value(data: object) -> object:
    """Convert a result to types that :mod:`json` writes.

    Dataclasses become objects; arrays, tensors and sets become lists; NaN and infinities become
    None; everything else, paths for example, becomes its text.
    """
    if data is None or isinstance(data, (str, bool, int)):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): to_json_value(value) for key, value in data.items()}
    if is_dataclass(data) and not isinstance(data, type):
        return to_json_value(asdict(data))
    if hasattr(data, "tolist"):  # NumPy arrays and scalars, torch tensors
        return to_json_value(data.tolist())
    if isinstance(data, Iterable):
        return [to_json_value(value) for value in data]
    return str(data)
