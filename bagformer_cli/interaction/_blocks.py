"""Cutting ragged lists into ranges of items, so that one block of dot products fits somewhere."""

from __future__ import annotations

import numpy as np
from torch import Tensor


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
