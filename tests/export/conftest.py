"""One small model and its ONNX export for all tests of this folder; a catalogue and its index."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.models.build import RetrievalModel
from tests.support.exported import exported
from tests.support.small_model import write_table

Made = tuple[RetrievalModel, Path, Path]


@pytest.fixture(scope="session")
def bagwise(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The model, its model folder, and the exported model in it."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return exported(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def index(bagwise: Made, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bagformer_cli.cli.main import main

    place = tmp_path_factory.mktemp("index") / "index"
    arguments = ["index", "build", shop, place, "--checkpoint", bagwise[1], "--json"]
    assert main([str(argument) for argument in arguments]) == 0
    return place
