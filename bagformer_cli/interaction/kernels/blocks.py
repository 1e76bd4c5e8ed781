"""Ranges of items: how packed vectors are cut into blocks of bounded size.

``offsets`` [n+1] of packed vectors says where each item begins. :func:`cut` groups consecutive
items so that a group owns at most ``limit`` vectors::

    offsets   0     3     5           9   11        limit 5
    items     |  0  |  1  |     2     | 3 |
    ranges    [ items 0, 1 ][ item 2  ][3 ]         -> (0, 2), (2, 3), (3, 4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.vectors.multi_vectors import MultiVectors

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive items and the vectors they own.

    Attributes:
        first: Position of the first item.
        end: One past the position of the last item.
        start: Row of the first vector.
        stop: One past the row of the last vector.
        offsets: [end - first + 1] int64, where each item begins, counted from ``start``.
    """

    first: int
    end: int
    start: int
    stop: int
    offsets: Array

    @classmethod
    def from_cuts(cls, offsets: Tensor, cuts: list[tuple[int, int]]) -> list[Range]:
        """Make one range per ``(first, end)`` of ``cuts``; ``offsets`` are those of all items."""
        rows = offsets.numpy()
        return [cls(a, b, int(rows[a]), int(rows[b]), rows[a : b + 1] - rows[a]) for a, b in cuts]

    @property
    def items(self) -> slice:
        """Select the range's items among all items."""
        return slice(self.first, self.end)

    @property
    def vectors(self) -> slice:
        """Select the range's vectors among all vectors."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        """Count the vectors."""
        return self.stop - self.start


def block_of(images: MultiVectors, image: Range, dtype: torch.dtype) -> tuple[Tensor, Array]:
    """Return a range's vectors as ``dtype`` and its scales [n].

    Vectors that are stored as ``dtype`` are returned as a view, without building a
    ``MultiVectors``: this runs once per block of a scan.
    """
    if images.dtype != dtype:
        block = images[image.items].to(dtype=dtype)
        return block.values.detach(), scales_of(block)
    if images.scales is None:
        scales: Array = np.ones(image.end - image.first, np.float32)
    else:
        scales = images.scales[image.items].numpy()
    return images.values.detach()[image.vectors], scales


def scales_of(vectors: MultiVectors) -> Array:
    """Return the factor [n] float32 of each item's integers; ones for floating types."""
    if vectors.scales is None:
        return np.ones(len(vectors), np.float32)
    scales: Array = vectors.scales.numpy()
    return scales


def cut(offsets: Tensor, limit: int) -> list[tuple[int, int]]:
    """Cut items into ranges of at most ``limit`` vectors; an item with more is a range alone.

    Args:
        offsets: [n+1] int64 on the CPU.
        limit: Largest number of vectors in a range, at least 1.

    Returns:
        ``(first, end)`` of each range, in order, covering all items.

    Example:
        >>> cut(torch.tensor([0, 3, 5, 9, 11]), 5)
        [(0, 2), (2, 3), (3, 4)]
    """
    ends = offsets.numpy()
    ranges = []
    first = 0
    while first < len(ends) - 1:
        end = int(np.searchsorted(ends, ends[first] + limit, side="right")) - 1
        end = max(end, first + 1)
        ranges.append((first, end))
        first = end
    return ranges


def cut_evenly(offsets: Tensor, limit: int, parts: int = 1) -> list[tuple[int, int]]:
    """Cut as :func:`cut` does, into about equal ranges, at least ``parts`` of them if possible."""
    total = int(offsets[-1])
    wanted = max(parts, -(-total // limit))
    longest = int(offsets.diff().max()) if len(offsets) > 1 else 1
    # A range ends with the last item that fits. Without the longest item's length on top, each
    # range would stay below the mean and a small range would remain at the end.
    return cut(offsets, min(limit, max(1, -(-total // wanted) + longest - 1)))
