"""A tiny model, made once, and a shop folder for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.black_box import Shop


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
