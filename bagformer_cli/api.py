"""The Python interface: load a model folder, encode, score, explain.

>>> from bagformer_cli import load
>>> retriever = load("runs/demo/best")                      # doctest: +SKIP
>>> images = retriever.encode_images(["a.jpg"])             # doctest: +SKIP
>>> titles = retriever.encode_texts(["红色碎花连衣裙"])        # doctest: +SKIP
>>> retriever.score(images, titles).t2i                     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bagformer_cli.calibration import Calibration, usable_calibration
from bagformer_cli.config.scoring import EACH, Scoring
from bagformer_cli.data.batches import TextBatch, pixels_of
from bagformer_cli.data.images import decode
from bagformer_cli.inputs import Images, image_list, one_title, require_vectors, title_list
from bagformer_cli.machine import choose_device
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.encode import encode_images, encode_texts
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.models.runs import find_checkpoint
from bagformer_cli.models.score_explanation import ScoreExplanation, explain_score
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.progress import LOGGED, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.segmenter import Bag
from bagformer_cli.vectors.multi_vectors import MultiVectors

_BATCH = 64


@dataclass(frozen=True)
class Scores:
    """Late-interaction scores in both directions, as the model ranks by them.

    Attributes:
        t2i: [titles, images]: sum over a title's vectors of the best dot product in the image. It
            grows with the title's length.
        i2t: [images, titles]: sum over an image's vectors of the best dot product in the title.
        title_vectors: [titles], number of vectors of each title.
        image_vectors: [images], number of vectors of each image.
        scoring: How the model scores. With another ``pooling`` than ``each``, both directions have
            one score, and ``t2i`` and ``i2t`` are what it says (``config/scoring.py``).
    """

    t2i: Tensor
    i2t: Tensor
    title_vectors: Tensor
    image_vectors: Tensor
    scoring: Scoring = EACH

    @property
    def t2i_mean(self) -> Tensor:
        """[titles, images]: mean best cosine of the vectors that ``t2i`` adds, from -1 to 1.

        Unlike the sum ``t2i``, it can be compared between titles of different lengths.
        """
        titles, images = self.title_vectors.clamp(min=1), self.image_vectors.clamp(min=1)
        rule = self.scoring.rule(False, True)
        means: Tensor = rule.mean_scores(self.t2i, titles[:, None], images[None])
        return means

    @property
    def i2t_mean(self) -> Tensor:
        """[images, titles]: mean best cosine of the vectors that ``i2t`` adds, from -1 to 1."""
        titles, images = self.title_vectors.clamp(min=1), self.image_vectors.clamp(min=1)
        rule = self.scoring.rule(True, False)
        means: Tensor = rule.mean_scores(self.i2t, images[:, None], titles[None])
        return means


class Retriever:
    """A loaded model that encodes and scores images and titles.

    Args:
        model: The model; :func:`load` reads one from a folder.
        folder: Its folder, which may hold a calibration; None: it has none.
    """

    def __init__(self, model: RetrievalModel, folder: Path | None = None) -> None:
        self.model = model
        self.folder = folder

    @property
    def titles(self) -> TitleEncoder:
        """Turns titles into tokens and bags."""
        return self.model.titles

    @property
    def scoring(self) -> Scoring:
        """The sum by which the model scores a title and an image."""
        return Scoring.of(self.model.config)

    def encode_images(self, images: Images | Iterable[Any]) -> MultiVectors:
        """Encode images to vectors.

        Args:
            images: Opened images, paths, or contents of image files: one, or a list, array,
                series or generator of them.

        Raises:
            InputError: An image is missing, cannot be decoded or is something else; the message
                names it or its position, from 1.
        """
        items = image_list(images)
        size = self.model.config.image.size
        batches = (
            torch.stack([pixels_of(self._decode(image), size) for image in items[i : i + _BATCH]])
            for i in range(0, len(items), _BATCH)
        )
        return encode_images(self.model, batches).vectors

    def _decode(self, image: Images) -> Image.Image:
        return decode(image, as_original=self.model.as_original)

    def encode_texts(self, titles: str | Iterable[str]) -> MultiVectors:
        """Encode titles or queries to vectors.

        Args:
            titles: One title, or a list, array, series or generator of titles.

        Raises:
            InputError: A title is empty or no text; the message names its position, from 1.
        """
        texts = title_list(titles)
        pad_id = self.model.titles.tokenizer.pad_id
        batches = (
            TextBatch.from_tokens(self.model.titles(texts[i : i + _BATCH]), pad_id)
            for i in range(0, len(texts), _BATCH)
        )
        return encode_texts(self.model, batches).vectors

    def score(self, images: MultiVectors, titles: MultiVectors) -> Scores:
        """Score all images against all titles in both directions, as the model ranks by.

        Args:
            images: From :meth:`encode_images`.
            titles: From :meth:`encode_texts`.

        Raises:
            InputError: One of them is something else.
        """
        require_vectors(images, MultiVectors, "images", "encode_images")
        require_vectors(titles, MultiVectors, "titles", "encode_texts")
        with torch.inference_mode():
            t2i, i2t = pooled_maxsim(titles, images, self.scoring)
        return Scores(t2i, i2t, titles.lengths, images.lengths, self.scoring)

    def calibration(self, progress: Progress = LOGGED) -> Calibration | None:
        """Read the curves from mean scores to probabilities; None: no calibration fits this model.

        >>> calibration = retriever.calibration()                       # doctest: +SKIP
        >>> curve = calibration.curves["text_to_image"]                 # doctest: +SKIP
        >>> curve.probability(scores.t2i_mean)                          # doctest: +SKIP

        Args:
            progress: Receives the warning that the folder's calibration is of another model.

        Raises:
            CheckpointError: The file is damaged.
        """
        if self.folder is None:
            return None
        model = self.model
        return usable_calibration(
            self.folder, lambda: fingerprint(model), self.scoring, progress=progress
        )

    def explain(self, image: Images, titles: str | Iterable[str]) -> list[ScoreExplanation]:
        """Explain the scores of an image and some titles: which bag fits which patch best.

        Raises:
            InputError: As :meth:`encode_images` and :meth:`encode_texts`; or the model reads
                regions, which have no grid.
        """
        (image_vectors,) = self.encode_images([image])
        texts = title_list(titles)
        return [
            explain_score(self.model, title, text_vectors, image_vectors)
            for title, text_vectors in zip(texts, self.encode_texts(texts), strict=True)
        ]

    def bags(self, title: str) -> list[Bag]:
        """Segment a title into the entity bags that its score is computed from.

        Raises:
            InputError: It is no text.
        """
        return self.model.titles.bags(one_title(title))

    def ignored_end(self, title: str) -> str:
        """Return the end of a title that is cut off, because it exceeds ``max_tokens``."""
        bags = self.bags(title)
        return title[bags[-1].end :].strip() if bags else ""


def load(
    checkpoint: str | Path | None = None,
    device: str | None = None,
    progress: Progress = LOGGED,
) -> Retriever:
    """Load a model folder.

    Args:
        checkpoint: A model folder or run folder; None: the newest run under ``runs/``.
        device: ``"cpu"``, ``"cuda"`` …; None: a GPU if there is one.
        progress: Receives the name of the run if ``checkpoint`` is None. Default: Python's log.

    Raises:
        CheckpointError: The folder does not exist, or it is broken.
        InputError: This machine has no such device.
    """
    device = choose_device(device)
    folder = find_checkpoint(checkpoint, progress=progress)
    return Retriever(load_model(folder, device), folder)
