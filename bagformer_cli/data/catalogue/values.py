r"""Types of the attributes of a table: a column is a number only if every value is plainly one.

========================================  =====================================================
value                                     read as
========================================  =====================================================
``199``, ``-7``, ``19.90``, ``.5``        a number
``¥1,299``, ``￥１２９９``, ``89.00元``       a number, with a remark; one currency in a column
``true``, ``FALSE``                       a truth value, if the whole column is
``2024/6/1``, ``2024年6月1日``               a date, if the whole column is; see ``dates.py``
``007``, ``3E10``, ``1_000``, ``nan``     text: a code
``1234567890123456789``                   text: a float does not hold all its digits
``1,2``, ``12,34,5``                      text: a list
========================================  =====================================================

One value of another type makes the column text, so that no value is changed or lost. Numbers are
stored as float64, which holds whole numbers up to 2^53 exactly: a column of whole numbers takes
decimals later. Dates are stored as text in one form, so that they are compared as dates. ``int``
columns exist in indexes of earlier versions only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bagformer_cli.config.expected import type_word
from bagformer_cli.data.catalogue.dates import date_of, is_other_order
from bagformer_cli.data.catalogue.products import Value
from bagformer_cli.data.json_values import exact_float
from bagformer_cli.errors import DataError, listed, shell_word, shortened
from bagformer_cli.messages import tr

Type = Literal["bool", "int", "float", "date", "str"]
Found = tuple[Any, str]
"""A value, and where it is."""

NAMED = 3
"""How many values that decided the type of a column are named."""

MAX_WHOLE = 2**53
_PLAIN = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)")
_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_MAX_PRICE = 40  # characters
_MAYBE_PRICE = re.compile(r"[-－¥￥$＄€£0-9０-９]|RMB|CNY|US[$＄]", re.I)
_PREFIX = re.compile(r"(-?)\s*(¥|RMB|CNY|US\$|\$|€|£)\s*(-?)", re.I)
_SUFFIX = re.compile(r"\s*(元|RMB|CNY|USD)$", re.I)
_CURRENCY = {"¥": "CNY", "RMB": "CNY", "元": "CNY", "CNY": "CNY", "US$": "$", "USD": "$"}
_FULL_WIDTH = {0xFF01 + n: 0x21 + n for n in range(94)} | {0xFFE5: "¥", 0x3000: " "}


class Number(NamedTuple):
    """A number in a cell.

    Args:
        value: The number.
        currency: ``CNY``, ``$`` …; empty without one.
        plain: It is written in digits, minus and point only.
    """

    value: float
    currency: str = ""
    plain: bool = True


def number_of(value: Any) -> Number | None:
    """Read a number; None if the value is something else or a float cannot hold it.

    >>> number_of("¥1,299.50"), number_of("3E10")
    (Number(value=1299.5, currency='CNY', plain=False), None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Number(float(value)) if abs(value) <= MAX_WHOLE else None
    if isinstance(value, float):
        return Number(value)
    text = str(value).strip()
    if _PLAIN.fullmatch(text):
        found = _exact(text)
        return None if found is None else Number(found)
    return _price(text)


def is_number(value: Any, currency: str) -> bool:
    """Say whether a value is a number that is comparable with those of its column.

    Args:
        value: The value.
        currency: The currency of the column; empty: none.

    >>> [is_number(one, "CNY") for one in ("99", "￥99", "$99", "面议")]
    [True, True, False, False]
    """
    number = number_of(value)
    return number is not None and (not number.currency or number.currency == currency)


def truth_of(value: Any) -> bool | None:
    """Read a truth value; None if the value is something else."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(str(value).strip().lower())


@dataclass
class SeenValues:
    """Counts of the values of one attribute, from which its type follows.

    Args:
        count: How many values there are.
        numbers: How many of them are numbers.
        truths: How many of them are truth values.
        dates: How many of them are dates.
        currency: The currency of the column.
        no_numbers: The first values that are no numbers, or numbers in another currency.
        no_dates: The first values that are no dates.
        dressed: The first number with a currency or commas.
        rewritten: The first date in another form than it is stored in.
    """

    count: int = 0
    numbers: int = 0
    truths: int = 0
    dates: int = 0
    currency: str = ""
    no_numbers: list[Found] = field(default_factory=list)
    no_dates: list[Found] = field(default_factory=list)
    dressed: Found | None = None
    rewritten: Found | None = None

    def add(self, value: Any, where: str) -> None:
        """Take in one value."""
        self.count += 1
        number = number_of(value)
        if number is not None and not number.plain:
            if number.currency and self.currency and number.currency != self.currency:
                number = None  # 100 yuan and 100 dollars are not the same number
            else:
                self.currency = self.currency or number.currency
                self.dressed = self.dressed or (value, where)
        if number is not None:
            self.numbers += 1
            if self.dates and len(self.no_dates) < NAMED:
                self.no_dates.append((value, where))
            return
        self.truths += truth_of(value) is not None
        if len(self.no_numbers) < NAMED:
            self.no_numbers.append((value, where))
        date = date_of(value)
        if date is not None:
            self.dates += 1
            if self.rewritten is None and date != value:
                self.rewritten = (value, where)
        elif len(self.no_dates) < NAMED:
            self.no_dates.append((value, where))

    @property
    def type(self) -> Type:
        """The type of the column."""
        if self.numbers == self.count:
            return "float"
        if self.dates == self.count:
            return "date"
        return "bool" if self.truths == self.count else "str"


def remark_of(name: str, seen: SeenValues, kind: str) -> str | None:
    """Say how a column was read, if the user may not expect it; None: nothing to say.

    Args:
        name: The column.
        seen: Its values.
        kind: The type that it got.
    """
    if kind == "str":
        return _text_remark(name, seen)
    if kind == "date" and seen.rewritten is not None:
        value, where = seen.rewritten
        return tr(
            "'{name}' is read as dates: {value} ({where}) is {date}.",
            name=name,
            value=shortened(value),
            where=where,
            date=date_of(value),
        )
    if kind in ("int", "float") and seen.dressed is not None:
        value, where = seen.dressed
        number = number_of(value)
        return tr(
            "'{name}' is read as numbers: {value} ({where}) is {number}.",
            name=name,
            value=shortened(value),
            where=where,
            number="" if number is None else shown(number.value),
        )
    return None


def emptied_remark(name: str, seen: SeenValues) -> str | None:
    """Count the values that stay empty in a column of ``--number``; None: all are numbers.

    Args:
        name: The column.
        seen: Its values.
    """
    if seen.numbers == seen.count:
        return None
    return tr(
        "'{name}' is read as numbers; values that are no number stay empty: {n} of {count} "
        "({values}).",
        name=name,
        n=seen.count - seen.numbers,
        count=seen.count,
        values=_named(seen.no_numbers, seen.count - seen.numbers),
    )


def _text_remark(name: str, seen: SeenValues) -> str | None:
    """Say which values make a column text of which at least half are numbers or dates."""
    if 0 < seen.count <= 2 * seen.numbers and seen.numbers < seen.count:
        value, where = seen.no_numbers[0]
        if number_of(value) is not None and seen.dressed is not None:
            return tr(
                "'{name}' is stored as text, not numbers: {value} ({where}) is in another currency "
                "than {other}.",
                name=name,
                value=shortened(value),
                where=where,
                other=shortened(seen.dressed[0]),
            )
        return tr(
            "'{name}' is stored as text, not numbers, because of {n} of {count} values: {values}. "
            "Correct these cells, or pass --number {heading} to leave them empty, if filters shall "
            "compare numbers.",
            name=name,
            heading=shell_word(name),
            n=seen.count - seen.numbers,
            count=seen.count,
            values=_named(seen.no_numbers, seen.count - seen.numbers),
        )
    if 0 < seen.count <= 2 * seen.dates and seen.dates < seen.count:
        return tr(
            "'{name}' is stored as text, not dates, because of {n} of {count} values: {values}. "
            "Correct or empty these cells if filters shall compare dates.",
            name=name,
            n=seen.count - seen.dates,
            count=seen.count,
            values=_named(seen.no_dates, seen.count - seen.dates),
        )
    if seen.no_dates and all(is_other_order(value) for value, _ in seen.no_dates):
        value, where = seen.no_dates[0]
        return tr(
            "'{name}' is stored as text, not dates: in {value} ({where}) nothing says which number "
            "is the month. Write dates as 2024-06-01.",
            name=name,
            value=shortened(value),
            where=where,
        )
    return None


def _named(values: list[Found], count: int) -> str:
    """List the first values and their places; ``count``: how many there are in all."""
    named = listed(
        [
            tr("{message} ({details})", message=shortened(value), details=where)
            for value, where in values
        ]
    )
    return named if len(values) == count else f"{named} …"


def converted(value: Any, kind: str, name: str, where: str) -> Value:
    """Convert a value to the type of its column.

    Raises:
        DataError: It does not fit; the index has another type than this table.
    """
    found: Value | None
    if kind == "str":
        return value if isinstance(value, str) else shown(value)
    if kind == "bool":
        found = truth_of(value)
    elif kind == "date":
        found = date_of(value)
    elif kind == "int":
        found = _whole(value)
    else:
        number = number_of(value)
        found = None if number is None else number.value
    if found is None:
        raise DataError(
            tr("The index stores the attribute '{name}' with another type.", name=name),
            where=where,
            found=shortened(value),
            expected=type_word(kind),
            hint=tr("Pass --number {name} to leave such cells empty.", name=shell_word(name))
            if kind in {"int", "float"}
            else None,
        )
    return found


def shown(value: Any) -> str:
    """Write a JSON value as text: ``1299`` for 1299.0, ``true`` for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_WHOLE:
        return str(int(value))
    return str(value)


def whole_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn floats that are whole numbers into integers, for people and for JSON."""
    return {
        name: int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_WHOLE
        else value
        for name, value in values.items()
    }


def _price(text: str) -> Number | None:
    """Read a number with a currency, thousands commas or full-width digits."""
    if len(text) > _MAX_PRICE or not _MAYBE_PRICE.match(text):
        return None
    text = text.translate(_FULL_WIDTH).strip()
    currency, sign = "", ""
    if found := _PREFIX.match(text):
        sign, currency = found[1] or found[3], found[2].upper()
        text = text[found.end() :]
    if found := _SUFFIX.search(text):
        second = found[1].upper()
        if currency and _CURRENCY.get(currency, currency) != _CURRENCY.get(second, second):
            return None
        currency, text = currency or second, text[: found.start()]
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if not _PLAIN.fullmatch(text) or (sign and text.startswith("-")):
        return None
    value = _exact(sign + text)
    return None if value is None else Number(value, _CURRENCY.get(currency, currency), plain=False)


def _whole(value: Any) -> int | None:
    """Read a whole number of 64 bits."""
    number = number_of(value)
    if number is not None:
        return int(number.value) if number.value.is_integer() else None
    text = str(value).strip()
    if isinstance(value, bool) or len(text) > 20 or not _PLAIN.fullmatch(text) or "." in text:
        return None
    return int(text) if -(2**63) <= int(text) < 2**63 else None


def _exact(text: str) -> float | None:
    value = exact_float(text)
    return value if value is None or abs(value) <= MAX_WHOLE or "." in text else None
