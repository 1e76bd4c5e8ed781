"""MaxSim in plain torch: the reference that every other path must agree with.

It defines the three functions that each path module has: :func:`scores` (no gradients),
:func:`forward` (scores and argmax) and :func:`backward` (gradients from the argmax). It works on
every device and for all values, NaN included; dot products are computed in blocks that fit the
budget.

One block, two titles (3 and 2 bags) × two images (2 and 3 patches)::

                 image 0   image 1
               p0   p1 | p2   p3   p4
    title 0 b0  .    . |  .    .    .     t2i[0, 1] = max over p2..p4 of row b0
            b1  .    . |  .    .    .               + the same of b1 + the same of b2
            b2  .    . |  .    .    .     i2t[1, 0] = max over b0..b2 of column p2
    title 1 b3  .    . |  .    .    .               + the same of p3 + the same of p4
            b4  .    . |  .    .    .

Shapes: Q titles of G bags in total, N images of P patches in total, D dimensions; lower case
letters (g, p, q, n) are the sizes of one block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.vectors.multi_vectors import MultiVectors

# Largest number of bags in a block: a matrix product does not get faster beyond it.
_BLOCK_BAGS = 8192


ARGMAX_BYTES = (4, 4)
"""Bytes of an index of a patch and of a bag in :class:`Argmax`."""


class Packed(NamedTuple):
    """The vectors of both sides, packed.

    Attributes:
        bags: [G, D] float32; for CUDA also bfloat16 or int8.
        patches: [P, D] of the same type.
        bag_offsets: [Q+1] int64, CPU: title ``q`` owns ``bags[bag_offsets[q]:bag_offsets[q+1]]``.
        patch_offsets: [N+1] int64, CPU.
    """

    bags: Tensor
    patches: Tensor
    bag_offsets: Tensor
    patch_offsets: Tensor


class Argmax(NamedTuple):
    """Indices of the maxima: the first of equal ones; 0 for an item without vectors.

    Attributes:
        patch: [G, N] int32, index within image ``n`` of the patch closest to each bag.
        bag: [Q, P] int32, index within title ``q`` of the bag closest to each patch.
    """

    patch: Tensor
    bag: Tensor


class ScoreGrads(NamedTuple):
    """Gradients of the two score matrices: ``t2i`` [Q, N] and ``i2t`` [N, Q]."""

    t2i: Tensor
    i2t: Tensor


def forward(
    vectors: Packed, *, budget: int, keep_argmax: bool = True
) -> tuple[Tensor, Tensor, Argmax]:
    """Compute both directions and, for the backward pass, the argmax.

    Args:
        vectors: Titles and images.
        budget: Bytes that temporaries may take.
        keep_argmax: False: the returned argmax is empty.

    Returns:
        ``t2i`` [Q, N], ``i2t`` [N, Q], argmax.
    """
    bags, patches, bag_offsets, patch_offsets = vectors
    device = bags.device
    Q, N, G, P = len(bag_offsets) - 1, len(patch_offsets) - 1, len(bags), len(patches)
    t2i = torch.zeros(Q, N, device=device)
    i2t = torch.zeros(N, Q, device=device)
    rows, columns = (G, P) if keep_argmax else (0, 0)
    argmax = Argmax(
        torch.zeros(rows, N, dtype=torch.int32, device=device),
        torch.zeros(Q, columns, dtype=torch.int32, device=device),
    )
    for q0, q1 in cut(bag_offsets, _BLOCK_BAGS):
        g0, g1 = int(bag_offsets[q0]), int(bag_offsets[q1])
        title_bags = bag_offsets[q0 : q1 + 1] - g0
        for n0, n1 in _image_ranges(patch_offsets, title_bags, budget):
            p0, p1 = int(patch_offsets[n0]), int(patch_offsets[n1])
            image_patches = patch_offsets[n0 : n1 + 1] - p0
            products = bags[g0:g1] @ patches[p0:p1].T
            best, index = _max_per_item(products, image_patches, keep_argmax)  # [g, n]
            t2i[q0:q1, n0:n1] = _sum_per_item(best, title_bags)
            if index is not None:
                argmax.patch[g0:g1, n0:n1] = index
            best, index = _max_per_item(products.T, title_bags, keep_argmax)  # [p, q]
            i2t[n0:n1, q0:q1] = _sum_per_item(best, image_patches)
            if index is not None:
                argmax.bag[q0:q1, p0:p1] = index.T
    return t2i, i2t, argmax


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` [Q, N] and, if ``both``, ``i2t`` [N, Q] (else [0, 0]).

    Vectors are rounded to ``dtype`` and then multiplied as float32.
    """
    bags = texts.to(dtype=dtype).to(dtype=torch.float32)
    t2i = bags.values.new_empty(len(texts), len(images))
    i2t = bags.values.new_empty(len(images) if both else 0, len(texts) if both else 0)
    for first, end in cut(images.offsets, max(1, budget // (8 * 4 * max(1, images.dim)))):
        block = images[first:end].to(dtype=dtype).to(dtype=torch.float32)
        vectors = Packed(bags.values, block.values, bags.offsets, block.offsets)
        block_t2i, block_i2t, _ = forward(vectors, budget=budget // 2, keep_argmax=False)
        t2i[:, first:end] = block_t2i
        if both:
            i2t[first:end] = block_i2t
    return t2i, i2t


def backward(
    vectors: Packed, argmax: Argmax, grads: ScoreGrads, *, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradients [G, D] of the bags and [P, D] of the patches.

    A maximum passes its gradient to one dot product. These gradients form a sparse matrix W
    [G, P]; the results are W @ patches and Wᵀ @ bags.
    """
    bags, patches, bag_offsets, patch_offsets = vectors
    grad_bags, grad_patches = torch.zeros_like(bags), torch.zeros_like(patches)
    for q0, q1 in cut(bag_offsets, _BLOCK_BAGS):
        g0, g1 = int(bag_offsets[q0]), int(bag_offsets[q1])
        title_bags = bag_offsets[q0 : q1 + 1] - g0
        title = owners(title_bags, bags.device)
        for n0, n1 in _image_ranges(patch_offsets, title_bags, budget):
            p0, p1 = int(patch_offsets[n0]), int(patch_offsets[n1])
            if p1 == p0 or g1 == g0:
                continue
            image_patches = patch_offsets[n0 : n1 + 1] - p0
            image = owners(image_patches, bags.device)
            weights = bags.new_zeros(g1 - g0, p1 - p0)
            # Items without vectors have no maximum; their argmax of 0 would point into another
            # item, so only items with vectors are scattered.
            filled = image_patches.diff().nonzero().flatten().to(bags.device)
            starts = image_patches[:-1].to(bags.device)[filled]
            column = argmax.patch[g0:g1, n0:n1][:, filled].long() + starts
            weights.scatter_(1, column, grads.t2i[q0:q1, n0:n1][title][:, filled])
            filled = title_bags.diff().nonzero().flatten().to(bags.device)
            starts = title_bags[:-1].to(bags.device)[filled]
            row = argmax.bag[q0:q1, p0:p1][filled].long() + starts[:, None]
            weights.scatter_add_(0, row, grads.i2t[n0:n1, q0:q1].T[filled][:, image])
            grad_bags[g0:g1].addmm_(weights, patches[p0:p1])
            grad_patches[p0:p1].addmm_(weights.T, bags[g0:g1])
    return grad_bags, grad_patches


def owners(offsets: Tensor, device: torch.device) -> Tensor:
    """Return the item [N] int64 that owns each vector, from offsets [n+1]."""
    return torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff()).to(device)


def _image_ranges(patch_offsets: Tensor, title_bags: Tensor, budget: int) -> list[tuple[int, int]]:
    """Cut images so that their products with these titles, and two copies, fit the budget."""
    # _max_per_item pads every title to the longest one.
    rows = max(int(title_bags[-1]), (len(title_bags) - 1) * int(title_bags.diff().max()), 1)
    return cut(patch_offsets, max(1, budget // (rows * 4 * 4)))


def _max_per_item(
    products: Tensor, columns: Tensor, keep_argmax: bool
) -> tuple[Tensor, Tensor | None]:
    """Take the maximum over each item's columns: [rows, vectors] -> [rows, n], and its index."""
    lengths = columns.diff()
    longest = int(lengths.max()) if len(lengths) else 0
    rows, n = len(products), len(lengths)
    if longest == 0 or rows == 0:
        empty = products.new_zeros(rows, n)
        return empty, empty.to(torch.int32) if keep_argmax else None
    if bool((lengths == longest).all()):
        dense = products.reshape(rows, n, longest)
    else:
        # A shorter item repeats its last vector: that changes neither maximum nor first index.
        within = torch.minimum(torch.arange(longest), (lengths[:, None] - 1).clamp_min(0))
        index = (columns[:-1, None] + within).clamp_max(products.shape[1] - 1)
        dense = products[:, index.to(products.device)]
    argmax = None
    if keep_argmax:
        best, found = dense.max(2)
        argmax = found.to(torch.int32)
    else:
        best = dense.amax(2)
    if int(lengths.min()) == 0:
        filled = (lengths > 0).to(products.device)
        best = best.where(filled, 0.0)
        argmax = None if argmax is None else argmax.where(filled, 0)
    return best, argmax


def _sum_per_item(best: Tensor, rows: Tensor) -> Tensor:
    """Sum each item's rows: [vectors, n] -> [items, n]."""
    lengths = rows.diff()
    if len(lengths) and bool((lengths == lengths[0]).all()) and int(lengths[0]):
        return best.reshape(len(lengths), int(lengths[0]), -1).sum(1)
    total = best.new_zeros(len(lengths), best.shape[1])
    return total.index_add_(0, owners(rows, best.device), best)
