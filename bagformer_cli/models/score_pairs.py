"""Score pairs of titles and images with a model's cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.batches import TextBatch, normalised
from bagformer_cli.models.encode import encode_images, encode_texts

if TYPE_CHECKING:
    from bagformer_cli.models.build import RetrievalModel

PAIRS_AT_ONCE = 64


@torch.inference_mode()
def score_pairs(
    model: RetrievalModel, titles: Sequence[str], pixels: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Score pairs; each side is encoded once.

    Args:
        model: A model with a trained cross-encoder.
        titles: n titles, or one that is compared with all images.
        pixels: [n, S, S, 3] uint8, resized images, or one that is compared with all titles.

    Returns:
        [n] scores, higher for a better match.
    """
    batch = TextBatch.from_tokens(model.titles(list(titles)), model.titles.tokenizer.pad_id)
    texts = encode_texts(model, [batch], states=True).states
    parts = (
        normalised(torch.from_numpy(pixels[i : i + PAIRS_AT_ONCE]))
        for i in range(0, len(pixels), PAIRS_AT_ONCE)
    )
    images = encode_images(model, parts, states=True).states
    assert model.cross is not None
    assert texts is not None
    assert images is not None
    count = max(len(titles), len(pixels))
    scores = np.zeros(count, np.float32)
    for begin in range(0, count, PAIRS_AT_ONCE):
        pairs = torch.arange(begin, min(begin + PAIRS_AT_ONCE, count))
        read = texts.select(pairs if len(titles) > 1 else pairs * 0)
        seen, rows = (images.select(pairs), None) if len(pixels) > 1 else (images, pairs * 0)
        found = model.cross.score(
            read.to(model.device, torch.float32),
            seen.to(model.device, torch.float32),
            None if rows is None else rows.to(model.device),
        )
        scores[begin : begin + PAIRS_AT_ONCE] = found.float().cpu().numpy()
    return scores
