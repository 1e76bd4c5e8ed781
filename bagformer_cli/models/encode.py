"""Encode many items batch by batch, in evaluation mode and without gradients.

Shapes: n items, b items of a batch, L positions, P patches, W width, D embedding dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.states import States, TitleStates
from bagformer_cli.errors import NotFiniteError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

if TYPE_CHECKING:
    from bagformer_cli.models.build import RetrievalModel
    from bagformer_cli.models.dual import Encoded


@dataclass
class EncodedItems:
    """One side of a whole dataset, encoded.

    Attributes:
        vectors: The vectors that items are retrieved by.
        cls: [n, D] unit vectors, one per item, for a single-vector first stage.
        states: The states that the cross-encoder reads; None: not kept. On a GPU, states of images
            are float16 to halve their memory.
    """

    vectors: MultiVectors
    cls: Tensor
    states: States | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def select(self, rows: NDArray[np.int64]) -> EncodedItems:
        """Take the items at ``rows``, in that order."""
        index = torch.from_numpy(rows)
        return EncodedItems(
            self.vectors.select(index),
            self.cls[index.to(self.cls.device)],
            None if self.states is None else self.states.select(index),
        )


def encode_images(
    model: RetrievalModel,
    pixels: Iterable[Tensor | States],
    *,
    states: bool = False,
    total: int | None = None,
    description: str = "",
    progress: Progress = SILENT,
) -> EncodedItems:
    """Encode batches of images.

    Args:
        model: The model; its training mode is restored afterwards.
        pixels: Batches of normalised images [b, 3, H, W] or regions, or the image tower's output
            for them.
        states: Keep what the cross-encoder reads; it takes far more memory than the vectors.
        total: Number of images, for the progress bar.
        description: Text of the progress bar.
        progress: Where progress is reported.

    Raises:
        NotFiniteError: A vector has NaN or infinity.
    """

    def encode(batch: Tensor | States) -> Encoded:
        encoded = model.encode_images(batch.to(model.device), states=states)
        if states and model.device.type != "cpu":
            encoded.states = encoded.states.to(model.device, torch.float16)
        return encoded

    with progress.task(description, total, tr("{n} images", n="{n}")) as task:
        return _encode(model, pixels, encode, states, task.advance)


def encode_texts(
    model: RetrievalModel,
    texts: Iterable[TextBatch | TitleStates],
    *,
    states: bool = False,
    total: int | None = None,
    description: str = "",
    progress: Progress = SILENT,
) -> EncodedItems:
    """Encode batches of titles; see :func:`encode_images` for the arguments."""

    def encode(batch: TextBatch | TitleStates) -> Encoded:
        return model.encode_texts(batch.to(model.device), states=states)

    with progress.task(description, total, tr("{n} titles", n="{n}")) as task:
        return _encode(model, texts, encode, states, task.advance)


@torch.inference_mode()
def _encode(
    model: RetrievalModel,
    batches: Iterable[Any],
    encode: Callable[[Any], Encoded],
    keep_states: bool,
    advance: Callable[[int], None],
) -> EncodedItems:
    was_training = model.training
    model.eval()
    vectors: list[MultiVectors] = []
    cls: list[Tensor] = []
    states: list[States] = []
    try:
        for batch in batches:
            encoded = encode(batch)
            vectors.append(encoded.vectors)
            cls.append(encoded.cls)
            if keep_states:
                states.append(encoded.states)
            advance(len(encoded.cls))
    finally:
        model.train(was_training)
    items = EncodedItems(
        MultiVectors.concatenate(vectors),
        torch.cat(cls),
        States.concatenate(states) if states else None,
    )
    require_finite(items)
    return items


def require_finite(items: EncodedItems) -> None:
    """Check that vectors of a model are numbers.

    Raises:
        NotFiniteError: A vector has NaN or infinity.
    """
    # Unit vectors: a sum is finite exactly if all are, and needs no further memory.
    total = items.vectors.values.sum(dtype=torch.float32) + items.cls.sum(dtype=torch.float32)
    if not math.isfinite(float(total)):
        raise NotFiniteError(
            tr("The model gives vectors that are not finite numbers."),
            hint=tr("Its training diverged. Use another model."),
        )
