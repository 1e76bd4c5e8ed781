"""The examples in docstrings give the output that they show.

Every module with a ``>>>`` is found by itself. An example that needs a trained model or a file of
the user ends its lines with ``# doctest: +SKIP``.
"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.support.sources import PACKAGE

EXPERIMENTS = PACKAGE.parent / "docs" / "experiments"


def _module_name(path: Path) -> str:
    root = EXPERIMENTS if path.is_relative_to(EXPERIMENTS) else PACKAGE.parent
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


MODULES = [
    _module_name(path)
    for folder in (PACKAGE, EXPERIMENTS)
    for path in sorted(folder.rglob("*.py"))
    if ">>>" in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write files
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert not failed, "see the output above"
