"""Errors of filters: what is wrong with a ``--where``, and what to type instead."""

from __future__ import annotations

import re

from bagformer_cli.config.expected import type_word
from bagformer_cli.data.catalogue.dates import date_of
from bagformer_cli.data.catalogue.values import number_of, shown
from bagformer_cli.data.columns import columns_of
from bagformer_cli.errors import InputError, listed, nearest, shell_word, with_place
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

_EXAMPLES = {
    "float": "{name} < 200", "str": "{name} = '…'", "date": "{name} >= '2024-06-15'",
    "bool": "{name}",
}  # fmt: skip
MAX_SHOWN = 120  # characters of a filter in an error
_QUOTED = re.compile("'[^']*'|`[^`]*`|\"[^\"]*\"")
_VALUE = re.compile(
    r"(?:[<>=]|\bBETWEEN\b|\bAND\b|\bIN\s*\()\s*"
    r"([^\s<>=()]+(?:[ T]+[0-9]{1,2}:[0-9:.]+)?)",
    re.I,
)
_WIDE_MARKS = re.compile("[‘’“”＂＇＜＞＝，（）≤≥≠]")  # as a Chinese keyboard types them


def example_of(layout: Layout) -> str:
    """Return an example of a filter with attributes of this index.

    >>> example_of(Layout("model", 8, attributes={"颜色": "str", "价格": "float"}))
    "价格 < 200 AND 颜色 = '…'"
    """
    first: dict[str, str] = {}
    for name, kind in layout.attributes.items():
        written = name if name.isidentifier() else f"`{name}`"
        kind = "float" if kind == "int" else kind
        first.setdefault(kind, _EXAMPLES[kind].format(name=written))
    parts = [first[kind] for kind in _EXAMPLES if kind in first]
    return " AND ".join(parts[:2]) or "title LIKE '%连衣裙%'"


def unquoted_value(where: str) -> str | None:
    """Return the hint for a date without quotes or an amount with a currency; None: neither.

    >>> unquoted_value("price > 5 AND day > 2024/6/1"), unquoted_value("price < ￥200")
    ("Dates go in single quotes: '2024/6/1'", 'Write the number alone: 200')
    """
    for found in _VALUE.finditer(_QUOTED.sub(" ", where)):
        value = found[1].rstrip(",;")
        if date_of(value) is not None:
            return tr("Dates go in single quotes: '{text}'", text=value)
        number = number_of(value)
        if number is not None and not number.plain:
            return _number_alone(number.value)
    return None


def not_an_expression(where: str, found: str | None, layout: Layout) -> InputError:
    """Return the error for a filter that cannot be parsed; ``found``: where parsing stopped."""
    plain = re.sub("'[^']*'", "", where)  # a text may well contain such marks
    return InputError(
        tr("The filter is not an expression."),
        where=short(where),
        found=found,
        expected=example_of(layout),
        hint=unquoted_value(where) or (_ascii_marks() if _WIDE_MARKS.search(plain) else None),
    )


def unknown_attribute(
    name: str, layout: Layout, where: str, *, is_value: bool = False
) -> InputError:
    """Return the error for an attribute that no product has, with the nearest existing name.

    Args:
        name: The name.
        layout: The layout of the index.
        where: The filter, shortened.
        is_value: It stands where values stand: it may be a text without quotes.
    """
    names = ["id", "title", *layout.attributes]
    roles = columns_of([name])  # the index calls the column 商品名称 `title`
    near = next((role for role in ("id", "title") if role in roles), None) or nearest(name, names)
    if near is not None:
        hint = tr("Did you mean {name}?", name=near if near.isidentifier() else f"`{near}`")
    elif _WIDE_MARKS.search(name):
        hint = _ascii_marks()
    elif is_value and (amount := unquoted_value(where)):
        hint = amount
    elif is_value:
        hint = tr("Text goes in single quotes: '{text}'", text=name)
    else:
        hint = tr("`xmr index info` lists the attributes of an index.")
    return InputError(
        tr("The index has no attribute '{name}'.", name=name),
        where=where,
        expected=listed(names),
        hint=hint,
    )


def misfit(name: str, kind: str, found: str, where: str) -> InputError:
    """Return the error for a value that is not of its attribute's type.

    Args:
        name: The attribute.
        kind: Its type, one of ``bool``, ``float``, ``int``, ``date``, ``str``.
        found: The value, as it was written.
        where: The filter, shortened.
    """
    amount = number_of(found.strip("'")) if kind in {"float", "int"} else None
    if hint := unquoted_value(where):
        pass
    elif amount is not None and found.startswith("'"):
        hint = _number_alone(amount.value)
    elif kind == "str" and name not in {"id", "title"}:
        hint = _not_numbers(name)
    elif kind == "date":
        hint = tr("Dates go in single quotes: {name} >= '2024-06-15'", name=name)
    else:
        hint = tr("Text goes in single quotes, numbers and TRUE or FALSE without quotes.")
    return InputError(
        tr("The filter does not fit the types of its attributes."),
        where=where,
        found=with_place(found, name),
        expected=with_place(type_word(kind), name),
        hint=hint,
    )


def letters(name: str, found: str, where: str) -> InputError:
    """Return the error for ``price < '100'`` where prices are text: '1000' would be less.

    Args:
        name: The attribute.
        found: The value, as it was written.
        where: The filter, shortened.
    """
    return InputError(
        tr("'{name}' is text: a comparison by letters would put '1000' before '99'.", name=name),
        where=where,
        found=found,
        hint=_not_numbers(name),
    )


def unsupported(found: str, expected: str, where: str, layout: Layout) -> InputError:
    """Return the error for a filter that does more than compare attributes with values.

    Args:
        found: The part that is not supported.
        expected: The operators that are.
        where: The filter, shortened.
        layout: The layout of the index.
    """
    return InputError(
        tr("A filter compares attributes with values and cannot do this."),
        where=where,
        found=short(found),
        expected=expected,
        hint=unquoted_value(where) or tr("For example: {example}", example=example_of(layout)),
    )


def _number_alone(number: float) -> str:
    return tr("Write the number alone: {number}", number=shown(number))


def _not_numbers(name: str) -> str:
    return tr(
        "Not all its values were numbers when the index was built, so it is compared as "
        "text, in single quotes. To compare numbers, correct the table or leave such cells "
        "empty (--number {name}), and build the index again.",
        name=shell_word(name),
    )


def short(text: str) -> str:
    """Shorten a filter for an error; bytes that are not UTF-8 become question marks."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _ascii_marks() -> str:
    return tr("Type signs, quotes, commas and brackets as on an English keyboard: < = ' , ( )")
