"""Describe the values that a setting accepts, in the user's language.

Pydantic checks settings and the options of tables; its messages exist in English only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bagformer_cli.errors import listed
from bagformer_cli.messages import tr


def wanted(findings: Iterable[Mapping[str, Any]]) -> str:
    """Describe the values that would be accepted instead of a wrong one.

    Args:
        findings: Pydantic's errors about one value: one for each type that it could have.

    >>> wanted([{"type": "greater_than_equal", "ctx": {"ge": 1}}])
    'at least 1'
    """
    kinds = list(dict.fromkeys(_wanted(finding) for finding in findings))
    words = kinds[0]
    for kind in kinds[1:]:
        words = tr("{one}, or {other}", one=words, other=kind)
    return words


def _wanted(finding: Mapping[str, Any]) -> str:
    kind, limits = str(finding["type"]), finding.get("ctx", {})
    if kind == "greater_than_equal":
        return tr("at least {n}", n=_number(limits["ge"]))
    if kind == "greater_than":
        return tr("above {n}", n=_number(limits["gt"]))
    if kind == "less_than_equal":
        return tr("at most {n}", n=_number(limits["le"]))
    if kind == "less_than":
        return tr("below {n}", n=_number(limits["lt"]))
    if kind == "too_short":
        return tr("a list of at least {n}", n=limits["min_length"])
    if kind == "too_long":
        return tr("a list of at most {n}", n=limits["max_length"])
    if kind == "literal_error":
        text = str(limits["expected"]).replace(" or ", ", ").replace("'", "")
        names = text.split(", ")
        return tr("one of: {names}", names=listed(names)) if len(names) > 1 else text
    kinds = {
        "int": tr("a whole number"),
        "float": tr("a number"),
        "finite": tr("a number"),
        "bool": tr("true or false"),
        "string": tr("a text"),
        "list": tr("a list"),
        "tuple": tr("a list"),
        "dict": tr("keys with values"),
        "model": tr("a section: keys with values"),
        "missing": tr("a value; none is given"),
    }
    return kinds.get(kind.split("_")[0], str(finding["msg"]))


def type_word(kind: str) -> str:
    """Return a type of an attribute (``bool``, ``int``, ``float``, ``date``, ``str``) as a word.

    >>> type_word("int")
    'a whole number'
    """
    words = {
        "bool": tr("true or false"),
        "int": tr("a whole number"),
        "float": tr("a number"),
        "date": tr("a date"),
        "str": tr("a text"),
    }
    return words.get(kind, kind)


def _number(limit: float) -> str:
    """Write a limit without a needless ``.0``."""
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


def shown(value: object) -> str:
    """Write a value as a config file would: ``null``, ``true``, texts in quotes, shortened."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value) if isinstance(value, (str, int, float, list, dict)) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
