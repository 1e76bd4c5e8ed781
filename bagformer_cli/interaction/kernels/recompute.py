"""MaxSim with gradients when the argmax is too large to keep for the backward pass.

The forward pass keeps the scores only. The backward pass goes through the titles in ranges; for
each range it computes the argmax again, uses it and drops it::

    forward:   titles 0–9 -> scores | titles 10–19 -> scores | ...
    backward:  titles 0–9 -> argmax -> gradients | titles 10–19 -> argmax -> gradients | ...

This doubles the work of the forward pass and bounds the memory, whatever Q and N are. Shapes: Q
titles of G bags in total, N images of P patches in total, D dimensions.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads


def argmax_bytes(path: ModuleType, bag_offsets: Tensor, patch_offsets: Tensor) -> int:
    """Return the size of the argmax of all maxima, [G, N] patches and [Q, P] bags."""
    titles, images = len(bag_offsets) - 1, len(patch_offsets) - 1
    patch, bag = path.ARGMAX_BYTES
    return int(patch * int(bag_offsets[-1]) * images + bag * titles * int(patch_offsets[-1]))


def forward(path: ModuleType, vectors: Packed, *, budget: int, limit: int) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` [Q, N] and ``i2t`` [N, Q].

    Args:
        path: Module with ``forward`` and ``backward``, for example ``kernels.reference``.
        vectors: Titles and images.
        budget: Bytes that temporaries may take.
        limit: Bytes that the argmax of one range of titles may take.
    """
    titles, images = len(vectors.bag_offsets) - 1, len(vectors.patch_offsets) - 1
    t2i = vectors.bags.new_empty(titles, images, dtype=torch.float32)
    i2t = vectors.bags.new_empty(images, titles, dtype=torch.float32)
    for first, end in _title_ranges(path, vectors, limit):
        part = _titles(vectors, first, end)
        t2i[first:end], i2t[:, first:end], _ = path.forward(part, budget=budget)
    return t2i, i2t


def backward(
    path: ModuleType, vectors: Packed, grads: ScoreGrads, *, budget: int, limit: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradients [G, D] and [P, D]; arguments as in :func:`forward`."""
    grad_bags = torch.empty_like(vectors.bags, dtype=torch.float32)
    grad_patches = torch.zeros_like(vectors.patches, dtype=torch.float32)
    for first, end in _title_ranges(path, vectors, limit):
        part = _titles(vectors, first, end)
        argmax = path.forward(part, budget=budget)[2]
        own = ScoreGrads(grads.t2i[first:end].contiguous(), grads.i2t[:, first:end].contiguous())
        start, stop = int(vectors.bag_offsets[first]), int(vectors.bag_offsets[end])
        # A bag belongs to one range; a patch gets gradients from every range.
        grad_bags[start:stop], more = path.backward(part, argmax, own, budget=budget)
        grad_patches += more
    return grad_bags, grad_patches


def _title_ranges(path: ModuleType, vectors: Packed, limit: int) -> list[tuple[int, int]]:
    """Cut the titles into equal ranges with an argmax of at most ``limit`` bytes each.

    A single title is a range even where its argmax is larger.
    """
    titles = len(vectors.bag_offsets) - 1
    size = argmax_bytes(path, vectors.bag_offsets, vectors.patch_offsets)
    count = min(titles, -(-size // limit))
    step = -(-titles // max(1, count))
    return [(first, min(first + step, titles)) for first in range(0, titles, step)]


def _titles(vectors: Packed, first: int, end: int) -> Packed:
    """Return the same images with the titles from ``first`` to ``end`` only."""
    offsets = vectors.bag_offsets[first : end + 1]
    own = vectors.bags[int(offsets[0]) : int(offsets[-1])]
    return vectors._replace(bags=own, bag_offsets=offsets - offsets[0])
