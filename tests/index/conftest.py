"""A shop with an index, made once for each module that searches it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.index.search import Index
from tests.support.small_model import indexed_shop


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a catalogue of twelve products and its index."""
    pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")
    return indexed_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder as the working directory."""
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def index(place: Path) -> Index:
    """The opened index of the shop."""
    return Index.open(place / "index")
