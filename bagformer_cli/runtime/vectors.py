"""Late interaction in numpy: the counterpart of ``interaction/maxsim.py``, which needs torch.

Shapes: n items, N vectors in all, D dimensions; Q titles with G bags in all, P vectors of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.config.scoring import EACH, Scoring
from bagformer_cli.vectors.arrays import Vectors

BLOCK = 1 << 24
"""Dot products that are held at a time (64 MB). The scores do not depend on it."""


@dataclass(frozen=True)
class Scores:
    """Late-interaction scores in both directions, as the model ranks by them.

    Attributes:
        t2i: [titles, images]: sum over a title's vectors of the best dot product in the image,
            unless ``scoring`` says otherwise.
        i2t: [images, titles]: sum over an image's vectors of the best dot product in the title,
            unless ``scoring`` says otherwise.
        title_vectors: [titles], number of vectors of each title.
        image_vectors: [images], number of vectors of each image.
        scoring: How the model scores; see ``config/scoring.py``.
    """

    t2i: NDArray[np.float32]
    i2t: NDArray[np.float32]
    title_vectors: NDArray[np.int64]
    image_vectors: NDArray[np.int64]
    scoring: Scoring = EACH

    @property
    def t2i_mean(self) -> NDArray[np.float32]:
        """[titles, images]: mean best cosine of the vectors that ``t2i`` adds, from -1 to 1."""
        counts = self.title_vectors[:, None], self.image_vectors[None]
        means = self.scoring.rule(False, True).mean_scores(self.t2i, *counts)
        return np.asarray(means, np.float32)

    @property
    def i2t_mean(self) -> NDArray[np.float32]:
        """[images, titles]: mean best cosine of the vectors that ``i2t`` adds, from -1 to 1."""
        counts = self.image_vectors[:, None], self.title_vectors[None]
        means = self.scoring.rule(True, False).mean_scores(self.i2t, *counts)
        return np.asarray(means, np.float32)


def maxsim(texts: Vectors, images: Vectors, scoring: Scoring = EACH) -> Scores:
    """Score every title against every image in both directions.

    ``t2i[q, n] = Σ_b max_p b·p`` and ``i2t[n, q] = Σ_p max_b b·p``, as ``interaction.maxsim``; or
    as ``scoring`` says.

    >>> texts = Vectors(np.eye(2, dtype=np.float32), np.array([0, 2]))
    >>> image = np.array([[0.9, 0.3], [0.1, 0.4], [0.2, 0.5]], np.float32)
    >>> found = maxsim(texts, Vectors(image, np.array([0, 3])))
    >>> found.t2i.round(4).tolist(), found.i2t.round(4).tolist()
    ([[1.399999976158142]], [[1.7999999523162842]])
    """
    by_title = np.zeros((len(texts), len(images)), np.float32)
    by_image = np.zeros((len(images), len(texts)), np.float32)
    forward, backward = scoring.rule(False, True), scoring.rule(True, False)
    if forward.is_mean:
        t2i = mean_vectors(texts) @ mean_vectors(images).T
        return Scores(t2i, t2i.T, texts.lengths, images.lengths, scoring)
    for first, end in blocks(images.offsets, max(1, BLOCK // max(1, len(texts.values)))):
        rows = slice(images.offsets[first], images.offsets[end])
        starts = images.offsets[first:end] - images.offsets[first]
        products = texts.values @ images.values[rows].T  # [G, vectors of the block]
        # Maximum over the vectors of each image, then sum over the bags of each title.
        best = np.maximum.reduceat(products, starts, axis=1)
        by_title[:, first:end] = np.add.reduceat(best, texts.offsets[:-1], axis=0)
        # Maximum over the bags of each title, then sum over the vectors of each image.
        best = np.maximum.reduceat(products, texts.offsets[:-1], axis=0)
        by_image[first:end] = np.add.reduceat(best, starts, axis=1).T
    counts = [np.maximum(side.lengths, 1).astype(np.float32)[:, None] for side in (texts, images)]
    t2i = forward.combine(by_title, by_image.T, counts[0], counts[1].T)
    i2t = backward.combine(by_image, by_title.T, counts[1], counts[0].T)
    return Scores(t2i, i2t, texts.lengths, images.lengths, scoring)


def mean_vectors(items: Vectors) -> NDArray[np.float32]:
    """Return the mean of each item's float32 values, not scaled: [n, D]; zeros without vectors."""
    means = np.zeros((len(items), items.values.shape[1]), np.float32)
    some = items.lengths > 0
    if some.any():
        sums = np.add.reduceat(items.values, items.offsets[:-1][some], axis=0, dtype=np.float32)
        means[some] = sums / items.lengths[some, None]
    return means


def blocks(offsets: NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of items with at most ``limit`` vectors together, or of one item."""
    first, count = 0, len(offsets) - 1
    while first < count:
        end = int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1
        end = min(count, max(first + 1, end))
        yield first, end
        first = end
