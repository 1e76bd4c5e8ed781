"""Cutting ragged lists into ranges of items, so that one block of dot products fits somewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.vectors.multi_vectors import MultiVectors

Array = np.ndarray[Any, Any]
LANES = 16  # bags side by side in a register of AVX-512


@dataclass(frozen=True, slots=True)
class Range:
    """Some items next to each other, and the vectors they own."""

    first: int
    end: int
    start: int
    stop: int
    offsets: Array  # relative to start

    @classmethod
    def all(cls, offsets: Tensor, cuts: list[tuple[int, int]]) -> list[Range]:
        """One for each cut."""
        found = offsets.numpy()
        return [
            cls(a, b, int(found[a]), int(found[b]), found[a : b + 1] - found[a]) for a, b in cuts
        ]

    @property
    def items(self) -> slice:
        """Where the items are among all."""
        return slice(self.first, self.end)

    @property
    def vectors(self) -> slice:
        """Where their vectors are."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def block_of(images: MultiVectors, image: Range, dtype: torch.dtype) -> tuple[Tensor, Array]:
    """A range's vectors as ``dtype`` and its scales, with as little ado as may be."""
    if images.dtype != dtype:
        block = images[image.items].to(dtype=dtype)
        return block.values.detach(), scales_of(block)
    scales = images.scales
    return images.values.detach()[image.vectors], (
        np.ones(image.end - image.first, np.float32)
        if scales is None
        else scales[image.items].numpy()
    )


def scales_of(vectors: MultiVectors) -> Array:
    """[n] float32: what an item's integers are multiplied by; ones for floats."""
    if vectors.scales is None:
        return np.ones(len(vectors), np.float32)
    scales: Array = vectors.scales.numpy()
    return scales


def cut(offsets: Tensor, limit: int) -> list[tuple[int, int]]:
    """Ranges of items with at most ``limit`` vectors each, or one item that has more.

    Args:
        offsets: [n+1] int64 on the CPU.
        limit: Vectors in a range, at least 1.

    Returns:
        ``(first, end)`` of each range, in order, covering all items.
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
    """As :func:`cut`, in ranges of about equal size, at least ``parts`` of them where possible."""
    total = int(offsets[-1])
    wanted = max(parts, -(-total // limit))
    longest = int(offsets.diff().max()) if len(offsets) > 1 else 1
    # The longest item is added because a range ends with the last item that still fits.
    return cut(offsets, min(limit, max(1, -(-total // wanted) + longest - 1)))
