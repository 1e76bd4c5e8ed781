"""Vectors of many items, end to end, in numpy: what exported models give and indexes store.

The counterpart of ``multi_vectors.py``, for programs that do not import torch.
``MultiVectors.from_arrays`` and ``MultiVectors.arrays`` convert, without copying where possible.

Shapes: n items, N vectors in all, D dimensions, M vectors of an item at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PlainType = Literal["int8", "float16", "float32"]


@dataclass(frozen=True)
class Vectors:
    """Vectors of n items: item ``i`` owns ``values[offsets[i]:offsets[i + 1]]``.

    Args:
        values: [N, D] float32; stored ones also float16, or int8 with ``scales``.
        offsets: [n + 1] int64, from 0 to N, not decreasing.
        scales: [n] float32, for int8 only: item ``i`` stands for ``values * scales[i]``.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]
    scales: NDArray[np.float32] | None = None

    @classmethod
    def from_padded(cls, vectors: NDArray[np.float32], mask: NDArray[np.bool_]) -> Vectors:
        """Take the vectors [n, M, D] where ``mask`` [n, M] is True."""
        return cls(vectors[mask], offsets_of(mask.sum(axis=1)))

    @classmethod
    def concatenate(cls, parts: Sequence[Vectors], dim: int) -> Vectors:
        """Join the items of all parts, of float32; ``dim`` is D, for no parts at all."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        none = np.zeros((0, dim), np.float32)
        return cls(np.concatenate([none, *(part.values for part in parts)]), offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[NDArray[Any]]:
        ends = self.offsets.tolist()
        return (self.values[first:end] for first, end in pairwise(ends))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of vectors of each item, [n]."""
        return np.diff(self.offsets)

    def one(self, number: int) -> Vectors:
        """Return one item of float32 vectors, as a view."""
        values = self.values[self.offsets[number] : self.offsets[number + 1]]
        return Vectors(values, np.array([0, len(values)]))

    def mean(self) -> NDArray[np.float32]:
        """Return the mean vector of each float32 item, scaled to unit length: [n, D].

        An item without vectors gets zeros.

        >>> Vectors(np.eye(2, dtype=np.float32), np.array([0, 2, 2])).mean().round(2).tolist()
        [[0.7099999785423279, 0.7099999785423279], [0.0, 0.0]]
        """
        means = np.zeros((len(self), self.values.shape[1]), np.float32)
        some = self.lengths > 0
        if some.any():
            sums = np.add.reduceat(self.values, self.offsets[:-1][some], axis=0, dtype=np.float32)
            means[some] = sums / self.lengths[some, None]
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        unit: NDArray[np.float32] = means / np.maximum(lengths, np.float32(1e-12))
        return unit

    def stored(self, dtype: PlainType) -> Vectors:
        """Convert float32 vectors to the type in which an index stores them.

        int8 has one symmetric scale per item: its largest magnitude becomes 127.
        """
        if dtype != "int8":
            return Vectors(self.values.astype(dtype, copy=False), self.offsets)
        largest = np.zeros(len(self), np.float32)
        some = self.lengths > 0
        if some.any():
            rows = np.abs(self.values).max(axis=1, initial=0)
            largest[some] = np.maximum.reduceat(rows, self.offsets[:-1][some])
        scales = largest / np.float32(127)
        steps = np.maximum(np.repeat(scales, self.lengths), np.finfo(np.float32).tiny)[:, None]
        values = np.clip(np.rint(self.values / steps), -127, 127).astype(np.int8)
        return Vectors(values, self.offsets, scales)


class EncodedArrays(NamedTuple):
    """Encoded items, in numpy.

    Attributes:
        vectors: The vectors that items are retrieved by, float32.
        cls: [n, D] unit vectors, one per item, for a single-vector first stage.
    """

    vectors: Vectors
    cls: NDArray[np.float32]

    def single(self, kind: Literal["cls", "mean"]) -> NDArray[np.float32]:
        """Return one unit vector per item, [n, D]: the class token's, or the mean of all."""
        return self.cls if kind == "cls" else self.vectors.mean()


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return the offsets [n + 1] of consecutive items with these lengths [n].

    >>> offsets_of(np.array([3, 2, 0, 4])).tolist()
    [0, 3, 5, 5, 9]
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
