"""A tiny Chinese-CLIP, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import ChineseCLIPModel

from tests.support.chinese_clip import save_tiny


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ChineseCLIPModel]:
    """A tiny Chinese-CLIP of transformers, and its folder."""
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    return folder, save_tiny(folder)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    random = np.random.default_rng(5)
    sizes = ((40, 50, 3), (32, 32, 3), (61, 20, 3))
    return [Image.fromarray(random.integers(0, 256, size, np.uint8)) for size in sizes]
