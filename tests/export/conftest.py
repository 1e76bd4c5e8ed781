"""One small model and its ONNX export for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.models.build import RetrievalModel
from tests.support.exported import exported


@pytest.fixture(scope="session")
def bagwise(tmp_path_factory: pytest.TempPathFactory) -> tuple[RetrievalModel, Path, Path]:
    """The model, its model folder, and the exported model in it."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return exported(tmp_path_factory.mktemp)
