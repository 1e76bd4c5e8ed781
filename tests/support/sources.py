"""The project's sources as syntax trees: the imports and the messages of each module."""

from __future__ import annotations

import ast
import inspect
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_type_hints

from babel.messages.pofile import read_po

PACKAGE = Path(__file__).resolve().parents[2] / "bagformer_cli"
CATALOGUE = PACKAGE / "locales" / "zh" / "LC_MESSAGES" / "xmr.po"


@dataclass(frozen=True)
class Import:
    """One import: ``target`` is a dotted module name, ``local`` inside a function."""

    module: str
    target: str
    line: int
    local: bool
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@dataclass(frozen=True)
class Sentence:
    """One ``tr("…", x=…)``: ``text`` is None where the argument is not a literal.

    ``values`` is None where they are given as ``**values``.
    """

    text: str | None
    values: frozenset[str] | None
    where: str


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name without ``bagformer_cli.``."""
    return {_name(path): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> list[Import]:
    """Every import of every module; ``from a import b`` names ``a.b`` where that is a module."""
    found = []
    for module, tree in modules().items():
        inside = {
            id(node)
            for outer in ast.walk(tree)
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for node in ast.walk(outer)
        }
        for node in ast.walk(tree):
            found += [
                Import(module, target, getattr(node, "lineno", 0), id(node) in inside, names)
                for target, names in _targets(node)
            ]
    return found


def _targets(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The imported module and the name that is taken from it, if one is."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, ()) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            known = full.removeprefix("bagformer_cli.") in modules()
            yield (full, ()) if known else (str(node.module), (alias.name,))


def type_checking_imports(module: str) -> set[int]:
    """The lines of ``module`` that stand under ``if TYPE_CHECKING:``."""
    return {
        node.lineno
        for block in ast.walk(modules()[module])
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }


@cache
def setting_sentences() -> list[Sentence]:
    """The docstrings of settings and sections, which ``xmr config list`` translates."""
    from bagformer_cli.config.rules import RunConfig
    from bagformer_cli.config.settings import one_line, section_of, setting_docs

    found: list[Sentence] = []

    def visit(section: type) -> None:
        line = inspect.getsourcelines(section)[1]
        where = f"{section.__module__.removeprefix('bagformer_cli.')}:{line}"
        texts = list(setting_docs(section).values())
        texts.append(one_line((section.__doc__ or "").split("\n\n")[0]))
        found.extend(Sentence(text, None, where) for text in texts)
        for annotation in get_type_hints(section, include_extras=True).values():
            inner = section_of(annotation)
            if inner is not None:
                visit(inner)

    visit(RunConfig)
    return found


@cache
def sentences() -> list[Sentence]:
    """Everything the program says through ``tr``, and the meanings of settings."""
    found = list(setting_sentences())
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tr":
                names = [keyword.arg for keyword in node.keywords]
                values = None if None in names else frozenset(map(str, names))
                found.append(Sentence(_literal(node), values, f"{module}:{node.lineno}"))
    return found


def _literal(call: ast.Call) -> str | None:
    match call.args:
        case [ast.Constant(value=str(text))]:
            return text
    return None


def placeholders(text: str) -> frozenset[str]:
    """The names in braces of a format string."""
    names = (name for _, name, _, _ in string.Formatter().parse(text) if name is not None)
    return frozenset(name.split(".")[0].split("[")[0] for name in names)


def translations() -> dict[str, str]:
    """English message to its Chinese translation ("" where that is still to be written)."""
    with CATALOGUE.open("rb") as file:
        return {m.id: m.string for m in read_po(file) if isinstance(m.id, str) and m.id}


def missing() -> list[str]:
    """Messages without a Chinese translation, in the order of the sources."""
    known = translations()
    said = [s.text for s in sentences() if s.text is not None]
    return [text for text in dict.fromkeys(said) if not known.get(text)]


def unused() -> list[str]:
    """Translations of messages that the sources no longer contain."""
    said = {s.text for s in sentences()}
    return [text for text in translations() if text not in said]
