"""The filters that every engine understands, parsed: a small part of SQL.

``price < 200 AND category = '连衣裙'``: ``AND``, ``OR``, ``NOT``, brackets, comparisons, ``IN``,
``BETWEEN`` and ``IS NULL``. LanceDB reads SQL itself, and more of it; this is for engines whose
filters are objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine_errors import EXAMPLE, unknown_attribute
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

Value = str | int | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Compare:
    """``name operator value``."""

    name: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class In:
    """``name IN (values)``."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class IsNull:
    """``name IS NULL``."""

    name: str


@dataclass(frozen=True)
class Not:
    """``NOT node``."""

    node: Node


@dataclass(frozen=True)
class All:
    """``a AND b …``."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """``a OR b …``."""

    nodes: tuple[Node, ...]


Node = Compare | In | IsNull | Not | All | Either

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
    r"|(?P<operator><=|>=|!=|<>|=|<|>|\(|\)|,)|`(?P<quoted>[^`]+)`|\"(?P<double>[^\"]+)\""
    r"|(?P<word>[^\W\d]\w*))"
)


def parse(where: str, layout: Layout) -> Node:
    """The filter as nodes.

    Raises:
        InputError: It is no such expression, or names an attribute that the index lacks.
    """
    parser = _Parser(where, layout)
    node = parser.either()
    if parser.kind != "end":
        raise parser.wrong(tr("the end"))
    return node


class _Parser:
    def __init__(self, where: str, layout: Layout) -> None:
        self.where, self.layout = where, layout
        self._tokens = self._split()
        self.kind, self.value = next(self._tokens)

    def _split(self) -> Iterator[tuple[str, str]]:
        place = 0
        while self.where[place:].strip():
            match = _TOKEN.match(self.where, place)
            if match is None:
                raise self._error(self.where[place:].strip()[:20], tr("an attribute"))
            place = match.end()
            kind = str(match.lastgroup)
            value = match[kind]
            if kind in {"quoted", "double"}:
                yield "name", value
            elif kind == "word":
                keyword = value.upper() in _KEYWORDS
                yield ("keyword", value.upper()) if keyword else ("name", value)
            else:
                yield kind, value
        yield "end", ""

    def _error(self, found: str, expected: str) -> InputError:
        return InputError(
            tr("The filter is not an expression."),
            where=self.where,
            found=found or tr("the end"),
            expected=expected,
            hint=tr("For example: {example}", example=EXAMPLE),
        )

    def wrong(self, expected: str) -> InputError:
        return self._error(self.value, expected)

    def take(self, kind: str, value: str | None = None) -> str | None:
        if self.kind != kind or (value is not None and self.value != value):
            return None
        taken = self.value
        self.kind, self.value = next(self._tokens)
        return taken

    def need(self, kind: str, value: str | None, expected: str) -> str:
        taken = self.take(kind, value)
        if taken is None:
            raise self.wrong(expected)
        return taken

    def either(self) -> Node:
        nodes = [self.both()]
        while self.take("keyword", "OR"):
            nodes.append(self.both())
        return nodes[0] if len(nodes) == 1 else Either(tuple(nodes))

    def both(self) -> Node:
        nodes = [self.one()]
        while self.take("keyword", "AND"):
            nodes.append(self.one())
        return nodes[0] if len(nodes) == 1 else All(tuple(nodes))

    def one(self) -> Node:
        if self.take("keyword", "NOT"):
            return Not(self.one())
        if self.take("operator", "("):
            inside = self.either()
            self.need("operator", ")", ")")
            return inside
        name = self.need("name", None, tr("an attribute"))
        if name not in {"id", "title", *self.layout.attributes}:
            raise unknown_attribute(name, self.layout, self.where)
        if self.take("keyword", "IS"):
            negated = self.take("keyword", "NOT") is not None
            self.need("keyword", "NULL", "NULL")
            return Not(IsNull(name)) if negated else IsNull(name)
        negated = self.take("keyword", "NOT") is not None
        node: Node
        if self.take("keyword", "IN"):
            self.need("operator", "(", "(")
            values = [self.literal(name)]
            while self.take("operator", ","):
                values.append(self.literal(name))
            self.need("operator", ")", ")")
            node = In(name, tuple(values))
        elif self.take("keyword", "BETWEEN"):
            low = self.literal(name)
            self.need("keyword", "AND", "AND")
            node = All((Compare(name, ">=", low), Compare(name, "<=", self.literal(name))))
        else:
            operator = self.need("operator", None, "=, !=, <, <=, >, >=, IN, BETWEEN, IS NULL")
            if operator not in _OPERATORS:
                raise self._error(operator, ", ".join(_OPERATORS))
            node = Compare(name, _OPERATORS[operator], self.literal(name))
        return Not(node) if negated else node

    def literal(self, name: str) -> Value:
        kind = self.layout.attributes.get(name, "str")
        found: Value
        if (text := self.take("text")) is not None:
            found = text[1:-1].replace("''", "'")
        elif (number := self.take("number")) is not None:
            found = float(number) if re.search(r"[.eE]", number) else int(number)
        elif (word := self.take("keyword", "TRUE") or self.take("keyword", "FALSE")) is not None:
            found = word == "TRUE"
        else:
            raise self.wrong(tr("a value: text in single quotes, or a number"))
        own = "bool" if isinstance(found, bool) else "str" if isinstance(found, str) else "number"
        fits = own == {"int": "number", "float": "number"}.get(kind, kind)
        if not fits:
            raise InputError(
                tr("The filter does not fit its attributes."),
                where=self.where,
                found=f"{name}: {found!r}",
                expected=f"{name} ({kind})",
            )
        return found


_KEYWORDS = {"AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "TRUE", "FALSE"}
_OPERATORS: dict[str, Operator] = {
    "=": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
