"""MaxSim on CUDA, fused (Triton): tensor cores, and no dot product ever reaches memory.

A program takes one image and a group of titles: TITLES × LENGTH columns, short titles filled up
(and masked) to the next power of two, so that both maxima are dense reductions of a tile in
registers. The backward builds its sparse matrix of gradients in registers from the places of
the maxima and multiplies it there; nothing is added in an order that could change.

``TRITON_INTERPRET=1``, set before this module is imported, runs all of it on the CPU.
"""

# mypy: ignore-errors
# (Triton's language looks like Python and is not: its values have no Python types.)

from __future__ import annotations

import warnings
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from bagformer_cli.interaction.kernels import reference as _plain
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.vectors.multi_vectors import MultiVectors

# Longest title list that stays in registers; longer ones go the plain way.
LONGEST = 128
_COLUMNS = 64
_ROWS = 64
_DEPTH = 64
_PROGRAMS = 1024  # enough to fill the largest GPU several times over


@triton.jit
def _group(titles, bag_offsets, n_titles, group, LENGTH: tl.constexpr, TITLES: tl.constexpr):
    """One group of titles: [T] title (or -1) and how many bags it has, [T·L] bag, whether real."""
    slot = group * TITLES + tl.arange(0, TITLES)
    title = tl.load(titles + slot, mask=slot < n_titles, other=-1)
    is_title = title >= 0
    first = tl.load(bag_offsets + title, mask=is_title, other=0)
    count = tl.load(bag_offsets + title + 1, mask=is_title, other=0) - first
    place = tl.arange(0, LENGTH)
    bag = tl.reshape(first[:, None] + place[None, :], (TITLES * LENGTH,))
    real = tl.reshape((place[None, :] < count[:, None]).to(tl.int32), (TITLES * LENGTH,)) > 0
    return title, count, bag, real


@triton.jit
def _forward_kernel(
    bags, patches, bag_offsets, patch_offsets, titles, title_scale, image_scale,
    t2i, i2t, arg_patch, arg_bag, n_titles, N, Q, P, D,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    INTEGER: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One image × one group of titles: both scores, and with KEEP the places of the maxima."""
    image = tl.program_id(0).to(tl.int64)
    title, count, bag, real = _group(
        titles, bag_offsets, n_titles, tl.program_id(1), LENGTH, TITLES
    )
    start = tl.load(patch_offsets + image)
    length = tl.load(patch_offsets + image + 1) - start
    nothing = float("-inf")
    best = tl.full((TITLES * LENGTH,), nothing, tl.float32)
    place_of_best = tl.zeros((TITLES * LENGTH,), tl.int32)
    total_up = tl.zeros((TITLES,), tl.float32)
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
        down = tl.where(inside[:, None], scores, nothing)
        highest = tl.max(down, 0)
        if KEEP:
            place = (p0 + tl.argmax(down, 0)).to(tl.int32)
            place_of_best = tl.where(highest > best, place, place_of_best)
        best = tl.maximum(best, highest)
        up = tl.reshape(tl.where(real[None, :], scores, nothing), (ROWS, TITLES, LENGTH))
        counted = inside[:, None] & (count > 0)[None, :]
        total_up += tl.sum(tl.where(counted, tl.max(up, 2), 0.0), 0)
        if KEEP:
            tl.store(
                arg_bag + title[None, :] * P + (start + row)[:, None],
                tl.argmax(up, 2).to(tl.int32),
                mask=counted,
            )
    scored = real & (best > nothing)
    total_down = tl.sum(tl.reshape(tl.where(scored, best, 0.0), (TITLES, LENGTH)), 1)
    is_title = title >= 0
    scale = tl.load(title_scale + title, mask=is_title, other=0) * tl.load(image_scale + image)
    tl.store(t2i + title * N + image, total_down * scale, mask=is_title)
    tl.store(i2t + image * Q + title, total_up * scale, mask=is_title)
    if KEEP:
        tl.store(arg_patch + bag * N + image, place_of_best, mask=scored)


@triton.jit
def _weights(
    title, count, bag, real, image, start, length, row,
    arg_patch, arg_bag, grad_t2i, grad_i2t, N, Q, P,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """[ROWS, T·L], what each dot product of the tile gets of the gradient."""
    inside = row < length
    is_title = title >= 0
    place = tl.arange(0, LENGTH)
    met_bag = tl.load(
        arg_bag + title[None, :] * P + (start + row)[:, None],
        mask=inside[:, None] & (count > 0)[None, :],
        other=-1,
    )
    up = tl.load(grad_i2t + image * Q + title, mask=is_title, other=0)
    from_up = tl.where(met_bag[:, :, None] == place[None, None, :], up[None, :, None], 0.0)
    met_patch = tl.load(arg_patch + bag * N + image, mask=real, other=-1)
    down = tl.load(grad_t2i + title * N + image, mask=is_title, other=0)
    down = tl.reshape(down[:, None] + tl.zeros((TITLES, LENGTH), tl.float32), (TITLES * LENGTH,))
    from_down = tl.where(met_patch[None, :] == row[:, None], down[None, :], 0.0)
    weights = tl.reshape(from_up, (ROWS, TITLES * LENGTH)) + from_down
    return tl.where(inside[:, None] & real[None, :], weights, 0.0)


@triton.jit
def _grad_patches_kernel(
    bags, bag_offsets, patch_offsets, titles, arg_patch, arg_bag, grad_t2i, grad_i2t,
    grad_patches, n_titles, groups, blocks, N, Q, P, D,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Adds, for some patches of one image and some dimensions, what all these titles send."""
    image = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.load(patch_offsets + image)
    length = tl.load(patch_offsets + image + 1) - start
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    where = grad_patches + (start + row)[:, None] * D + depth[None, :]
    mask = (row < length)[:, None] & (depth < D)[None, :]
    total = tl.load(where, mask=mask, other=0)
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
    tl.store(where, total, mask=mask)


@triton.jit
def _grad_bags_kernel(
    patches, bag_offsets, patch_offsets, titles, arg_patch, arg_bag, grad_t2i, grad_i2t,
    parts, n_titles, per_part, N, Q, P, D, G,
    LENGTH: tl.constexpr, TITLES: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """For one group of titles and some dimensions, what one part of the images sends."""
    title, count, bag, real = _group(
        titles, bag_offsets, n_titles, tl.program_id(1), LENGTH, TITLES
    )
    depth = tl.program_id(2) * DEPTH + tl.arange(0, DEPTH)
    part = tl.program_id(0).to(tl.int64)
    total = tl.zeros((TITLES * LENGTH, DEPTH), tl.float32)
    for image in range(part * per_part, tl.minimum((part + 1) * per_part, N)):  # 64 bits
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


class _Sizes:
    """Titles sorted into classes of equal filled-up length, on the device: a launch for each."""

    def __init__(self, bag_offsets: Tensor, device: torch.device) -> None:
        lengths = bag_offsets.diff()
        filled = (2.0 ** lengths.clamp_min(1).double().log2().ceil()).long()
        self.classes: list[tuple[int, int, Tensor]] = []  # LENGTH, TITLES, titles
        for length in filled.unique().tolist():
            titles = (filled == length).nonzero().flatten()
            self.classes.append((length, max(1, _COLUMNS // length), titles.to(device)))


def _spoilt(values: Tensor, offsets: Tensor) -> Tensor:
    """[n], whether an item has a NaN: maxima on the device pass over it, so it is put in again."""
    of_item = torch.zeros(len(offsets) - 1, device=values.device)
    owner = _plain.owners(offsets, values.device)
    return of_item.index_add_(0, owner, values.isnan().any(1).float()) > 0


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """As ``_cpu.scores``."""
    texts = texts.to(dtype=dtype)
    t2i = texts.values.new_empty(len(texts), len(images), dtype=torch.float32)
    i2t = t2i.new_empty(len(images) if both else 0, len(texts) if both else 0)
    converted = 0 if images.dtype == dtype else 2 * images.dim * images.values.element_size()
    limit = budget // converted if converted else max(1, len(images.values))
    for first, end in cut(images.offsets, max(1, limit)):
        block = images[first:end].to(dtype=dtype)
        down, up, _, _ = forward(
            texts.values,
            block.values,
            texts.offsets,
            block.offsets,
            budget=budget,
            keep_places=False,
            title_scale=texts.scales,
            image_scale=block.scales,
        )
        t2i[:, first:end] = down
        if both:
            i2t[first:end] = up
    return t2i, i2t


@cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels compile for this device and type and agree with plain torch: tried."""
    generator = torch.Generator().manual_seed(0)
    texts, images = (
        MultiVectors(torch.randn(int(o[-1]), 32, generator=generator).to(device), o)
        for o in (torch.tensor([0, 3, 20]), torch.tensor([0, 65, 70]))
    )
    parts = (texts.values, images.values, texts.offsets, images.offsets)
    how = {"dtype": dtype, "both": True, "budget": 1 << 20}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a compiler says of its defaults
            found, expected = scores(texts, images, **how), _plain.scores(texts, images, **how)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
            if dtype == torch.float32:
                *_, arg_patch, arg_bag = forward(*parts, budget=1 << 20)
                rest = (*parts, arg_patch, arg_bag, *expected)
                found = backward(*rest, budget=1 << 20)
                expected = _plain.backward(*rest, budget=1 << 20)
                torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    except Exception:  # whatever a compiler may raise: plain torch is always there
        return False
    return True


def fits(bag_offsets: Tensor) -> bool:
    """Whether every title is short enough for the registers."""
    lengths = bag_offsets.diff()
    return len(lengths) > 0 and int(lengths.max()) <= LONGEST


def forward(
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    *,
    budget: int,
    keep_places: bool = True,
    title_scale: Tensor | None = None,
    image_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ``_plain.forward``, of float32, bfloat16 or int8 (with a scale an item)."""
    device = bags.device
    Q, N, G, P = len(bag_offsets) - 1, len(patch_offsets) - 1, len(bags), len(patches)
    t2i, i2t = torch.zeros(Q, N, device=device), torch.zeros(N, Q, device=device)
    places = {"dtype": torch.int32, "device": device}
    arg_patch = torch.zeros(G if keep_places else 0, N, **places)
    arg_bag = torch.zeros(Q, P if keep_places else 0, **places)
    bags, patches = bags.contiguous(), patches.contiguous()
    bag_starts, patch_starts = bag_offsets.to(device), patch_offsets.to(device)
    for length, together, titles in _Sizes(bag_offsets, device).classes:
        if not N:
            continue
        _forward_kernel[(N, triton.cdiv(len(titles), together))](
            bags, patches, bag_starts, patch_starts, titles,
            torch.ones(Q, device=device) if title_scale is None else title_scale,
            torch.ones(N, device=device) if image_scale is None else image_scale,
            t2i, i2t, arg_patch, arg_bag, len(titles), N, Q, P, bags.shape[1],
            LENGTH=length, TITLES=together, ROWS=_ROWS, DEPTH=_DEPTH,
            INTEGER=bags.dtype == torch.int8, KEEP=keep_places,
        )  # fmt: skip
    if bags.dtype != torch.int8:
        spoilt = _spoilt(bags, bag_offsets)[:, None] | _spoilt(patches, patch_offsets)
        t2i = t2i.masked_fill(spoilt, float("nan"))
        i2t = i2t.masked_fill(spoilt.T, float("nan"))
    return t2i, i2t, arg_patch, arg_bag


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
    """As ``_plain.backward``."""
    device, D, G = bags.device, bags.shape[1], len(bags)
    Q, N, P = len(bag_offsets) - 1, len(patch_offsets) - 1, len(patches)
    grad_bags, grad_patches = torch.zeros_like(bags), torch.zeros_like(patches)
    if not G or not P:
        return grad_bags, grad_patches
    bag_starts, patch_starts = bag_offsets.to(device), patch_offsets.to(device)
    blocks = triton.cdiv(int(patch_offsets.diff().max()), _ROWS)
    deep = triton.cdiv(D, _DEPTH)
    sizes = {"ROWS": _ROWS, "DEPTH": _DEPTH}
    for length, together, titles in _Sizes(bag_offsets, device).classes:
        groups = triton.cdiv(len(titles), together)
        shared = (titles, arg_patch, arg_bag, grad_t2i, grad_i2t)
        _grad_patches_kernel[(N * blocks, deep)](
            bags, bag_starts, patch_starts, *shared, grad_patches,
            len(titles), groups, blocks, N, Q, P, D, LENGTH=length, TITLES=together, **sizes,
        )  # fmt: skip
        wanted = max(1, min(N, _PROGRAMS // (groups * deep), budget // (4 * G * D)))
        per_part = triton.cdiv(N, wanted)
        parts = torch.zeros(triton.cdiv(N, per_part), G, D, device=device)
        _grad_bags_kernel[(len(parts), groups, deep)](
            patches, bag_starts, patch_starts, *shared, parts,
            len(titles), per_part, N, Q, P, D, G, LENGTH=length, TITLES=together, **sizes,
        )  # fmt: skip
        grad_bags += parts.sum(0)
    return grad_bags, grad_patches
