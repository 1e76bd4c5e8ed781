"""Render a checked filter (``filters.py``) as Qdrant's filter objects.

SQL has three truth values: a comparison with a missing value is neither true nor false, and neither
is its negation. Qdrant has two, so ``NOT`` is pushed inwards to the predicates (De Morgan), where
the missing values can be excluded::

    NOT (stock > 3 AND price < 9)   →   NOT stock > 3  OR  NOT price < 9
    NOT stock > 3                   →   must_not = [stock > 3, stock is empty]

Qdrant has no order of texts, no whole numbers beyond 2^53 in ranges, and only some ``LIKE``
patterns. Such a predicate is computed here, on all values that the attribute has in the index, and
becomes the list of the values that match::

    title LIKE '_色%'   →   title in ['红色连衣裙', '白色T恤', …]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

from qdrant_client import models as q
from sqlglot import exp

from bagformer_cli.errors import InputError
from bagformer_cli.index.filters import Tree, Value, value_of
from bagformer_cli.messages import tr

MAX_EXACT = 2**53  # Qdrant's ranges are float64, which holds whole numbers up to here
MAX_LISTED = 100_000
"""Values of an attribute that match a predicate which Qdrant does not have, at most."""

Values = Callable[[str], Iterable[Any]]
"""Yields the values of an attribute in the whole index, missing ones perhaps as None."""

RANGES: dict[type[Tree], str] = {exp.LT: "lt", exp.LTE: "lte", exp.GT: "gt", exp.GTE: "gte"}


def qdrant_filter(tree: Tree, values: Values, dates: Collection[str] = ()) -> q.Filter:
    """Render a checked tree.

    Args:
        tree: The tree.
        values: Reads the values of an attribute; called only for predicates that Qdrant lacks.
        dates: The attributes that are dates.

    Raises:
        InputError: A predicate that Qdrant lacks matches too many values.
    """
    return q.Filter(must=[_Renderer(values, dates).condition(tree, negated=False)])


def key_of(name: str) -> str:
    """Quote an attribute's name where Qdrant would read it as a path into nested objects.

    >>> key_of("价格"), key_of("a.b")
    ('价格', '"a.b"')
    """
    plain = all(character.isalnum() or character in "_-" for character in name)
    return name if plain else f'"{name}"'


class _Renderer:
    def __init__(self, values: Values, dates: Collection[str]) -> None:
        self._values, self._dates = values, dates

    def condition(self, tree: Tree, *, negated: bool) -> Any:
        if isinstance(tree, exp.Paren):
            return self.condition(tree.this, negated=negated)
        if isinstance(tree, exp.Not):
            return self.condition(tree.this, negated=not negated)
        if isinstance(tree, exp.And | exp.Or):
            parts = [self.condition(part, negated=negated) for part in tree.flatten()]
            both = isinstance(tree, exp.And) != negated
            return q.Filter(must=parts) if both else q.Filter(should=parts)
        if isinstance(tree, exp.NEQ):
            equal = exp.EQ(this=tree.this, expression=tree.expression)
            return self.condition(equal, negated=not negated)
        key = key_of(tree.this.name)
        empty = q.IsEmptyCondition(is_empty=q.PayloadField(key=key))
        if isinstance(tree, exp.Is):
            if isinstance(tree.expression, exp.Null):
                return q.Filter(must_not=[empty]) if negated else empty
            found = _equal(key, value_of(tree.expression))
            return q.Filter(must_not=[found]) if negated else found  # IS TRUE: missing is not true
        found = self._predicate(tree, key)
        return q.Filter(must_not=[found, empty]) if negated else found

    def _predicate(self, tree: Tree, key: str) -> Any:
        if isinstance(tree, exp.In):
            values = [self._value(tree, value) for value in tree.expressions]
            if all(isinstance(value, str) for value in values) or all(
                type(value) is int for value in values
            ):
                return q.FieldCondition(key=key, match=q.MatchAny(any=values))
            return q.Filter(should=[_equal(key, value) for value in values])
        if isinstance(tree, exp.Like):
            pattern = str(value_of(tree.expression))
            return _like(key, pattern) or self._listed(tree, key, like_pattern(pattern).fullmatch)
        if isinstance(tree, exp.EQ):
            return _equal(key, self._value(tree, tree.expression))
        if isinstance(tree, exp.Between):
            limits = {
                "gte": self._value(tree, tree.args["low"]),
                "lte": self._value(tree, tree.args["high"]),
            }
        else:
            limits = {RANGES[type(tree)]: self._value(tree, tree.expression)}
        if tree.this.name in self._dates:
            return q.FieldCondition(key=key, range=q.DatetimeRange(**limits))
        if all(not isinstance(v, str) and abs(v) <= MAX_EXACT for v in limits.values()):
            return q.FieldCondition(
                key=key, range=q.Range(**{name: float(value) for name, value in limits.items()})
            )
        return self._listed(tree, key, lambda value: _in_range(value, limits))

    def _value(self, tree: Tree, literal: Tree) -> Any:
        """Return a literal's value; for an attribute of dates, which Qdrant orders, its time."""
        value = value_of(literal)
        return datetime.fromisoformat(str(value)) if tree.this.name in self._dates else value

    def _listed(self, tree: Tree, key: str, matches: Callable[[Any], Any]) -> Any:
        """Render a predicate that Qdrant lacks as the list of the values that match."""
        found = {value for value in self._values(tree.this.name) if value is not None
                 and matches(value)}  # fmt: skip
        if len(found) > MAX_LISTED:
            raise InputError(
                tr("Too many values match this comparison, which Qdrant does not have."),
                where=f"{tree.this.name}",
                found=tr("{n} values that match", n=f"{len(found):,}"),
                expected=tr("at most {n}", n=f"{MAX_LISTED:,}"),
                hint=tr("Use =, IN, LIKE 'text%' or LIKE '%text%'."),
            )
        return q.FieldCondition(key=key, match=q.MatchAny(any=sorted(found)))


def _equal(key: str, value: Value | datetime) -> Any:
    if isinstance(value, datetime):
        return q.FieldCondition(key=key, range=q.DatetimeRange(gte=value, lte=value))
    if isinstance(value, float):
        return q.FieldCondition(key=key, range=q.Range(gte=value, lte=value))
    return q.FieldCondition(key=key, match=q.MatchValue(value=value))


def _in_range(value: Any, limits: dict[str, Any]) -> bool:
    """Compare as SQL does: texts by their code points, which is the order of their UTF-8 bytes."""
    return all(
        {"lt": value < limit, "lte": value <= limit, "gt": value > limit, "gte": value >= limit}[
            name
        ]
        for name, limit in limits.items()
    )


def _like(key: str, pattern: str) -> Any:
    """Render ``LIKE`` where Qdrant has it: as equality, prefix or substring; else None."""
    text, wildcards = _wildcards(pattern)
    if wildcards == []:
        return _equal(key, text)
    if wildcards == [len(text)]:
        return q.FieldCondition(key=key, match=q.MatchPrefix(prefix=text))
    if wildcards == [0, len(text)]:
        return q.FieldCondition(key=key, match=q.MatchSubstring(substring=text))
    return None


def like_pattern(pattern: str) -> re.Pattern[str]:
    r"""Compile a ``LIKE`` pattern: ``%`` any text, ``_`` one character, ``\`` takes the next as is.

    >>> bool(like_pattern("_色%").fullmatch("红色连衣裙"))
    True
    """
    parts = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            parts.append(re.escape(next(characters, "\\")))
        elif character == "%":
            parts.append(".*?")
        else:
            parts.append("." if character == "_" else re.escape(character))
    return re.compile("".join(parts), re.DOTALL)


def _wildcards(pattern: str) -> tuple[str, list[int] | None]:
    """Split a pattern into its text and the positions of its ``%``; None if it has a ``_``."""
    text, positions, single = "", [], False
    characters = iter(pattern)
    for character in characters:
        if character == "\\":  # the next character stands for itself
            text += next(characters, "\\")
        elif character == "%":
            positions.append(len(text))
        else:
            single |= character == "_"
            text += character
    return text, None if single else positions
