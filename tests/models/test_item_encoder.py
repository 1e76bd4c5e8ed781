"""Encoders of an index: what they return does not depend on how they run the model."""

from __future__ import annotations

import numpy as np
import pytest

from bagformer_cli.models import item_encoder
from bagformer_cli.models.item_encoder import ModelEncoder
from tests.support.small_model import small_model


@pytest.mark.parametrize("pixels", [1, 3 * 16 * 16, 10**6], ids=["one", "three", "all"])
def test_images_have_the_same_vectors_in_passes_of_any_size(
    pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ModelEncoder(small_model())
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)
    alone = [encoder.encode_pixels(images[i : i + 1]).vectors.values for i in range(7)]
    sizes: list[int] = []
    encode = encoder.model.encode_images
    monkeypatch.setattr(
        encoder.model,
        "encode_images",
        lambda batch, **options: sizes.append(len(batch)) or encode(batch, **options),
    )
    monkeypatch.setattr(item_encoder, "CPU_PIXELS", pixels)
    found = encoder.encode_pixels(images)
    assert max(sizes) == min(7, max(1, pixels // 256))
    assert found.vectors.lengths.tolist() == [len(one) for one in alone]
    np.testing.assert_allclose(found.vectors.values, np.concatenate(alone), atol=1e-6)
