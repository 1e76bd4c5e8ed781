"""MaxSim on CUDA as fused Triton kernels: tensor cores, and no dot product reaches memory.

A *program* (one block of GPU threads) of the forward kernel takes one image and a group of titles
of similar length. Titles are padded to LENGTH, a power of two, with masked columns, so that both
maxima are reductions of a dense tile in registers::

                      title a (3 bags)   title b (4 bags)      TITLES × LENGTH columns
                      a0  a1  a2  --     b0  b1  b2  b3        -- is masked
    ROWS  ┌ patch 0    .   .   .          .   .   .   .   ─┐
    at a  ┤ patch 1    .   .   .          .   .   .   .    ├─▶ i2t: max over each title's columns,
    time  └ patch 2    .   .   .          .   .   .   .   ─┘        summed over patches
                       └───┴───┴──────────┴───┴───┴───┴──────▶ t2i: running max over patches,
                                                                    summed over each title's bags

The tile is computed DEPTH dimensions at a time by tensor cores (float32 as three TF32 products).

Backward: the gradient of the dot products is a sparse matrix, one entry per maximum. A program
rebuilds a tile of it in registers from the argmax (`_weights`) and multiplies it with the vectors
of the other side. Partial sums are added in a fixed order, so results are reproducible.

``TRITON_INTERPRET=1``, set before this module is imported, runs all of it on the CPU.

Shapes: Q titles of G bags in total, N images of P patches in total, D dimensions, L = LENGTH,
T = TITLES.
"""

# mypy: ignore-errors
# (The functions under triton.jit are compiled by Triton; their values have no Python types.)

from __future__ import annotations

import warnings
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.kernels.reference import Argmax, Packed, ScoreGrads
from bagformer_cli.vectors.multi_vectors import MultiVectors

MAX_BAGS = 128
"""Most bags of a title that fit the registers; longer titles are left to plain torch."""

_COLUMNS = 64  # TITLES × LENGTH of a tile, if LENGTH is not larger
_ROWS = 64
_DEPTH = 64
_PROGRAMS = 1024  # enough for every multiprocessor of the largest GPU to have several


@triton.jit
def _group(titles, bag_offsets, n_titles, group, LENGTH: tl.constexpr, TITLES: tl.constexpr):
    """Load a group: title [T] (-1: none), its number of bags [T], bag [T·L], is it real [T·L]."""
    member = group * TITLES + tl.arange(0, TITLES)
    title = tl.load(titles + member, mask=member < n_titles, other=-1)
    is_title = title >= 0
    first = tl.load(bag_offsets + title, mask=is_title, other=0)
    count = tl.load(bag_offsets + title + 1, mask=is_title, other=0) - first
    within = tl.arange(0, LENGTH)
    bag = tl.reshape(first[:, None] + within[None, :], (TITLES * LENGTH,))
    real = tl.reshape((within[None, :] < count[:, None]).to(tl.int32), (TITLES * LENGTH,)) > 0
    return title, count, bag, real


@triton.jit
def _forward_kernel(
    bags, patches, bag_offsets, patch_offsets, titles, title_scale, image_scale,
    t2i, i2t, arg_patch, arg_bag, n_titles, N, Q, P, D,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    INTEGER: tl.constexpr, ARGMAX: tl.constexpr,
):  # fmt: skip
    """Score one image with one group of titles; with ARGMAX also store the argmax."""
    image = tl.program_id(0).to(tl.int64)
    title, count, bag, real = _group(
        titles, bag_offsets, n_titles, tl.program_id(1), LENGTH, TITLES
    )
    start = tl.load(patch_offsets + image)
    length = tl.load(patch_offsets + image + 1) - start
    lowest = float("-inf")
    best = tl.full((TITLES * LENGTH,), lowest, tl.float32)
    best_patch = tl.zeros((TITLES * LENGTH,), tl.int32)
    i2t_sum = tl.zeros((TITLES,), tl.float32)
    for p0 in range(0, length, ROWS):
        row = p0 + tl.arange(0, ROWS)
        inside = row < length
        if INTEGER:
            products = tl.zeros((ROWS, TITLES * LENGTH), tl.int32)
        else:
            products = tl.zeros((ROWS, TITLES * LENGTH), tl.float32)
        for d0 in range(0, D, DEPTH):
            depth = d0 + tl.arange(0, DEPTH)
            x = tl.load(
                patches + (start + row)[:, None] * D + depth[None, :],
                mask=inside[:, None] & (depth < D)[None, :],
                other=0,
            )
            y = tl.load(
                bags + bag[None, :] * D + depth[:, None],
                mask=real[None, :] & (depth < D)[:, None],
                other=0,
            )
            if INTEGER:
                products = tl.dot(x, y, products, out_dtype=tl.int32)
            else:
                products = tl.dot(x, y, products, input_precision="tf32x3")
        scores = products.to(tl.float32)
        # t2i: masked rows never win; the maximum continues over all rows of the image.
        by_patch = tl.where(inside[:, None], scores, lowest)
        highest = tl.max(by_patch, 0)
        if ARGMAX:
            patch = (p0 + tl.argmax(by_patch, 0)).to(tl.int32)
            best_patch = tl.where(highest > best, patch, best_patch)  # >: the first of equals
        best = tl.maximum(best, highest)
        # i2t: masked columns never win; every row is complete here, so it is summed at once.
        by_bag = tl.reshape(tl.where(real[None, :], scores, lowest), (ROWS, TITLES, LENGTH))
        counted = inside[:, None] & (count > 0)[None, :]
        i2t_sum += tl.sum(tl.where(counted, tl.max(by_bag, 2), 0.0), 0)
        if ARGMAX:
            tl.store(
                arg_bag + title[None, :] * P + (start + row)[:, None],
                tl.argmax(by_bag, 2).to(tl.int32),
                mask=counted,
            )
    scored = real & (best > lowest)
    t2i_sum = tl.sum(tl.reshape(tl.where(scored, best, 0.0), (TITLES, LENGTH)), 1)
    is_title = title >= 0
    scale = tl.load(title_scale + title, mask=is_title, other=0) * tl.load(image_scale + image)
    tl.store(t2i + title * N + image, t2i_sum * scale, mask=is_title)
    tl.store(i2t + image * Q + title, i2t_sum * scale, mask=is_title)
    if ARGMAX:
        tl.store(arg_patch + bag * N + image, best_patch, mask=scored)


@triton.jit
def _weights(
    title, count, bag, real, image, start, length, row,
    arg_patch, arg_bag, grad_t2i, grad_i2t, N, Q, P,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Return [ROWS, T·L], the gradient of each dot product of a tile.

    A product gets a title's gradient where the argmax points to it, else 0.
    """
    inside = row < length
    is_title = title >= 0
    within = tl.arange(0, LENGTH)
    best_bag = tl.load(
        arg_bag + title[None, :] * P + (start + row)[:, None],
        mask=inside[:, None] & (count > 0)[None, :],
        other=-1,
    )
    grad = tl.load(grad_i2t + image * Q + title, mask=is_title, other=0)
    of_i2t = tl.where(best_bag[:, :, None] == within[None, None, :], grad[None, :, None], 0.0)
    best_patch = tl.load(arg_patch + bag * N + image, mask=real, other=-1)
    grad = tl.load(grad_t2i + title * N + image, mask=is_title, other=0)
    grad = tl.reshape(grad[:, None] + tl.zeros((TITLES, LENGTH), tl.float32), (TITLES * LENGTH,))
    of_t2i = tl.where(best_patch[None, :] == row[:, None], grad[None, :], 0.0)
    weights = tl.reshape(of_i2t, (ROWS, TITLES * LENGTH)) + of_t2i
    return tl.where(inside[:, None] & real[None, :], weights, 0.0)


@triton.jit
def _grad_patches_kernel(
    bags, bag_offsets, patch_offsets, titles, arg_patch, arg_bag, grad_t2i, grad_i2t,
    grad_patches, n_titles, groups, blocks, N, Q, P, D,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Add the gradients of these titles to ROWS patches of one image, DEPTH dimensions."""
    image = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.load(patch_offsets + image)
    length = tl.load(patch_offsets + image + 1) - start
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    out = grad_patches + (start + row)[:, None] * D + depth[None, :]
    mask = (row < length)[:, None] & (depth < D)[None, :]
    # Titles of other lengths were added by earlier launches.
    total = tl.load(out, mask=mask, other=0)
    for group in range(groups):
        title, count, bag, real = _group(titles, bag_offsets, n_titles, group, LENGTH, TITLES)
        weights = _weights(
            title, count, bag, real, image, start, length, row,
            arg_patch, arg_bag, grad_t2i, grad_i2t, N, Q, P, LENGTH, TITLES, ROWS,
        )  # fmt: skip
        y = tl.load(
            bags + bag[:, None] * D + depth[None, :],
            mask=real[:, None] & (depth < D)[None, :],
            other=0,
        )
        total = tl.dot(weights, y, total, input_precision="tf32x3")
    tl.store(out, total, mask=mask)


@triton.jit
def _grad_bags_kernel(
    patches, bag_offsets, patch_offsets, titles, arg_patch, arg_bag, grad_t2i, grad_i2t,
    parts, n_titles, per_part, N, Q, P, D, G,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Store the gradients of one group of titles from one part of the images, DEPTH dimensions.

    The caller adds the parts: several programs adding to the same bags would not be reproducible.
    """
    title, count, bag, real = _group(
        titles, bag_offsets, n_titles, tl.program_id(1), LENGTH, TITLES
    )
    depth = tl.program_id(2) * DEPTH + tl.arange(0, DEPTH)
    part = tl.program_id(0).to(tl.int64)
    total = tl.zeros((TITLES * LENGTH, DEPTH), tl.float32)
    for image in range(part * per_part, tl.minimum((part + 1) * per_part, N)):  # int64
        start = tl.load(patch_offsets + image)
        length = tl.load(patch_offsets + image + 1) - start
        for p0 in range(0, length, ROWS):
            row = p0 + tl.arange(0, ROWS)
            weights = _weights(
                title, count, bag, real, image, start, length, row,
                arg_patch, arg_bag, grad_t2i, grad_i2t, N, Q, P, LENGTH, TITLES, ROWS,
            )  # fmt: skip
            x = tl.load(
                patches + (start + row)[:, None] * D + depth[None, :],
                mask=(row < length)[:, None] & (depth < D)[None, :],
                other=0,
            )
            total = tl.dot(tl.trans(weights), x, total, input_precision="tf32x3")
    tl.store(
        parts + (part * G + bag)[:, None] * D + depth[None, :],
        total,
        mask=real[:, None] & (depth < D)[None, :],
    )


def _title_groups(bag_offsets: Tensor, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """Sort titles by padded length; return (LENGTH, TITLES, titles) of each kernel launch."""
    lengths = bag_offsets.diff()
    padded = (2.0 ** lengths.clamp_min(1).double().log2().ceil()).long()
    groups = []
    for length in padded.unique().tolist():
        titles = (padded == length).nonzero().flatten()
        groups.append((length, max(1, _COLUMNS // length), titles.to(device)))
    return groups


def _has_nan(values: Tensor, offsets: Tensor) -> Tensor:
    """Return which items [n] have a NaN: maxima on the device skip NaN, so it is added later."""
    of_item = torch.zeros(len(offsets) - 1, device=values.device)
    owner = reference.owners(offsets, values.device)
    return of_item.index_add_(0, owner, values.isnan().any(1).float()) > 0


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` [Q, N] and, if ``both``, ``i2t`` [N, Q] (else [0, 0])."""
    texts = texts.to(dtype=dtype)
    t2i = texts.values.new_empty(len(texts), len(images), dtype=torch.float32)
    i2t = t2i.new_empty(len(images) if both else 0, len(texts) if both else 0)
    converted = 0 if images.dtype == dtype else 2 * images.dim * images.values.element_size()
    limit = budget // converted if converted else max(1, len(images.values))
    for first, end in cut(images.offsets, max(1, limit)):
        block = images[first:end].to(dtype=dtype)
        block_t2i, block_i2t, _ = forward(
            Packed(texts.values, block.values, texts.offsets, block.offsets),
            budget=budget,
            keep_argmax=False,
            scales=(texts.scales, block.scales),
        )
        t2i[:, first:end] = block_t2i
        if both:
            i2t[first:end] = block_i2t
    return t2i, i2t


@cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Compile and run the kernels once; return whether they agree with plain torch."""
    generator = torch.Generator().manual_seed(0)
    texts, images = (
        MultiVectors(torch.randn(int(o[-1]), 32, generator=generator).to(device), o)
        for o in (torch.tensor([0, 3, 20]), torch.tensor([0, 65, 70]))
    )
    vectors = Packed(texts.values, images.values, texts.offsets, images.offsets)
    options = {"dtype": dtype, "both": True, "budget": 1 << 20}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compilers warn about their defaults
            found = scores(texts, images, **options)
            expected = reference.scores(texts, images, **options)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
            if dtype == torch.float32:
                argmax, grads = forward(vectors, budget=1 << 20)[2], ScoreGrads(*expected)
                found = backward(vectors, argmax, grads, budget=1 << 20)
                expected = reference.backward(vectors, argmax, grads, budget=1 << 20)
                torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    except Exception:  # compilers raise many types; plain torch always works
        return False
    return True


def fits(bag_offsets: Tensor) -> bool:
    """Return whether every title is short enough for the registers."""
    lengths = bag_offsets.diff()
    return len(lengths) > 0 and int(lengths.max()) <= MAX_BAGS


def forward(
    vectors: Packed,
    *,
    budget: int,
    keep_argmax: bool = True,
    scales: tuple[Tensor | None, Tensor | None] = (None, None),
) -> tuple[Tensor, Tensor, Argmax]:
    """Do what ``reference.forward`` does, for float32, bfloat16 and int8.

    Args:
        vectors: Titles and images.
        budget: Not used: temporaries are small.
        keep_argmax: False: the returned argmax is empty.
        scales: Scale of each title [Q] and of each image [N]; None: ones.
    """
    bags, patches = vectors.bags.contiguous(), vectors.patches.contiguous()
    bag_offsets, patch_offsets, device = vectors.bag_offsets, vectors.patch_offsets, bags.device
    Q, N, G, P = len(bag_offsets) - 1, len(patch_offsets) - 1, len(bags), len(patches)
    t2i, i2t = torch.zeros(Q, N, device=device), torch.zeros(N, Q, device=device)
    like = {"dtype": torch.int32, "device": device}
    argmax = Argmax(
        torch.zeros(G if keep_argmax else 0, N, **like),
        torch.zeros(Q, P if keep_argmax else 0, **like),
    )
    title_scale, image_scale = scales
    title_scale = torch.ones(Q, device=device) if title_scale is None else title_scale
    image_scale = torch.ones(N, device=device) if image_scale is None else image_scale
    bag_starts, patch_starts = bag_offsets.to(device), patch_offsets.to(device)
    for length, together, titles in _title_groups(bag_offsets, device):
        if not N:
            continue
        _forward_kernel[(N, triton.cdiv(len(titles), together))](
            bags, patches, bag_starts, patch_starts, titles, title_scale, image_scale,
            t2i, i2t, *argmax, len(titles), N, Q, P, bags.shape[1],
            LENGTH=length, TITLES=together, ROWS=_ROWS, DEPTH=_DEPTH,
            INTEGER=bags.dtype == torch.int8, ARGMAX=keep_argmax,
        )  # fmt: skip
    if bags.dtype != torch.int8:
        nan = _has_nan(bags, bag_offsets)[:, None] | _has_nan(patches, patch_offsets)
        t2i = t2i.masked_fill(nan, float("nan"))
        i2t = i2t.masked_fill(nan.T, float("nan"))
    return t2i, i2t, argmax


def backward(
    vectors: Packed, argmax: Argmax, grads: ScoreGrads, *, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradients [G, D] and [P, D] from the argmax; see ``reference.backward``."""
    bags, patches, bag_offsets, patch_offsets = vectors
    device, D, G = bags.device, bags.shape[1], len(bags)
    Q, N, P = len(bag_offsets) - 1, len(patch_offsets) - 1, len(patches)
    grad_bags, grad_patches = torch.zeros_like(bags), torch.zeros_like(patches)
    if not G or not P:
        return grad_bags, grad_patches
    bag_starts, patch_starts = bag_offsets.to(device), patch_offsets.to(device)
    blocks = triton.cdiv(int(patch_offsets.diff().max()), _ROWS)
    deep = triton.cdiv(D, _DEPTH)
    sizes = {"ROWS": _ROWS, "DEPTH": _DEPTH}
    for length, together, titles in _title_groups(bag_offsets, device):
        groups = triton.cdiv(len(titles), together)
        shared = (titles, *argmax, *grads)
        _grad_patches_kernel[(N * blocks, deep)](
            bags, bag_starts, patch_starts, *shared, grad_patches,
            len(titles), groups, blocks, N, Q, P, D, LENGTH=length, TITLES=together, **sizes,
        )  # fmt: skip
        # The images are cut into parts, so that enough programs run, as far as the sums [G, D] of
        # each part fit the budget.
        wanted = max(1, min(N, _PROGRAMS // (groups * deep), budget // (4 * G * D)))
        per_part = triton.cdiv(N, wanted)
        parts = torch.zeros(triton.cdiv(N, per_part), G, D, device=device)
        _grad_bags_kernel[(len(parts), groups, deep)](
            patches, bag_starts, patch_starts, *shared, parts,
            len(titles), per_part, N, Q, P, D, G, LENGTH=length, TITLES=together, **sizes,
        )  # fmt: skip
        grad_bags += parts.sum(0)
    return grad_bags, grad_patches
