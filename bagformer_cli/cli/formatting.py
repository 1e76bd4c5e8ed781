"""Format values for the terminal and for JSON: numbers, times, long texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass

from bagformer_cli.messages import tr


def duration(seconds: float) -> str:
    """Format a time.

    >>> duration(0.4), duration(12), duration(185), duration(7800)
    ('0.4 s', '12 s', '3 min 05 s', '2 h 10 min')
    """
    if seconds < 59.5:
        return tr("{n} s", n=f"{seconds:.1f}" if seconds < 9.95 else f"{seconds:.0f}")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return tr("{n} min {s} s", n=minutes, s=f"{rest:02d}")
    return tr("{n} h {m} min", n=minutes // 60, m=f"{minutes % 60:02d}")


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
