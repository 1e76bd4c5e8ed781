"""Encoders of titles and images: a loaded model, or an exported one.

:class:`ModelEncoder` runs a loaded model in torch, :class:`OnnxEncoder` an exported one in
onnxruntime. Importing this module imports neither transformers nor timm, which takes longer than
a search.

Shapes: n items, D dimensions, S side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.batches import TextBatch, normalised
from bagformer_cli.models.encode import EncodedItems, encode_images, encode_texts
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.runtime import OnnxRetriever, Vectors
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.vectors.multi_vectors import MultiVectors

if TYPE_CHECKING:
    from bagformer_cli.models.build import RetrievalModel


class ItemEncoder(Protocol):
    """Encodes titles and images to the vectors of one model."""

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint: encoders of one fingerprint give the same vectors."""

    @property
    def dim(self) -> int:
        """Dimension D of a vector."""

    @property
    def image_size(self) -> int:
        """Side S of an image, in pixels."""

    @property
    def as_original(self) -> bool:
        """True if images are decoded as the published BagFormer code does."""

    @property
    def titles(self) -> TitleEncoder:
        """Turns titles into tokens and bags."""

    def encode_titles(self, titles: Sequence[str]) -> EncodedItems:
        """Encode one batch of titles that are not empty."""

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedItems:
        """Encode one batch of resized images [n, S, S, 3] uint8."""


class ModelEncoder:
    """A loaded model as an :class:`ItemEncoder`.

    Args:
        model: The model.
    """

    def __init__(self, model: RetrievalModel) -> None:
        self.model = model

    @cached_property
    def fingerprint(self) -> str:
        """See :class:`ItemEncoder`."""
        return fingerprint(self.model)

    @property
    def dim(self) -> int:
        """See :class:`ItemEncoder`."""
        return self.model.config.model.embed_dim

    @property
    def image_size(self) -> int:
        """See :class:`ItemEncoder`."""
        return self.model.config.image.size

    @property
    def as_original(self) -> bool:
        """See :class:`ItemEncoder`."""
        return self.model.as_original

    @property
    def titles(self) -> TitleEncoder:
        """See :class:`ItemEncoder`."""
        return self.model.titles

    def encode_titles(self, titles: Sequence[str]) -> EncodedItems:
        """See :class:`ItemEncoder`."""
        tokens = self.model.titles(list(titles))
        batch = TextBatch.from_tokens(tokens, self.model.titles.tokenizer.pad_id)
        return encode_texts(self.model, [batch])

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedItems:
        """See :class:`ItemEncoder`."""
        return encode_images(self.model, [normalised(torch.from_numpy(pixels))])


class OnnxEncoder:
    """An exported model as an :class:`ItemEncoder`.

    Args:
        retriever: The exported model.
    """

    as_original = False
    """``xmr export onnx`` refuses models that decode as the published code does."""

    def __init__(self, retriever: OnnxRetriever) -> None:
        self.retriever = retriever

    @property
    def fingerprint(self) -> str:
        """See :class:`ItemEncoder`."""
        return self.retriever.manifest.model

    @property
    def dim(self) -> int:
        """See :class:`ItemEncoder`."""
        return self.retriever.manifest.dim

    @property
    def image_size(self) -> int:
        """See :class:`ItemEncoder`."""
        return self.retriever.manifest.image_size

    @property
    def titles(self) -> TitleEncoder:
        """See :class:`ItemEncoder`."""
        return self.retriever.titles

    def encode_titles(self, titles: Sequence[str]) -> EncodedItems:
        """See :class:`ItemEncoder`."""
        return _as_tensors(*self.retriever.run_texts(titles))

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedItems:
        """See :class:`ItemEncoder`."""
        return _as_tensors(*self.retriever.run_images(pixels))


AnyEncoder: TypeAlias = "RetrievalModel | ItemEncoder"


def encoder_of(model: AnyEncoder) -> ItemEncoder:
    """Return a model as an :class:`ItemEncoder`; an encoder is returned unchanged."""
    if isinstance(model, torch.nn.Module):
        return ModelEncoder(model)
    return model


def _as_tensors(vectors: Vectors, cls: NDArray[np.float32]) -> EncodedItems:
    values, offsets = torch.from_numpy(vectors.values), torch.from_numpy(vectors.offsets)
    return EncodedItems(MultiVectors(values, offsets), torch.from_numpy(cls))
