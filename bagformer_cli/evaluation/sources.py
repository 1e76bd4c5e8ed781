"""Sources of the vectors of an evaluation: a model of this project, another library's, files.

:func:`~bagformer_cli.evaluation.evaluate.evaluate` ranks and measures all of them alike. A source
differs in how a split becomes vectors, and in how two sides of vectors become scores.

Shapes: Q queries, N images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.adapters.protocol import OtherModel
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.prefetch import prefetch
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.encoded_split import EncodedSplit, encode_split, score_matrices
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import EncodedItems, require_finite
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

Item = TypeVar("Item")
Scores = tuple[NDArray[np.float32], NDArray[np.float32]]


class VectorSource(Protocol):
    """Gives the vectors of a split and scores them."""

    @property
    def name(self) -> str:
        """Its name in reports: a folder, or the value of ``--model``."""

    @property
    def model(self) -> RetrievalModel | None:
        """The model that may rerank; None: nothing is reranked."""

    def facts(self) -> dict[str, Any]:
        """Return what the report says of it besides the name."""

    def open(self, folder: MugeFolder, split: str, progress: Progress = SILENT) -> Split:
        """Open a split of a dataset with all that :meth:`encode` reads; preprocess if needed."""

    def encode(
        self, split: Split, batch_size: int, *, states: bool = False, progress: Progress = SILENT
    ) -> EncodedSplit:
        """Encode all images and queries of a split, in its order.

        Args:
            split: The split.
            batch_size: Items per forward pass.
            states: Keep what :attr:`model` reads to rerank.
            progress: Where progress is reported.
        """

    def score(self, encoded: EncodedSplit) -> Scores:
        """Compute the fast scores of all pairs: t2i [Q, N] and i2t [N, Q]."""


class OwnModel:
    """A model of this project.

    Args:
        model: The model.
        name: Its folder.
    """

    def __init__(self, model: RetrievalModel, name: str = "") -> None:
        self.model = model
        self.name = name

    def facts(self) -> dict[str, Any]:
        """Return nothing: the model's folder says all."""
        return {}

    def open(self, folder: MugeFolder, split: str, progress: Progress = SILENT) -> Split:
        """Open a split with the tokens that the model reads."""
        return open_split(folder, self.model, split, progress)

    def encode(
        self, split: Split, batch_size: int, *, states: bool = False, progress: Progress = SILENT
    ) -> EncodedSplit:
        """Encode a split; see :class:`VectorSource`."""
        return encode_split(self.model, split, batch_size, states=states, progress=progress)

    def score(self, encoded: EncodedSplit) -> Scores:
        """Score all pairs as the configuration says."""
        return score_matrices(encoded.texts, encoded.images, self.model.config)


class AdaptedModel:
    """A model of another library, through its adapter.

    Args:
        other: The adapter.
    """

    model: RetrievalModel | None = None

    def __init__(self, other: OtherModel) -> None:
        self.other = other
        self.name = other.name

    def facts(self) -> dict[str, Any]:
        """Return the library and, where it is known, the licence."""
        return {"library": self.other.package, "licence": self.other.licence}

    def open(self, folder: MugeFolder, split: str, progress: Progress = SILENT) -> Split:
        """Open a split without tokens: the other library has its own tokenizer."""
        return open_images(folder, split, progress)

    def encode(
        self, split: Split, batch_size: int, *, states: bool = False, progress: Progress = SILENT
    ) -> EncodedSplit:
        """Encode a split; see :class:`VectorSource`."""
        with progress.task(
            tr("Encoding images"), len(split.image_ids), tr("{n} images", n="{n}")
        ) as task:
            images = _in_batches(
                _decoded(split, batch_size), self.other.encode_images, task.advance
            )
        titles = (split.texts[i : i + batch_size] for i in range(0, len(split.texts), batch_size))
        with progress.task(
            tr("Encoding titles"), len(split.texts), tr("{n} titles", n="{n}")
        ) as task:
            texts = _in_batches(titles, self.other.encode_texts, task.advance)
        return EncodedSplit(images, texts)

    def score(self, encoded: EncodedSplit) -> Scores:
        """Score all pairs by MaxSim: of single vectors, this is their dot product."""
        return score_vectors(encoded)


def as_source(model: RetrievalModel | VectorSource) -> VectorSource:
    """Return a model of this project as a source; a source as it is."""
    return OwnModel(model) if isinstance(model, RetrievalModel) else model


def open_split(
    folder: MugeFolder, model: RetrievalModel, split: str, progress: Progress = SILENT
) -> Split:
    """Open a split of a dataset with the tokens that a model reads, preprocessing if needed."""
    store = preprocess(
        folder, encoder=model.titles, splits=[split], workers=usable_cores(), progress=progress
    )
    return store.split(split)


def open_images(folder: MugeFolder, split: str, progress: Progress = SILENT) -> Split:
    """Open a split of a dataset without tokens, preprocessing if needed."""
    store = preprocess(
        folder, encoder=None, splits=[split], workers=usable_cores(), progress=progress
    )
    return store.split(split)


@torch.inference_mode()
def score_vectors(encoded: EncodedSplit) -> Scores:
    """Score all pairs by MaxSim, in each direction over the vectors of its query."""
    t2i, i2t = pooled_maxsim(encoded.texts.vectors, encoded.images.vectors)
    return t2i.cpu().numpy(), i2t.cpu().numpy()


def items_of_vectors(vectors: MultiVectors) -> EncodedItems:
    """Make encoded items of vectors; the single vector of an item is its mean, of unit length."""
    if vectors.uniform_length == 1:
        return EncodedItems(vectors, vectors.values)
    return EncodedItems(vectors, torch.nn.functional.normalize(vectors.mean(), dim=-1))


def _decoded(split: Split, batch_size: int) -> Iterator[list[Image.Image]]:
    """Decode all images of a split in order; threads work ahead."""

    def decode(begin: int) -> list[Image.Image]:
        return [split.image(at) for at in range(begin, min(begin + batch_size, count))]

    count = len(split.image_ids)
    return prefetch(decode, range(0, count, batch_size), min(8, usable_cores()))


@torch.inference_mode()
def _in_batches(
    batches: Iterator[Sequence[Item]] | Iterator[list[Item]],
    encode: Callable[[Sequence[Item]], MultiVectors],
    advance: Callable[[int], None],
) -> EncodedItems:
    parts = []
    for batch in batches:
        parts.append(encode(batch))
        advance(len(batch))
    items = items_of_vectors(MultiVectors.concatenate(parts))
    require_finite(items)
    return items
