"""Encoders of titles and images: a loaded model, or an exported one.

:class:`ModelEncoder` runs a loaded model in torch, :class:`OnnxEncoder` an exported one in
onnxruntime. Both return numpy arrays. Importing this module does not import torch, which takes
longer than a search.

Shapes: n items, D dimensions, S side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.config.scoring import Scoring
from bagformer_cli.models.trained import trained_scorers
from bagformer_cli.runtime.retriever import OnnxRetriever, no_cross_encoder
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.vectors.arrays import EncodedArrays

if TYPE_CHECKING:
    from bagformer_cli.models.build import RetrievalModel
    from bagformer_cli.models.encode import EncodedItems

CPU_PIXELS = 300_000
"""Pixels of a forward pass on a CPU.

Larger passes are slower: their activations leave the caches, and the system maps and clears the
memory of each layer again. 64 images of 260 pixels take 5.9 CPU seconds in one pass of
EfficientNet-Lite2, 2.7 in passes of 4.
"""


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

    @property
    def single_vector(self) -> Literal["cls", "mean"]:
        """Single vector of an item: the class token's if it was trained, else the mean of all."""

    @property
    def beta(self) -> float:
        """Default weight of the late interaction in a merged score."""

    @property
    def merge(self) -> Literal["sum", "mean"]:
        """Late interaction in a merged score: a sum over the query's vectors, or their mean."""

    @property
    def scoring(self) -> Scoring:
        """The sum by which the model scores a title and an image."""

    def require_reranking(self) -> None:
        """Check that the model has a trained cross-encoder.

        Raises:
            CheckpointError: It has none.
        """

    def encode_titles(self, titles: Sequence[str]) -> EncodedArrays:
        """Encode one batch of titles that are not empty."""

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedArrays:
        """Encode one batch of resized images [n, S, S, 3] uint8."""

    def score_pairs(self, titles: Sequence[str], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score pairs with the cross-encoder: [n], higher for a better match.

        Args:
            titles: n titles that are not empty, or one that is compared with all images.
            pixels: [n, S, S, 3] resized images, or one that is compared with all titles.
        """


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
        from bagformer_cli.models.fingerprint import fingerprint

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

    def encode_titles(self, titles: Sequence[str]) -> EncodedArrays:
        """See :class:`ItemEncoder`."""
        from bagformer_cli.data.batches import TextBatch
        from bagformer_cli.models.encode import encode_texts

        tokens = self.model.titles(list(titles))
        batch = TextBatch.from_tokens(tokens, self.model.titles.tokenizer.pad_id)
        return _arrays(encode_texts(self.model, [batch]))

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedArrays:
        """See :class:`ItemEncoder`."""
        import torch

        from bagformer_cli.data.batches import normalised
        from bagformer_cli.models.encode import encode_images

        images = torch.from_numpy(pixels)
        if self.model.device.type == "cpu":
            parts = torch.split(images, max(1, CPU_PIXELS // self.image_size**2))
        else:
            parts = (images,)
        return _arrays(encode_images(self.model, map(normalised, parts)))

    @property
    def single_vector(self) -> Literal["cls", "mean"]:
        """See :class:`ItemEncoder`."""
        return "cls" if "cls" in self.model.trained else "mean"

    @property
    def beta(self) -> float:
        """See :class:`ItemEncoder`."""
        return self.model.config.evaluation.beta

    @property
    def merge(self) -> Literal["sum", "mean"]:
        """See :class:`ItemEncoder`."""
        return self.model.config.evaluation.merge

    @property
    def scoring(self) -> Scoring:
        """See :class:`ItemEncoder`."""
        return Scoring.of(self.model.config)

    def require_reranking(self) -> None:
        """See :class:`ItemEncoder`."""
        from bagformer_cli.models.build import require_cross_encoder

        require_cross_encoder(self.model)

    def score_pairs(self, titles: Sequence[str], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`ItemEncoder`."""
        from bagformer_cli.models.score_pairs import score_pairs

        return score_pairs(self.model, titles, pixels)


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

    def encode_titles(self, titles: Sequence[str]) -> EncodedArrays:
        """See :class:`ItemEncoder`."""
        return self.retriever.run_texts(titles)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> EncodedArrays:
        """See :class:`ItemEncoder`."""
        return self.retriever.run_images(pixels)

    @property
    def single_vector(self) -> Literal["cls", "mean"]:
        """See :class:`ItemEncoder`."""
        return "cls" if "cls" in trained_scorers(self.retriever.config) else "mean"

    @property
    def beta(self) -> float:
        """See :class:`ItemEncoder`."""
        return self.retriever.config.evaluation.beta

    @property
    def merge(self) -> Literal["sum", "mean"]:
        """See :class:`ItemEncoder`."""
        return self.retriever.config.evaluation.merge

    @property
    def scoring(self) -> Scoring:
        """See :class:`ItemEncoder`."""
        return self.retriever.scoring

    def require_reranking(self) -> None:
        """See :class:`ItemEncoder`."""
        if not self.retriever.can_rerank:
            raise no_cross_encoder(self.retriever.folder)

    def score_pairs(self, titles: Sequence[str], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See :class:`ItemEncoder`."""
        return self.retriever.run_pairs(titles, pixels)


AnyEncoder: TypeAlias = "RetrievalModel | ItemEncoder"


def encoder_of(model: AnyEncoder) -> ItemEncoder:
    """Return a model as an :class:`ItemEncoder`; an encoder is returned unchanged."""
    if hasattr(model, "encode_titles"):
        return cast(ItemEncoder, model)
    return ModelEncoder(cast("RetrievalModel", model))


def _arrays(items: EncodedItems) -> EncodedArrays:
    return EncodedArrays(items.vectors.arrays(), items.cls.detach().float().cpu().numpy())
