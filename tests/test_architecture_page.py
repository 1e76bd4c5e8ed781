"""docs/architecture.md names files and functions that exist.

A file is written `training/task.py`, a function or class in it `training/task.py: RetrievalTask`,
a method `training/task.py: RetrievalTask.forward`; paths start in the package, or in the
repository (`tests/…`, `docs/…`).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
REFERENCES = sorted(set(re.findall(r"`([\w/]+\.py)(?:: ([\w.]+))?`", PAGE)))


def _find(path: str) -> Path | None:
    for folder in (ROOT / "bagformer_cli", ROOT):
        if (folder / path).is_file():
            return folder / path
    return None


def _defined(tree: ast.Module, dotted: str) -> bool:
    """Whether a module defines a function, class, constant, or a method or field of a class."""
    body: list[ast.stmt] = tree.body
    for name in dotted.split("."):
        for node in body:
            names = {getattr(node, "name", None)}
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
            if name in names:
                body = getattr(node, "body", [])
                break
        else:
            return False
    return True


@pytest.mark.parametrize(("path", "name"), REFERENCES)
def test_the_page_names_what_exists(path: str, name: str) -> None:
    file = _find(path)
    assert file is not None, f"there is no file {path}"
    if name:
        assert _defined(ast.parse(file.read_text("utf-8")), name), f"{path} defines no {name}"
