"""Render a checked filter (``filters.py``) as Qdrant's filter objects.

SQL has three truth values: a comparison with a missing value is neither true nor false, and neither
is its negation. Qdrant has two, so ``NOT`` is pushed inwards to the predicates (De Morgan), where
the missing values can be excluded::

    NOT (stock > 3 AND price < 9)   →   NOT stock > 3  OR  NOT price < 9
    NOT stock > 3                   →   must_not = [stock > 3, stock is empty]
"""

from __future__ import annotations

from typing import Any

from qdrant_client import models as q
from sqlglot import exp

from bagformer_cli.errors import InputError
from bagformer_cli.index.filters import Tree, Value, value_of
from bagformer_cli.messages import tr

MAX_EXACT = 2**53  # Qdrant's ranges are float64, which holds whole numbers up to here
RANGES: dict[type[Tree], str] = {exp.LT: "lt", exp.LTE: "lte", exp.GT: "gt", exp.GTE: "gte"}


def qdrant_filter(tree: Tree) -> q.Filter:
    """Render a checked tree.

    Raises:
        InputError: Qdrant cannot express a comparison (the order of texts, some ``LIKE`` patterns).
    """
    return q.Filter(must=[_condition(tree, negated=False)])


def key_of(name: str) -> str:
    """Quote an attribute's name where Qdrant would read it as a path into nested objects.

    >>> key_of("价格"), key_of("a.b")
    ('价格', '"a.b"')

    Raises:
        InputError: The name contains a double quote, which Qdrant cannot express.
    """
    if '"' in name:
        raise InputError(
            tr("Qdrant cannot filter by an attribute with a double quote in its name."), found=name
        )
    plain = all(character.isalnum() or character in "_-" for character in name)
    return name if plain else f'"{name}"'


def _condition(tree: Tree, *, negated: bool) -> Any:
    if isinstance(tree, exp.Paren):
        return _condition(tree.this, negated=negated)
    if isinstance(tree, exp.Not):
        return _condition(tree.this, negated=not negated)
    if isinstance(tree, exp.And | exp.Or):
        parts = [_condition(part, negated=negated) for part in tree.flatten()]
        both = isinstance(tree, exp.And) != negated
        return q.Filter(must=parts) if both else q.Filter(should=parts)
    if isinstance(tree, exp.NEQ):
        return _condition(exp.EQ(this=tree.this, expression=tree.expression), negated=not negated)
    key = key_of(tree.this.name)
    empty = q.IsEmptyCondition(is_empty=q.PayloadField(key=key))
    if isinstance(tree, exp.Is):
        if isinstance(tree.expression, exp.Null):
            return q.Filter(must_not=[empty]) if negated else empty
        found = _equal(key, value_of(tree.expression))
        return q.Filter(must_not=[found]) if negated else found  # IS TRUE: missing is not true
    found = _predicate(tree, key)
    return q.Filter(must_not=[found, empty]) if negated else found


def _predicate(tree: Tree, key: str) -> Any:
    if isinstance(tree, exp.In):
        values = [value_of(value) for value in tree.expressions]
        if all(isinstance(value, str) for value in values) or all(
            type(value) is int for value in values
        ):
            return q.FieldCondition(key=key, match=q.MatchAny(any=values))
        return q.Filter(should=[_equal(key, value) for value in values])
    if isinstance(tree, exp.Between):
        limits = {"gte": value_of(tree.args["low"]), "lte": value_of(tree.args["high"])}
        return _range(key, limits)
    if isinstance(tree, exp.Like):
        return _like(key, str(value_of(tree.expression)))
    value = value_of(tree.expression)
    return (
        _equal(key, value) if isinstance(tree, exp.EQ) else _range(key, {RANGES[type(tree)]: value})
    )


def _equal(key: str, value: Value) -> Any:
    if isinstance(value, float):
        return q.FieldCondition(key=key, range=q.Range(gte=value, lte=value))
    return q.FieldCondition(key=key, match=q.MatchValue(value=value))


def _range(key: str, limits: dict[str, Value]) -> Any:
    for value in limits.values():
        if isinstance(value, str):
            raise InputError(
                tr("Qdrant can compare texts with =, !=, IN and LIKE only."), found=repr(value)
            )
        if abs(value) > MAX_EXACT:
            raise InputError(
                tr("Qdrant can compare numbers beyond 2^53 with =, != and IN only."), found=value
            )
    return q.FieldCondition(key=key, range=q.Range(**{k: float(v) for k, v in limits.items()}))


def _like(key: str, pattern: str) -> Any:
    """Render ``LIKE``: Qdrant has equality, prefixes and substrings."""
    text, wildcards = _wildcards(pattern)
    if wildcards == []:
        return _equal(key, text)
    if wildcards == [len(text)]:
        return q.FieldCondition(key=key, match=q.MatchPrefix(prefix=text))
    if wildcards == [0, len(text)]:
        return q.FieldCondition(key=key, match=q.MatchSubstring(substring=text))
    raise InputError(
        tr("Qdrant has no LIKE with this pattern."),
        found=pattern,
        expected="'text', 'text%', '%text%'",
    )


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
