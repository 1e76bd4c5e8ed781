"""The types and sources of bags and dictionary entries in the user's language.

Dictionaries and JSON have the types as they are written (``colour``). Tables and messages in
Chinese name them in Chinese. A type of the user's own stays as written.
"""

from __future__ import annotations

from bagformer_cli.messages import language, tr


def as_written(kind: str) -> str:
    """Return a type as a dictionary has it, and its Chinese name after it."""
    name = type_name(kind)
    return kind if name == kind else tr("{message} ({details})", message=kind, details=name)


def type_name(kind: str | None) -> str:
    """Return a type as a table shows it; ``-`` for none."""
    if kind is None:
        return "-"
    return kind if language() == "en" else names().get(kind, kind)


def source_names() -> dict[str, str]:
    """Return the name of each source of bags (``Bag.source``), in the order of tables."""
    return {
        "lexicon": tr("dictionary entry"),
        "pattern": tr("found by a pattern"),
        "token": tr("single token"),
    }


def names() -> dict[str, str]:
    """Return the name of each built-in type in the language of messages."""
    return {
        "audience": tr("for whom"),
        "brand": tr("brand"),
        "category": tr("kind of product"),
        "colour": tr("colour"),
        "compound": tr("compound"),
        "function": tr("function of a product"),
        "head": tr("head of a compound"),
        "latin": tr("Latin word"),
        "material": tr("material"),
        "model": tr("model number"),
        "name": tr("proper name"),
        "never": tr("never a bag"),
        "number": tr("number"),
        "pattern": tr("pattern"),
        "place": tr("place of origin"),
        "quantity": tr("quantity"),
        "scene": tr("place of use"),
        "season": tr("season"),
        "selling": tr("marketing word"),
        "style": tr("style"),
        "suffix": tr("suffix"),
        "unit": tr("unit"),
        "word": tr("word"),
    }
