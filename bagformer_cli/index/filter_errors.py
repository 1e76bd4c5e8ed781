"""Errors of filters: what is wrong with a ``--where``, and what to type instead."""

from __future__ import annotations

import re

from bagformer_cli.config.expected import type_word
from bagformer_cli.data.columns import columns_of
from bagformer_cli.errors import InputError, listed, nearest, with_place
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

EXAMPLE = "price < 200 AND category = '连衣裙'"
MAX_SHOWN = 120  # characters of a filter in an error
_WIDE_MARKS = re.compile("[‘’“”＂＇＜＞＝，（）≤≥≠]")  # as a Chinese keyboard types them


def not_an_expression(where: str, found: str | None) -> InputError:
    """Return the error for a filter that cannot be parsed; ``found``: where parsing stopped."""
    plain = re.sub("'[^']*'", "", where)  # a text may well contain such marks
    return InputError(
        tr("The filter is not an expression."),
        where=short(where),
        found=found,
        expected=EXAMPLE,
        hint=_ascii_marks() if _WIDE_MARKS.search(plain) else None,
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
    if kind == "str" and name not in {"id", "title"}:
        hint = _not_numbers()
    elif kind == "date":
        hint = tr("Dates go in single quotes: {name} >= '2024-06-15'", name=name)
    else:
        hint = tr("Text goes in single quotes, numbers and TRUE or FALSE without quotes.")
    return InputError(
        tr("The filter does not fit the types of its attributes."),
        where=where,
        found=f"{name}: {found}",
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
        hint=_not_numbers(),
    )


def _not_numbers() -> str:
    return tr(
        "Not all its values were numbers when the index was built, so it is compared as "
        "text, in single quotes. To compare numbers, correct the table and build the "
        "index again."
    )


def short(text: str) -> str:
    """Shorten a filter for an error; bytes that are not UTF-8 become question marks."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _ascii_marks() -> str:
    return tr("Type signs, quotes, commas and brackets as on an English keyboard: < = ' , ( )")
