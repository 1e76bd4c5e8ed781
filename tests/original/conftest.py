"""A small checkpoint in the form of BagFormer's published ones, with its vocabulary and words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bagformer_cli.models.convert.albef import CheckpointSources
from tests.support.original_weights import VOCABULARY
from tests.support.small_checkpoint import published, weights


@pytest.fixture
def sources(tmp_path: Path) -> CheckpointSources:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (tmp_path / "dict.txt").write_text("动车\n头盔\n", encoding="utf-8")
    return CheckpointSources(tmp_path / "vocab.txt", tmp_path / "dict.txt")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(published(weights()), tmp_path / "small.pth")
    return tmp_path / "small.pth"
