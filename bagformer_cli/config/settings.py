"""List every setting of a configuration: name, type, default, meaning, range.

All of it is read from the sections' classes, so that it is always what is checked: types and
ranges from the annotations, meanings from the docstring below each field.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typing_extensions import is_typeddict

from bagformer_cli.config.rules import RunConfig
from bagformer_cli.errors import listed, nearest
from bagformer_cli.messages import tr, translated

MISSING = "–"
"""Shown as the default of an option that a library decides."""


@dataclass(frozen=True)
class Setting:
    """One key of a configuration.

    Attributes:
        name: Its path, ``training.batch_size``.
        section: Whether it holds further keys.
        kind: The values it accepts, in words.
        default: As YAML writes it; ``null`` for a section that is left out.
        meaning: One or more sentences.
    """

    name: str
    section: bool
    kind: str
    default: str
    meaning: str


def settings() -> Iterator[Setting]:
    """Yield every setting in the order of the schema, sections before their keys."""
    yield from _settings(RunConfig, "")


def names(path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the dotted name of every setting below a section."""
    for key in keys_of(path):
        yield ".".join((*path, key))
        yield from names((*path, key))


def meant(key: str) -> list[str]:
    """List the settings that a key without its section may mean.

    They end with the key; or if none does, with the words that it abbreviates, or a similar name.

    >>> meant("lr"), meant("batchsize")
    (['training.learning_rate'], ['training.batch_size', 'evaluation.batch_size'])
    """
    by_end: dict[str, list[str]] = {}
    for name in names():
        by_end.setdefault(name.rpartition(".")[2], []).append(name)
    spelt_out = [end for end in by_end if "".join(word[0] for word in end.split("_")) == key]
    found = key if key in by_end else spelt_out[0] if spelt_out else nearest(key, by_end)
    return [] if found is None else by_end[found]


def keys_of(path: Sequence[str]) -> list[str]:
    """List the keys of the section at ``path``; empty if it is not a section."""
    section: type | None = RunConfig
    for key in path:
        section = section_of(_annotations(section).get(key)) if section is not None else None
    return [] if section is None else list(_annotations(section))


def section_of(annotation: Any) -> type | None:
    """Find the class of a section in an annotation such as ``CrossConfig | None``."""
    for candidate in (annotation, *get_args(annotation)):
        if is_typeddict(candidate):
            return candidate  # type: ignore[no-any-return]
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def setting_docs(section: type) -> dict[str, str]:
    """Read the docstrings below the fields of a section, each as one line."""
    (tree,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str(doc))):
                    found[field.target.id] = one_line(doc)
    return found


def one_line(doc: str) -> str:
    """Put a docstring on one line, with code in Markdown's single backticks."""
    return " ".join(doc.replace("``", "`").split())


def _settings(section: type, prefix: str) -> Iterator[Setting]:
    docs = setting_docs(section)
    for name, annotation in _annotations(section).items():
        path = f"{prefix}{name}"
        inner = section_of(annotation)
        meaning = translated(docs[name]) if name in docs else ""
        if inner is not None and not meaning:
            meaning = translated(one_line((inner.__doc__ or "").split("\n\n")[0]))
        kind = tr("section") if inner is not None else in_words(annotation)
        yield Setting(path, inner is not None, kind, _default(section, name), meaning)
        if inner is not None:
            yield from _settings(inner, f"{path}.")


@cache
def _annotations(section: type) -> Mapping[str, Any]:
    """Return the full annotation of each field, ``Annotated`` limits included."""
    hints = get_type_hints(section, include_extras=True)
    names = list(section.model_fields) if issubclass(section, BaseModel) else list(hints)
    return {name: hints[name] for name in names}


def _default(section: type, name: str) -> str:
    if not issubclass(section, BaseModel):
        return MISSING
    value = section.model_fields[name].get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return MISSING
    if isinstance(value, BaseModel):
        return ""
    return as_yaml(value)


def as_yaml(value: object) -> str:
    """Write a value as a configuration file does, on one line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    return str(value)


def in_words(annotation: Any, limits: tuple[Any, ...] = ()) -> str:
    """Say which values an annotation accepts: ``whole number, 1 to 1000``.

    >>> in_words(bool)
    'true or false'
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(inner[0], tuple(_constraints(inner[1:])))
    if origin is Literal:
        return tr("one of: {names}", names=listed(map(as_yaml, inner)))
    if origin in (Union, UnionType):
        kinds = [in_words(one) for one in inner if one is not NoneType]
        if NoneType in inner:
            kinds.append("null")
        words = kinds[0]
        for kind in kinds[1:]:
            words = tr("{one}, or {other}", one=words, other=kind)
        return words
    if origin is list:
        return tr("list of: {kind}", kind=in_words(inner[0]))
    if origin is tuple:
        return tr("list of {n}: {kind}", n=len(inner), kind=in_words(inner[0]))
    if origin is dict:
        return tr("keys with values: {kind}", kind=in_words(inner[1]))
    kinds_of_types = {
        int: tr("whole number"),
        float: tr("number"),
        bool: tr("true or false"),
        str: tr("text"),
    }
    return _with_range(kinds_of_types[annotation], dict(limits))


def _constraints(metadata: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Read the limits out of pydantic's field information."""
    for one in metadata:
        for limit in (one, *getattr(one, "metadata", ())):
            for name in ("ge", "gt", "le", "lt"):
                if getattr(limit, name, None) is not None:
                    yield name, getattr(limit, name)


def _with_range(kind: str, limits: Mapping[str, Any]) -> str:
    """Add the range to a type; limits beyond a thousand million are left out."""
    low, above = limits.get("ge"), limits.get("gt")
    high = limits.get("le")
    high = None if high is None or high > 10**9 else high
    if low is not None and high is not None:
        return tr("{kind}, {low} to {high}", kind=kind, low=low, high=high)
    if above is not None and high is not None:
        return tr("{kind}, above {low}, at most {high}", kind=kind, low=above, high=high)
    if low is not None:
        return tr("{kind}, at least {low}", kind=kind, low=low)
    if above is not None:
        return tr("{kind}, above {low}", kind=kind, low=above)
    return kind
