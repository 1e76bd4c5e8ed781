"""Parse one line of a JSONL table without losing or inventing anything.

Python's parser lets the last of two equal fields win, reads ``1e999`` as infinity, rounds decimals
that a float cannot hold, and accepts half a surrogate pair. Here the first and the last are errors,
numbers that would change stay as they are written, and ``NaN``, which programs write for a missing
number, is ``null``.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from bagformer_cli.errors import DataError, shortened
from bagformer_cli.messages import tr

_NOT_ZERO = re.compile(r"[-0.]*[1-9]")
_INFINITE = (math.inf, -math.inf)
_SURE_DIGITS = 15  # decimal digits that a float always holds


class JsonText(str):
    """A list or an object inside a record, as JSON text."""

    __slots__ = ()


def json_object(text: str) -> dict[str, Any]:
    """Parse a line to its fields; lists and objects inside become JSON text.

    >>> json_object('{"id": 7, "price": 1.50, "tags": ["红"], "code": 1e999}')
    {'id': 7, 'price': 1.5, 'tags': '["红"]', 'code': '1e999'}

    Raises:
        DataError: It is not a JSON object, a field occurs twice, or a text cannot be stored. The
            caller adds file and line.
    """
    try:
        text = text.strip(" \t\r\n")  # the blanks of JSON
        values, end = _DECODER.raw_decode(text)
        if end != len(text):
            values = None
        elif isinstance(values, dict) and ("[" in text or text.count("{") > 1):
            values = {name: _flat(value) for name, value in values.items()}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError(
            tr("The line is not a JSON object."),
            found=shortened(text),
            expected='{"image": "a.jpg", "title": "…"}',
        )
    if "\\u" in text or "\0" in text:  # only an escape can make a NUL or half a surrogate pair
        for name, value in values.items():
            _require_text(name, name)
            if isinstance(value, str):
                _require_text(name, value)
    return values


def exact_float(text: str) -> float | None:
    """Read a decimal number; None if a float cannot hold all its digits.

    >>> exact_float("19.90"), exact_float("1e400"), exact_float("0.1234567890123456789")
    (19.9, None, None)
    """
    value = float(text)
    if not math.isfinite(value) or (value == 0 and _NOT_ZERO.match(text)):
        return None
    if len(text) > _SURE_DIGITS and Decimal(repr(value)) != Decimal(text):
        return None
    return value


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(tr("A field occurs twice."), found=shortened(twice))
    return fields


def _number(text: str) -> float | str:
    if len(text) <= _SURE_DIGITS:  # most numbers, without another call
        found = float(text)
        if found and found not in _INFINITE:
            return found
    value = exact_float(text)
    return text if value is None else value


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


_DECODER = json.JSONDecoder(
    object_pairs_hook=_fields, parse_float=_number, parse_constant=_constant
)


def _flat(value: Any) -> Any:
    nested = isinstance(value, (list, dict))
    return JsonText(json.dumps(value, ensure_ascii=False)) if nested else value


def _require_text(name: str, text: str) -> None:
    try:
        text.encode()
        if "\0" not in text:
            return
    except UnicodeEncodeError:
        pass
    raise DataError(
        tr("A text contains a NUL character or half of a surrogate pair."),
        found=ascii(name) if name == text else f"{name!a}: {shortened(ascii(text))}",
    )
