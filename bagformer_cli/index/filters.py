"""Parse the filters of ``--where``: a small, safe part of SQL that every engine understands alike.

A filter is parsed once by sqlglot; the tree is checked here; each engine renders the checked tree
in its own language::

    price < 200 AND category = '连衣裙'
        │ parse
    And(LT(price, 200), EQ(category, '连衣裙'))         unknown names, wrong types, functions,
        │ check                                        subqueries …: one error that names them
        ├─ lance_sql        (`price` < 200 AND `category` = '连衣裙')
        └─ qdrant_filter    Filter(must=[price: Range(lt=200), category: MatchValue('连衣裙')])

A checked tree consists of ``Paren``, ``And``, ``Or``, ``Not`` and predicates. Every predicate
compares one attribute, on its left side, with values of the attribute's type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import ClassVar

import sqlglot
from sqlglot import Dialect, ParseError, Token, TokenType, exp
from sqlglot.errors import SqlglotError

from bagformer_cli.data.catalogue.dates import date_of
from bagformer_cli.data.catalogue.values import number_of
from bagformer_cli.errors import InputError
from bagformer_cli.index.filter_errors import (
    MAX_SHOWN,
    example_of,
    letters,
    misfit,
    not_an_expression,
    short,
    unknown_attribute,
    unsupported,
)
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

GRAMMAR = "= != < <= > >= IN BETWEEN LIKE IS NULL AND OR NOT ( )"
KEYWORDS = {"AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "TRUE", "FALSE"}
MAX_DEPTH = 20  # nested brackets; the parser uses about twenty Python frames for each
MAX_INT = 2**63 - 1
MAX_LENGTH = 100_000  # characters of a filter; parsing takes seconds for more
MAX_WILDCARDS = 20  # of a LIKE pattern: each multiplies the time to find that a text does not match

Value = str | int | float | bool
Tree = exp.Expr

COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
SWAPPED: dict[type[Tree], type[Tree]] = {
    exp.EQ: exp.EQ, exp.NEQ: exp.NEQ, exp.LT: exp.GT, exp.LTE: exp.GTE, exp.GT: exp.LT,
    exp.GTE: exp.LTE,
}  # fmt: skip
ROUNDED: dict[type[Tree], Callable[[float], int]] = {
    exp.LT: math.ceil, exp.LTE: math.floor, exp.GT: math.floor, exp.GTE: math.ceil,
}  # fmt: skip
ORDERED = {exp.LT, exp.LTE, exp.GT, exp.GTE}
_DATE_PATTERN = re.compile(r"[-0-9:. %_]*")  # of LIKE: no other character is in a stored date
PARTS: dict[type[Tree], set[str]] = {
    **{kind: {"this", "expression"} for kind in COMPARISONS},
    exp.In: {"this", "expressions"},
    exp.Between: {"this", "low", "high"},
    exp.Like: {"this", "expression", "negate"},
    exp.Is: {"this", "expression"},
}
"""The predicates, and the only parts that each may have: no subquery, no ``ESCAPE`` …"""


class _FilterDialect(Dialect):
    """Names in backticks or double quotes, no comments; LanceDB reads the first kind of quotes."""

    class Tokenizer(sqlglot.Tokenizer):
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ["`", '"']
        COMMENTS: ClassVar[list[str | tuple[str, str]]] = []


def parse_filter(where: str, layout: Layout) -> Tree:
    """Parse a filter and check it against the attributes of an index.

    >>> layout = Layout("model", 8, attributes={"price": "float"})
    >>> lance_sql(parse_filter("NOT 200 <= price", layout))
    '(NOT `price` >= 200.0)'

    Raises:
        InputError: It is no filter, names an attribute that the index lacks, or compares an
            attribute with a value of another type.
    """
    if not where.strip():
        raise InputError(tr("The filter is empty."), where="--where", expected=example_of(layout))
    try:
        tree = exp.Paren(this=_parsed(where, layout))
        for predicate in predicates(tree):
            predicate.replace(_Check(where, layout).predicate(predicate))
        return tree
    except RecursionError:
        raise not_an_expression(where, tr("It is nested too deeply."), layout) from None


def predicates(tree: Tree) -> Iterator[Tree]:
    """Yield what ``AND``, ``OR``, ``NOT`` and brackets combine; without recursion."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, exp.And | exp.Or):
            stack += [node.right, node.left]
        elif isinstance(node, exp.Not | exp.Paren):
            stack.append(node.this)
        else:
            yield node


def lance_sql(tree: Tree) -> str:
    """Render a checked tree as LanceDB's SQL, in brackets."""
    return tree.sql(dialect=_FilterDialect, identify=True, comments=False)


def value_of(node: Tree) -> Value:
    """Return the Python value of a checked literal."""
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    return str(node.this) if node.is_string else _number_of(node)


@cache
def _dialect() -> Dialect:
    return _FilterDialect()


def _parsed(where: str, layout: Layout) -> Tree:
    if len(where) > MAX_LENGTH:
        raise InputError(
            tr("The filter is too long."),
            found=tr("{n} characters", n=f"{len(where):,}"),
            expected=tr("at most {n}", n=f"{MAX_LENGTH:,}"),
        )
    try:
        where.encode()
        tokens = [_named(token, layout) for token in _dialect().tokenize(where)]
        _check_depth(where, tokens, layout)
        parsed = _dialect().parser().parse_into(exp.Condition, tokens, where)
    except ParseError as error:
        at = error.errors[0] if error.errors else {}
        raise not_an_expression(where, at.get("highlight") or None, layout) from None
    except (SqlglotError, UnicodeEncodeError):
        raise not_an_expression(where, None, layout) from None
    if len(parsed) != 1 or parsed[0] is None or any(token.comments for token in tokens):
        raise not_an_expression(where, None, layout)
    return parsed[0]


def _named(token: Token, layout: Layout) -> Token:
    """Read a word that is an attribute as its name, even where SQL has a keyword like ``order``."""
    plain = token.token_type not in {TokenType.STRING, TokenType.NUMBER, TokenType.IDENTIFIER}
    if plain and token.text in layout.attributes and token.text.upper() not in KEYWORDS:
        token.token_type = TokenType.IDENTIFIER
    return token


def _check_depth(where: str, tokens: list[Token], layout: Layout) -> None:
    depth = 0
    for token in tokens:
        depth += token.token_type == TokenType.L_PAREN
        depth -= token.token_type == TokenType.R_PAREN
        if depth > MAX_DEPTH:
            raise not_an_expression(where, tr("It is nested too deeply."), layout)


def _number_of(node: Tree) -> int | float:
    if isinstance(node, exp.Neg):
        return -_number_of(node.this)
    return int(node.this) if node.this.isdecimal() else float(node.this)


def _never(column: exp.Column) -> Tree:
    """Return a predicate that is false for every value of a number (and unknown without one)."""
    one, zero = exp.Literal.number("1"), exp.Literal.number("0")
    return exp.Between(this=column, low=one, high=zero)


class _Check:
    """Check one predicate of a filter.

    Args:
        where: The whole filter, for errors.
        layout: The layout of the index: which attributes there are, and of which types.
    """

    def __init__(self, where: str, layout: Layout) -> None:
        self.where, self.layout = short(where), layout

    def predicate(self, node: Tree) -> Tree:
        """Return the predicate with its attribute on the left and its values in canonical form."""
        for known in node.find_all(exp.Column):  # an unknown name is the likeliest mistake
            self._kind(known, is_value=isinstance(node.this, exp.Column) and known is not node.this)
        if isinstance(node, exp.Column):  # a truth value alone: `in_stock`, `NOT in_stock`
            return self._comparison(exp.EQ(this=node.copy(), expression=exp.true()))
        parts = {name for name, part in node.args.items() if part}
        if type(node) not in PARTS or not parts <= PARTS[type(node)]:
            raise self._unsupported(node)
        if isinstance(node, COMPARISONS):
            return self._comparison(node)
        column = self._column(node.this, node)
        if isinstance(node, exp.Is):
            return self._is(node, column)
        if isinstance(node, exp.In):
            if not node.expressions:
                raise self._unsupported(node)
            values = [self._value(column, one, exp.EQ) for one in node.expressions]
            possible = [value for value in values if not isinstance(value, exp.Null)]
            return exp.In(this=column, expressions=possible) if possible else _never(column)
        if isinstance(node, exp.Between):
            low = self._value(column, node.args["low"], exp.GTE)
            high = self._value(column, node.args["high"], exp.LTE)
            if isinstance(low, exp.Null) or isinstance(high, exp.Null):
                raise self._misfit(column, short(node.sql()))
            return exp.Between(this=column, low=low, high=high)
        pattern = self._pattern(column, node.expression)
        if pattern.this.count("%") > MAX_WILDCARDS:
            raise InputError(
                tr("The pattern of LIKE has too many wildcards."),
                where=self.where,
                expected=tr("at most {n}", n=MAX_WILDCARDS),
            )
        like = exp.Like(this=column, expression=pattern)
        return exp.Not(this=like) if node.args.get("negate") else like

    def _pattern(self, column: exp.Column, node: Tree) -> Tree:
        """Return the pattern of ``LIKE``; one for dates must be able to match a stored date.

        Raises:
            InputError: The attribute is no text and no date, or the pattern is no such text.
        """
        kind, literal = self._kind(column), node.unnest()
        if kind not in {"str", "date"}:
            raise self._misfit(column, "LIKE")
        if type(literal) is not exp.Literal:
            raise self._unsupported(literal)
        if not literal.is_string or (kind == "date" and not _DATE_PATTERN.fullmatch(literal.this)):
            raise self._misfit(column, short(f"LIKE {literal.sql()}"))
        return literal.copy()

    def _comparison(self, node: Tree) -> Tree:
        left, right = node.this.unnest(), node.expression.unnest()
        kind = type(node)
        if not isinstance(left, exp.Column):
            left, right, kind = right, left, SWAPPED[kind]
        column = self._column(left, node)
        value = self._value(column, right, kind)
        if not isinstance(value, exp.Null):
            return kind(this=column, expression=value)
        return exp.Not(this=_never(column)) if kind is exp.NEQ else _never(column)

    def _is(self, node: Tree, column: exp.Column) -> Tree:
        value = node.expression
        if isinstance(value, exp.Boolean) and self._kind(column) != "bool":
            raise self._misfit(column, value.sql())
        if not isinstance(value, exp.Boolean | exp.Null):
            raise self._unsupported(node)
        return exp.Is(this=column, expression=value.copy())

    def _column(self, node: Tree, predicate: Tree) -> exp.Column:
        inner = node.unnest()
        if not isinstance(inner, exp.Column):
            raise self._unsupported(predicate)
        return exp.column(inner.name, quoted=True)

    def _kind(self, column: exp.Column, *, is_value: bool = False) -> str:
        """Return the type of an attribute; ``is_value``: the name stands where values stand."""
        name = ".".join(part.name for part in column.parts)
        qualified = len(column.parts) > 1  # `a.b` names an attribute only in quotes
        if name in {"id", "title"}:
            return "str"
        if qualified or name not in self.layout.attributes:
            raise unknown_attribute(name, self.layout, self.where, is_value=is_value)
        return self.layout.attributes[name]

    def _value(self, column: exp.Column, node: Tree, comparison: type[Tree]) -> Tree:
        """Return a literal of the attribute's type; NULL for a fraction that no whole number is.

        Raises:
            InputError: The value has another type, or is a number whose letters would be compared.
        """
        node = node.unnest()
        kind = self._kind(column)
        if isinstance(node, exp.Boolean):
            if kind != "bool":
                raise self._misfit(column, node.sql())
            if comparison not in {exp.EQ, exp.NEQ}:
                raise self._unsupported(node)
            return node.copy()
        negative = isinstance(node, exp.Neg)
        literal = node.this if negative else node
        if type(literal) is not exp.Literal or (negative and literal.is_string):
            raise self._unsupported(node)
        if kind == "bool" or literal.is_string != (kind in {"str", "date"}):
            raise self._misfit(column, short(node.sql()))
        if kind == "date":
            date = date_of(literal.this)
            if date is None:
                raise self._misfit(column, short(node.sql()))
            return exp.Literal.string(date)
        if kind == "str":
            number = comparison in ORDERED and number_of(literal.this) is not None
            if number and column.name not in {"id", "title"}:
                raise letters(column.name, short(node.sql()), self.where)
            return literal.copy()
        return self._number(column, node, comparison)

    def _number(self, column: exp.Column, node: Tree, comparison: type[Tree]) -> Tree:
        """Return a finite number: for an attribute of type int a whole one of 64 bits, or NULL."""
        text = short(node.sql())
        number = _number_of(node) if len(text) <= MAX_SHOWN else math.inf
        whole = self._kind(column) == "int"
        if not whole:
            number = float(number)
        elif isinstance(number, float) and math.isfinite(number):
            # LanceDB refuses `stock < 3.5`: whole numbers below 3.5 are those below 4.
            if comparison not in ROUNDED and not number.is_integer():
                return exp.null()
            number = ROUNDED.get(comparison, int)(number)
        too_large = isinstance(number, int) and abs(number) > MAX_INT
        if too_large or not math.isfinite(number) or (whole and not isinstance(number, int)):
            raise self._misfit(column, text)
        return exp.Literal.number(repr(number))

    def _misfit(self, column: exp.Column, found: str) -> InputError:
        return misfit(column.name, self._kind(column), found, self.where)

    def _unsupported(self, node: Tree) -> InputError:
        text = node.sql(dialect=_FilterDialect, comments=False)
        return unsupported(text, GRAMMAR, self.where, self.layout)
