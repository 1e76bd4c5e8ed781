"""Late interaction in numpy: the counterpart of ``interaction/maxsim.py``, which needs torch.

Shapes: n items, N vectors in all, D dimensions; Q titles with G bags in all, P vectors of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.vectors.arrays import Vectors

BLOCK = 1 << 24
"""Dot products that are held at a time (64 MB). The scores do not depend on it."""


@dataclass(frozen=True)
class Scores:
    """Late-interaction scores in both directions.

    Attributes:
        t2i: [titles, images]: sum over a title's vectors of the best dot product in the image.
        i2t: [images, titles]: sum over an image's vectors of the best dot product in the title.
        title_vectors: [titles], number of vectors of each title.
        image_vectors: [images], number of vectors of each image.
    """

    t2i: NDArray[np.float32]
    i2t: NDArray[np.float32]
    title_vectors: NDArray[np.int64]
    image_vectors: NDArray[np.int64]

    @property
    def t2i_mean(self) -> NDArray[np.float32]:
        """[titles, images]: mean best cosine of a title's vectors, from -1 to 1."""
        return (self.t2i / self.title_vectors[:, None]).astype(np.float32)

    @property
    def i2t_mean(self) -> NDArray[np.float32]:
        """[images, titles]: mean best cosine of an image's vectors, from -1 to 1."""
        return (self.i2t / self.image_vectors[:, None]).astype(np.float32)


def maxsim(texts: Vectors, images: Vectors) -> Scores:
    """Score every title against every image in both directions.

    ``t2i[q, n] = Σ_b max_p b·p`` and ``i2t[n, q] = Σ_p max_b b·p``, as ``interaction.maxsim``.

    >>> texts = Vectors(np.eye(2, dtype=np.float32), np.array([0, 2]))
    >>> image = np.array([[0.9, 0.3], [0.1, 0.4], [0.2, 0.5]], np.float32)
    >>> found = maxsim(texts, Vectors(image, np.array([0, 3])))
    >>> found.t2i.round(4).tolist(), found.i2t.round(4).tolist()
    ([[1.399999976158142]], [[1.7999999523162842]])
    """
    t2i = np.zeros((len(texts), len(images)), np.float32)
    i2t = np.zeros((len(images), len(texts)), np.float32)
    for first, end in blocks(images.offsets, max(1, BLOCK // max(1, len(texts.values)))):
        rows = slice(images.offsets[first], images.offsets[end])
        starts = images.offsets[first:end] - images.offsets[first]
        products = texts.values @ images.values[rows].T  # [G, vectors of the block]
        # Maximum over the vectors of each image, then sum over the bags of each title.
        best = np.maximum.reduceat(products, starts, axis=1)
        t2i[:, first:end] = np.add.reduceat(best, texts.offsets[:-1], axis=0)
        # Maximum over the bags of each title, then sum over the vectors of each image.
        best = np.maximum.reduceat(products, texts.offsets[:-1], axis=0)
        i2t[first:end] = np.add.reduceat(best, starts, axis=1).T
    return Scores(t2i, i2t, texts.lengths, images.lengths)


def blocks(offsets: NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of items with at most ``limit`` vectors together, or of one item."""
    first, count = 0, len(offsets) - 1
    while first < count:
        end = int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1
        end = min(count, max(first + 1, end))
        yield first, end
        first = end
