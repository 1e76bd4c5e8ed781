"""Every key of the configuration is read somewhere in the package.

The sources are read, not run: an attribute ``x.key`` counts for the section that ``x`` is known to
be, by its annotation (``config: TextConfig``), its name (``run.training.key``) or its assignment
(``settings = run.objectives``).
"""

from __future__ import annotations

import ast

import pytest

from bagformer_cli.config import RunConfig, load_config, schema, training
from bagformer_cli.config.section import Section
from bagformer_cli.errors import ConfigError
from tests.support.sources import modules

SECTIONS = {
    name: value
    for name, value in [*vars(schema).items(), *vars(training).items(), ("RunConfig", RunConfig)]
    if isinstance(value, type) and issubclass(value, Section) and value is not Section
}
SECTION_OF_KEY = {
    key: name
    for section in SECTIONS.values()
    for key, field in section.model_fields.items()
    for name in SECTIONS
    if name in str(field.annotation)
} | {"config": "RunConfig"}


def _last_name(node: ast.expr) -> str:
    """``a.b.c`` → ``c``, ``x`` → ``x``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _known_variables(tree: ast.Module) -> dict[str, set[str]]:
    """Variable or attribute name → sections that it holds somewhere in the module."""
    known: dict[str, set[str]] = {}

    def learn(name: str, section: str) -> None:
        known.setdefault(name, set()).add(section)

    def assign(target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=True):
                assign(one, other)
        elif isinstance(value, ast.IfExp):
            assign(target, value.body)
        elif _last_name(value) in SECTION_OF_KEY:
            learn(_last_name(target), SECTION_OF_KEY[_last_name(value)])

    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            name = node.arg if isinstance(node, ast.arg) else _last_name(node.target)
            for section in SECTIONS:
                if section in ast.unparse(node.annotation):
                    learn(name, section)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                assign(target, node.value)
    return known


def keys_read() -> set[tuple[str, str]]:
    """(section, key) of every attribute that is read outside ``config/``."""
    found = set()
    for module, tree in modules().items():
        if module.startswith("config"):
            continue
        known = _known_variables(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = _last_name(node.value)
                sections = known.get(name, set()) | {SECTION_OF_KEY.get(name, "")}
                found |= {(section, node.attr) for section in sections}
    return found


def test_every_key_is_read() -> None:
    keys = {(name, key) for name, section in SECTIONS.items() for key in section.model_fields}
    assert keys - keys_read() == set()


def test_a_broken_rule_names_the_override_that_broke_it() -> None:
    with pytest.raises(ConfigError, match=r"text\.width must be a multiple") as caught:
        load_config("demo", ["seed=1", "text.width=130"])
    assert caught.value.where == "--set text.width=130"
