"""A tiny model, made once; a shop folder or a working directory for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.black_box import Shop, case_folder
from tests.support.datasets import write_split


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    from tests.support.small_model import saved_model

    return saved_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def retriever(model: Path) -> Any:
    """The same model, loaded."""
    from bagformer_cli import load

    return load(model, device="cpu")


@pytest.fixture
def shop(xmr: Callable[..., Any], model: Path, tmp_path: Path) -> Shop:
    """Photos p0.jpg … p9.jpg and an index that a test builds."""
    return Shop(xmr, model, tmp_path / "shop")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset, a photo and a table."""
    folder = case_folder("", tmp_path / "home")
    write_split(folder / "set", "train", [(n, f"红裙{n}", (n,)) for n in range(1, 9)])
    write_split(folder / "set", "valid", [(n, f"红裙{n}", (n,)) for n in range(1, 5)])
    (folder / "t.csv").write_text("id,image,title,price\na0,p0.jpg,红裙,1\na1,p1.jpg,蓝裤,2\n")
    (folder / "titles.txt").write_text("红裙\n蓝裤\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def shared_index(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that wrong commands use, which none of them may change."""
    from bagformer_cli.cli.main import main

    folder = case_folder("", tmp_path_factory.mktemp("shared"))
    (folder / "t.csv").write_text("id,image,title,price\na0,p0.jpg,红裙,1\na1,p1.jpg,蓝裤,2\n")
    assert main(["index", "build", str(folder / "t.csv"), str(folder / "i"), "--checkpoint",
                 str(model)]) == 0  # fmt: skip
    return folder / "i"
