"""Many items to vectors, batch by batch, without gradients.

Shapes: n items, L text positions, P patches, W width, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.data.batches import TextBatch
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass
class EncodedItems:
    """All of one side, encoded.

    Attributes:
        vectors: What the late interaction scores.
        cls: [n, D] unit vectors, one an item: what a one-vector search finds.
        states: [n, L, W] or [n, 1 + P, W], what the slow scorer sees; None if not asked for.
            Those of images are float16 where the model is on a GPU; all others are as the slow
            scorer wants them.
        mask: [n, L] bool, True keeps; None: all.
    """

    vectors: MultiVectors
    cls: Tensor
    states: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def select(self, places: NDArray[np.int64]) -> EncodedItems:
        """Some of the items, in that order."""
        index = torch.from_numpy(places)
        return EncodedItems(
            self.vectors.select(index),
            self.cls[index.to(self.cls.device)],
            None if self.states is None else self.states[index.to(self.states.device)],
            None if self.mask is None else self.mask[index.to(self.mask.device)],
        )


def encode_images(
    model: RetrievalModel,
    pixels: Iterable[Tensor],
    *,
    states: bool = False,
    total: int | None = None,
    description: str = "",
    progress: Progress = SILENT,
) -> EncodedItems:
    """Encode batches of normalised images [b, 3, H, W]."""

    def one(batch: Tensor) -> Encoded:
        encoded = model.encode_images(batch.to(model.device), states=states)
        if states and model.device.type != "cpu":
            encoded.states = encoded.states.half()
        return encoded

    return _encode(model, pixels, one, states, total, description, progress)


def encode_texts(
    model: RetrievalModel,
    texts: Iterable[TextBatch],
    *,
    states: bool = False,
    total: int | None = None,
    description: str = "",
    progress: Progress = SILENT,
) -> EncodedItems:
    """Encode batches of titles."""

    def one(batch: TextBatch) -> Encoded:
        return model.encode_texts(batch.to(model.device), states=states)

    return _encode(model, texts, one, states, total, description, progress)


@torch.inference_mode()
def _encode(
    model: RetrievalModel,
    batches: Iterable[Any],
    encode: Callable[[Any], Encoded],
    keep_states: bool,
    total: int | None,
    description: str,
    progress: Progress,
) -> EncodedItems:
    was_training = model.training
    model.eval()
    vectors: list[MultiVectors] = []
    cls: list[Tensor] = []
    states: list[Tensor] = []
    masks: list[Tensor] = []
    try:
        with progress.task(description, total) as task:
            for batch in batches:
                encoded = encode(batch)
                vectors.append(encoded.vectors)
                cls.append(encoded.cls)
                if keep_states:
                    states.append(encoded.states)
                    if encoded.mask is not None:
                        masks.append(encoded.mask)
                task.advance(len(encoded.cls))
    finally:
        model.train(was_training)
    return EncodedItems(
        MultiVectors.concatenate(vectors),
        torch.cat(cls),
        _padded(states) if states else None,
        _padded(masks) if masks else None,
    )


def _padded(parts: list[Tensor]) -> Tensor:
    """Batches of [b, L, ...] with their own L as one [n, longest L, ...], zeros behind."""
    longest = max(part.shape[1] for part in parts)
    grown = []
    for part in parts:
        missing = longest - part.shape[1]
        grown.append(F.pad(part, (0, 0) * (part.ndim - 2) + (0, missing)) if missing else part)
    return torch.cat(grown)
