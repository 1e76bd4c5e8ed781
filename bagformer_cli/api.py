"""The Python interface: load a model folder, encode, score, explain.

>>> from bagformer_cli import load
>>> retriever = load("runs/demo/best")                      # doctest: +SKIP
>>> images = retriever.encode_images(["a.jpg"])             # doctest: +SKIP
>>> titles = retriever.encode_texts(["红色碎花连衣裙"])        # doctest: +SKIP
>>> retriever.score(images, titles).t2i                     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.data.batches import TextBatch, pixels_of
from bagformer_cli.data.images import decode
from bagformer_cli.errors import InputError
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.machine import choose_device
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import find_checkpoint, load_model
from bagformer_cli.models.encode import encode_images, encode_texts
from bagformer_cli.models.score_explanation import ScoreExplanation, explain_score
from bagformer_cli.text.segmenter import Bag
from bagformer_cli.vectors.multi_vectors import MultiVectors

_BATCH = 64


@dataclass(frozen=True)
class Scores:
    """Late-interaction scores in both directions.

    Attributes:
        t2i: [titles, images]: sum over a title's vectors of the best dot product in the image. It
            grows with the title's length.
        i2t: [images, titles]: sum over an image's vectors of the best dot product in the title.
        title_vectors: [titles], number of vectors of each title.
        image_vectors: [images], number of vectors of each image.
    """

    t2i: Tensor
    i2t: Tensor
    title_vectors: Tensor
    image_vectors: Tensor

    @property
    def t2i_mean(self) -> Tensor:
        """[titles, images]: mean best cosine of a title's vectors, from -1 to 1.

        Unlike the sum ``t2i``, it can be compared between titles of different lengths.
        """
        return self.t2i / self.title_vectors.clamp(min=1)[:, None]

    @property
    def i2t_mean(self) -> Tensor:
        """[images, titles]: mean best cosine of an image's vectors, from -1 to 1."""
        return self.i2t / self.image_vectors.clamp(min=1)[:, None]


class Retriever:
    """A loaded model that encodes and scores images and titles.

    Args:
        model: The model; :func:`load` reads one from a folder.
    """

    def __init__(self, model: RetrievalModel) -> None:
        self.model = model

    def encode_images(self, images: Sequence[Image.Image | str | Path | bytes]) -> MultiVectors:
        """Encode images to vectors.

        Args:
            images: Opened images, paths, or contents of image files.

        Raises:
            InputError: An image is missing or cannot be decoded; the message names it.
        """
        _require_list(images)
        size = self.model.config.image.size
        batches = (
            torch.stack([pixels_of(self._decode(image), size) for image in images[i : i + _BATCH]])
            for i in range(0, len(images), _BATCH)
        )
        return encode_images(self.model, batches).vectors

    def _decode(self, image: Image.Image | str | Path | bytes) -> Image.Image:
        return decode(image, as_original=self.model.as_original)

    def encode_texts(self, titles: Sequence[str]) -> MultiVectors:
        """Encode titles or queries to vectors.

        Raises:
            InputError: A title is empty.
        """
        _require_list(titles)
        for number, title in enumerate(titles, 1):
            if not title.strip():
                raise InputError(tr("The title is empty."), where=tr("title {n}", n=number))
        pad_id = self.model.titles.tokenizer.pad_id
        batches = (
            TextBatch.from_tokens(self.model.titles(titles[i : i + _BATCH]), pad_id)
            for i in range(0, len(titles), _BATCH)
        )
        return encode_texts(self.model, batches).vectors

    def score(self, images: MultiVectors, titles: MultiVectors) -> Scores:
        """Score all images against all titles by late interaction, in both directions."""
        with torch.inference_mode():
            t2i, i2t = maxsim(titles, images)
        return Scores(t2i, i2t, titles.lengths, images.lengths)

    def explain(
        self, image: Image.Image | str | Path | bytes, titles: Sequence[str]
    ) -> list[ScoreExplanation]:
        """Explain the scores of an image and some titles: which bag fits which patch best.

        Raises:
            InputError: As :meth:`encode_images` and :meth:`encode_texts`; or the model reads
                regions, which have no grid.
        """
        (image_vectors,) = self.encode_images([image])
        return [
            explain_score(self.model, title, text_vectors, image_vectors)
            for title, text_vectors in zip(titles, self.encode_texts(titles), strict=True)
        ]

    def bags(self, title: str) -> list[Bag]:
        """Segment a title into the entity bags that its score is computed from."""
        return self.model.titles.bags(title)

    def ignored_end(self, title: str) -> str:
        """Return the end of a title that is cut off, because it exceeds ``max_tokens``."""
        bags = self.model.titles.bags(title)
        return title[bags[-1].end :].strip() if bags else ""


def load(checkpoint: str | Path | None = None, device: str | None = None) -> Retriever:
    """Load a model folder.

    Args:
        checkpoint: A model folder or run folder; None: the newest run under ``runs/``.
        device: ``"cpu"``, ``"cuda"`` …; None: a GPU if there is one.

    Raises:
        CheckpointError: The folder does not exist, or it is broken.
        InputError: This machine has no such device.
    """
    device = choose_device(device)
    return Retriever(load_model(find_checkpoint(checkpoint), device))


def _require_list(items: object) -> None:
    """Refuse a single item: a string would be read as a list of its characters."""
    if isinstance(items, (str, bytes, Path, Image.Image)):
        raise InputError(
            tr("A list of one or more items is expected."),
            found=type(items).__name__,
            hint=tr("Put it in brackets: [item]"),
        )
