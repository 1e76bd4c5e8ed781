"""MaxSim with gradients where even the places of the maxima are too many to keep.

Titles are taken in ranges; of each only the scores stay, and the backward pass finds its maxima
again. Twice the forward work for a bound on memory, whatever Q and N. Shapes: Q titles of G bags in
all, N images of P patches in all, D dimensions.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor


def places_bytes(bag_offsets: Tensor, patch_offsets: Tensor) -> int:
    """Bytes of the places of all maxima: int32 [G, N] and [Q, P]."""
    titles, images = len(bag_offsets) - 1, len(patch_offsets) - 1
    return 4 * (int(bag_offsets[-1]) * images + titles * int(patch_offsets[-1]))


def forward(
    path: ModuleType,
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    *,
    budget: int,
    keep: int,
) -> tuple[Tensor, Tensor]:
    """``t2i`` [Q, N] and ``i2t`` [N, Q]; at most ``keep`` bytes of places at a time."""
    titles, images = len(bag_offsets) - 1, len(patch_offsets) - 1
    t2i, i2t = bags.new_empty(titles, images), bags.new_empty(images, titles)
    for first, end in _ranges(bag_offsets, patch_offsets, keep):
        own, offsets = _range(bags, bag_offsets, first, end)
        down, up, _, _ = path.forward(own, patches, offsets, patch_offsets, budget=budget)
        t2i[first:end], i2t[:, first:end] = down, up
    return t2i, i2t


def backward(
    path: ModuleType,
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    grad_t2i: Tensor,
    grad_i2t: Tensor,
    *,
    budget: int,
    keep: int,
) -> tuple[Tensor, Tensor]:
    """Gradients [G, D] and [P, D]."""
    grad_bags, grad_patches = torch.empty_like(bags), torch.zeros_like(patches)
    for first, end in _ranges(bag_offsets, patch_offsets, keep):
        own, offsets = _range(bags, bag_offsets, first, end)
        _, _, met_patch, met_bag = path.forward(own, patches, offsets, patch_offsets, budget=budget)
        mine, theirs = path.backward(
            own,
            patches,
            offsets,
            patch_offsets,
            met_patch,
            met_bag,
            grad_t2i[first:end].contiguous(),
            grad_i2t[:, first:end].contiguous(),
            budget=budget,
        )
        grad_bags[int(bag_offsets[first]) : int(bag_offsets[end])] = mine
        grad_patches += theirs
    return grad_bags, grad_patches


def _ranges(bag_offsets: Tensor, patch_offsets: Tensor, keep: int) -> list[tuple[int, int]]:
    """Equal ranges of titles whose places fit ``keep``, or single titles."""
    titles = len(bag_offsets) - 1
    blocks = min(titles, -(-places_bytes(bag_offsets, patch_offsets) // keep))
    size = -(-titles // max(1, blocks))
    return [(first, min(first + size, titles)) for first in range(0, titles, size)]


def _range(bags: Tensor, bag_offsets: Tensor, first: int, end: int) -> tuple[Tensor, Tensor]:
    offsets = bag_offsets[first : end + 1]
    return bags[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0]
