"""Both sides of a split, encoded by one model, and the fast scores of all pairs.

Shapes: Q queries, N images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.config import RunConfig
from bagformer_cli.config.scoring import Scoring
from bagformer_cli.data.batches import image_batches, region_batches, text_batches
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.subsets import Subset
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import EncodedItems, encode_images, encode_texts
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.progress import SILENT, Progress


class EncodedSplit(NamedTuple):
    """Both sides of a split, encoded by one model."""

    images: EncodedItems
    texts: EncodedItems

    def restricted(self, subset: Subset | None) -> EncodedSplit:
        """Take the images and queries of a subset; None: all."""
        if subset is None:
            return self
        return EncodedSplit(self.images.select(subset.images), self.texts.select(subset.queries))


def encode_split(
    model: RetrievalModel,
    split: Split,
    batch_size: int,
    *,
    states: bool,
    progress: Progress = SILENT,
) -> EncodedSplit:
    """Encode all images and all queries of a split, in its order.

    Args:
        model: The model.
        split: The split.
        batch_size: Items per forward pass.
        states: Keep what the cross-encoder reads.
        progress: Where progress is reported.
    """
    images = encode_images(
        model,
        input_batches(model, split, batch_size),
        states=states,
        total=len(split.image_ids),
        description=tr("Encoding images"),
        progress=progress,
    )
    texts = encode_texts(
        model,
        text_batches(split.tokens, batch_size, model.titles.tokenizer.pad_id),
        states=states,
        total=len(split.query_ids),
        description=tr("Encoding titles"),
        progress=progress,
    )
    return EncodedSplit(images, texts)


def input_batches(model: RetrievalModel, split: Split, batch_size: int) -> Iterator[Tensor]:
    """Read a split's images in batches: pixels, or regions if the model reads these."""
    if model.config.image.regions is not None:
        regions = RegionFile.of(split, model.config.image.regions)
        return region_batches(split, regions, batch_size)
    size = model.config.image.size
    return image_batches(split, size, batch_size, as_original=model.as_original)


@torch.inference_mode()
def score_matrices(
    texts: EncodedItems, images: EncodedItems, config: RunConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the fast scores of all pairs, t2i [Q, N] and i2t [N, Q], pooled as configured."""
    both = texts.vectors, images.vectors
    t2i, i2t = pooled_maxsim(*both, Scoring.of(config))
    return t2i.cpu().numpy(), i2t.cpu().numpy()
