"""MaxSim in plain torch: any device, any values, NaN included. The oracle of the fast paths.

Blocks of dot products are held within the budget. Shapes: Q titles of G bags in all, N images of
P patches in all, D dimensions; [g, n] and [q, p] stand for one block of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.vectors.multi_vectors import MultiVectors

# Most bags in one block: beyond it a matrix product gains nothing from being larger.
_BAGS = 8192


def forward(
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    *,
    budget: int,
    keep_places: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both directions, and where each maximum was.

    Args:
        bags: [G, D] float32.
        patches: [P, D] float32.
        bag_offsets: [Q+1] int64, CPU.
        patch_offsets: [N+1] int64, CPU.
        budget: Bytes that temporaries may take.
        keep_places: Whether to find the places.

    Returns:
        ``t2i`` [Q, N]; ``i2t`` [N, Q]; ``arg_patch`` [G, N] int32, the place in its image of
        the patch that each bag met; ``arg_bag`` [Q, P] int32, the place in its title of the bag
        that each patch met. The first of equals; 0 where there is none. Without ``keep_places``
        the last two are empty.
    """
    device = bags.device
    Q, N, G, P = len(bag_offsets) - 1, len(patch_offsets) - 1, len(bags), len(patches)
    t2i = torch.zeros(Q, N, device=device)
    i2t = torch.zeros(N, Q, device=device)
    rows, columns = (G, P) if keep_places else (0, 0)
    arg_patch = torch.zeros(rows, N, dtype=torch.int32, device=device)
    arg_bag = torch.zeros(Q, columns, dtype=torch.int32, device=device)
    for q0, q1 in cut(bag_offsets, _BAGS):
        g0, g1 = int(bag_offsets[q0]), int(bag_offsets[q1])
        title_bags = bag_offsets[q0 : q1 + 1] - g0
        for n0, n1 in _image_ranges(patch_offsets, title_bags, budget):
            p0, p1 = int(patch_offsets[n0]), int(patch_offsets[n1])
            image_patches = patch_offsets[n0 : n1 + 1] - p0
            products = bags[g0:g1] @ patches[p0:p1].T
            best, where = _best(products, image_patches, keep_places)  # [g, n]
            t2i[q0:q1, n0:n1] = _sum(best, title_bags)
            if where is not None:
                arg_patch[g0:g1, n0:n1] = where
            best, where = _best(products.T, title_bags, keep_places)  # [p, q]
            i2t[n0:n1, q0:q1] = _sum(best, image_patches)
            if where is not None:
                arg_bag[q0:q1, p0:p1] = where.T
    return t2i, i2t, arg_patch, arg_bag


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """``t2i`` [Q, N] and, with ``both``, ``i2t`` [N, Q] (else [0, 0]), of vectors as in ``dtype``.

    What is multiplied is float32 in every case: bfloat16 and int8 only round the vectors.
    """
    bags = texts.to(dtype=dtype).to(dtype=torch.float32)
    t2i = bags.values.new_empty(len(texts), len(images))
    i2t = bags.values.new_empty(len(images) if both else 0, len(texts) if both else 0)
    for first, end in cut(images.offsets, max(1, budget // (8 * 4 * max(1, images.dim)))):
        block = images[first:end].to(dtype=dtype).to(dtype=torch.float32)
        down, up, _, _ = forward(
            bags.values,
            block.values,
            bags.offsets,
            block.offsets,
            budget=budget // 2,
            keep_places=False,
        )
        t2i[:, first:end] = down
        if both:
            i2t[first:end] = up
    return t2i, i2t


def backward(
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    arg_patch: Tensor,
    arg_bag: Tensor,
    grad_t2i: Tensor,
    grad_i2t: Tensor,
    *,
    budget: int,
) -> tuple[Tensor, Tensor]:
    """Gradients [G, D] and [P, D] from the places of the maxima alone.

    Every maximum passes its gradient to one dot product: that is a sparse [G, P] matrix W of
    gradients, and the two gradients are W @ patches and Wᵀ @ bags.
    """
    grad_bags, grad_patches = torch.zeros_like(bags), torch.zeros_like(patches)
    for q0, q1 in cut(bag_offsets, _BAGS):
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
            # Images and titles without vectors own no maximum: only the others are scattered.
            filled = image_patches.diff().nonzero().flatten().to(bags.device)
            starts = image_patches[:-1].to(bags.device)[filled]
            column = arg_patch[g0:g1, n0:n1][:, filled].long() + starts
            weights.scatter_(1, column, grad_t2i[q0:q1, n0:n1][title][:, filled])
            filled = title_bags.diff().nonzero().flatten().to(bags.device)
            starts = title_bags[:-1].to(bags.device)[filled]
            row = arg_bag[q0:q1, p0:p1][filled].long() + starts[:, None]
            weights.scatter_add_(0, row, grad_i2t[n0:n1, q0:q1].T[filled][:, image])
            grad_bags[g0:g1].addmm_(weights, patches[p0:p1])
            grad_patches[p0:p1].addmm_(weights.T, bags[g0:g1])
    return grad_bags, grad_patches


def owners(offsets: Tensor, device: torch.device) -> Tensor:
    """[n+1] offsets → [N] int64: the item that owns each vector."""
    return torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff()).to(device)


def _image_ranges(patch_offsets: Tensor, title_bags: Tensor, budget: int) -> list[tuple[int, int]]:
    """Image ranges whose products with these titles, and two copies of them, fit the budget."""
    # A ragged list is filled up to its longest title when its maxima are taken.
    rows = max(int(title_bags[-1]), (len(title_bags) - 1) * int(title_bags.diff().max()), 1)
    return cut(patch_offsets, max(1, budget // (rows * 4 * 4)))


def _best(products: Tensor, columns: Tensor, places: bool) -> tuple[Tensor, Tensor | None]:
    """[rows, vectors] → max over each item's vectors [rows, n], and its place (the first)."""
    lengths = columns.diff()
    longest = int(lengths.max()) if len(lengths) else 0
    rows, n = len(products), len(lengths)
    if longest == 0 or rows == 0:
        empty = products.new_zeros(rows, n)
        return empty, empty.to(torch.int32) if places else None
    if bool((lengths == longest).all()):
        wide = products.reshape(rows, n, longest)
    else:
        # A short item repeats its last vector up to the longest: no maximum changes.
        place = torch.minimum(torch.arange(longest), (lengths[:, None] - 1).clamp_min(0))
        index = (columns[:-1, None] + place).clamp_max(products.shape[1] - 1)
        wide = products[:, index.to(products.device)]
    where = None
    if places:
        best, place_of_best = wide.max(2)
        where = place_of_best.to(torch.int32)
    else:
        best = wide.amax(2)
    if int(lengths.min()) == 0:
        filled = (lengths > 0).to(products.device)
        best = best.where(filled, 0.0)
        where = None if where is None else where.where(filled, 0)
    return best, where


def _sum(best: Tensor, rows: Tensor) -> Tensor:
    """[vectors, n] → [items, n]: the sum of each item's rows."""
    lengths = rows.diff()
    if len(lengths) and bool((lengths == lengths[0]).all()) and int(lengths[0]):
        return best.reshape(len(lengths), int(lengths[0]), -1).sum(1)
    total = best.new_zeros(len(lengths), best.shape[1])
    return total.index_add_(0, owners(rows, best.device), best)
