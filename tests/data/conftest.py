"""A small dataset whose store is made, and files that have many shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store import preprocess as stages
from tests.support.character_encoder import QUERIES
from tests.support.datasets import picture, write_split


@pytest.fixture
def dataset(tmp_path: Path) -> MugeFolder:
    images = [(number, picture(number)) for number in (20, 40, 10, 30)]
    write_split(tmp_path / "data", "train", QUERIES, images)
    return write_split(tmp_path / "data", "valid", [(1, "手机", (3,))])


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short byte ranges, so that a small file has many shards as a large one has."""
    monkeypatch.setattr(stages, "IMAGE_LINES", replace(stages.IMAGE_LINES, range_bytes=2_000))
