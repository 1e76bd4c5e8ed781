"""Dates in tables: year, month and day in this order, written so that their order is that of text.

=============================================  =======================
value                                          read as
=============================================  =======================
``2024-6-1``, ``2024/06/01``, ``2024.6.1``     ``2024-06-01``
``2024年6月1日``, ``2024年06月01号``              ``2024-06-01``
``2024/6/1 8:30``, ``2024-06-01T08:30:00``     ``2024-06-01 08:30:00``
``2024-06-01 00:00:00``                        ``2024-06-01``
``6/1/2024``, ``1.6.24``                       text: nothing says which is the month
``2024-06``, ``2024-06-01T08:30:00Z``          text
=============================================  =======================

A date without a time is its midnight, so equal times have equal texts.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Any

_DATE = re.compile(
    r"([0-9]{4})(?:([-/.])([0-9]{1,2})\2([0-9]{1,2})|年([0-9]{1,2})月([0-9]{1,2})[日号])"
    r"(?:(?:T|\s+|(?<=[日号]))([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?"
)
_OTHER_ORDER = re.compile(r"[0-9]{1,2}([-/.])[0-9]{1,2}\1(?:[0-9]{4}|[0-9]{2})")
_YEARS = range(1900, 2200)  # 1000-2-3 is rather a code
_LONGEST = 40  # characters


def date_of(value: Any) -> str | None:
    """Read a date or a date with a time; None if the value is something else.

    >>> date_of("2024/6/1"), date_of("2024年6月1日 8:30"), date_of("2024-02-30")
    ('2024-06-01', '2024-06-01 08:30:00', None)
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    text = value.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found = _DATE.fullmatch(text)
    if found is None or int(found[1]) not in _YEARS:
        return None
    month, day = int(found[3] or found[5]), int(found[4] or found[6])
    hour, minute, second = (int(found[at] or 0) for at in (7, 8, 9))
    fraction = int((found[10] or "").ljust(6, "0"))
    try:
        time = datetime(int(found[1]), month, day, hour, minute, second, fraction)
    except ValueError:  # the 30th of February, 25 o'clock
        return None
    if (hour, minute, second, fraction) == (0, 0, 0, 0):
        return time.date().isoformat()
    return time.isoformat(" ").rstrip("0").rstrip(".") if fraction else time.isoformat(" ")


def is_other_order(value: Any) -> bool:
    """Say whether a value may be a date with the year at its end, as ``6/1/2024``."""
    return isinstance(value, str) and _OTHER_ORDER.fullmatch(value.strip()) is not None
