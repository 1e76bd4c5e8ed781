"""The kernel that scores planes of titles against patches, in one or both directions.

A *program* (one block of GPU threads) keeps the patches of one image, or of several short ones, in
shared memory. It multiplies them with plane after plane (``planes.py``) of all its titles::

                      patches of one image, COLUMNS of them          stays in shared memory
                    ┌───────────────────────────────────────┐
    plane 0  [T, D] │  acc = plane · patches   [T, COLUMNS] │──▶ row maximum ──▶ t2i, summed over
    plane 1  [T, D] │          (tensor cores)               │                    the planes
    ...             └───────────────────────────────────────┘
    streamed from L2                   │
                                       ▼  elementwise maximum over the planes, then the sum of each
                                          row: i2t of T titles with this image

Neither reduction crosses titles. Dot products stay in registers: 2 instructions for each, compared
with 2·D operations of the tensor cores.

Three details:

- An image that is a little longer than a whole number of blocks (257 = 256 + 1: patches and class
  token) has its last EXTRA = 16 columns in a separate product instead of a block of padding.
- A column beyond the end of an image repeats its last patch, which changes no maximum; the sums
  leave it out. No mask is applied to a dot product.
- x · 0 is NaN for NaN and infinity, and 0 for all other numbers. Each program adds ``sum(x · 0)``
  of its patches to its scores, so a value that is not finite marks the scores of its image.

Shapes: see ``planes.py``; N images of P patches in total.
"""

# mypy: ignore-errors
# (The functions under triton.jit are compiled by Triton; their values have no Python types.)

from __future__ import annotations

import triton
import triton.language as tl

from bagformer_cli.interaction.kernels.cuda.tiles import (
    columns_of,
    dot,
    image_max,
    image_range,
    image_sum,
    load_rows,
    not_finite,
    streamed_dot,
)

LOWEST = tl.constexpr(-(2**31))
"""Below every dot product: unit vectors in floating types, 127² × dimension in int8."""


# Arguments that change from call to call. Triton would compile a kernel again, for seconds, where
# one of them is 1 or a multiple of 16.
VARYING = ["groups", "groups_each", "N", "Q", "P"]


@triton.jit(do_not_specialize=VARYING)
def score_tiles(
    bags, patches, group_starts, counts, titles, title_scale, patch_starts, image_scale,
    t2i, i2t, tops, arg_patch, arg_bag, arg_starts,
    groups, groups_each, N, Q, P, R, D, arg_columns,
    TITLES: tl.constexpr, IMAGES: tl.constexpr, LENGTH: tl.constexpr, EXTRA: tl.constexpr,
    DEPTH: tl.constexpr, KEEP: tl.constexpr, UNIFORM: tl.constexpr, EVEN: tl.constexpr,
    SEVERAL: tl.constexpr, BOTH: tl.constexpr, ARGMAX: tl.constexpr, INTEGER: tl.constexpr,
    STAGES: tl.constexpr, FLOAT32: tl.constexpr,
):  # fmt: skip
    """Score IMAGES images with ``groups_each`` groups of titles.

    The arguments that are not plain sizes:
        bags: [R, D] planes; ``group_starts``, ``counts``, ``titles``: see ``planes.Planes``.
        title_scale: [slots] float32, factor of each slot's scores; NaN marks a spoilt title.
        patch_starts: [N + 1] int64, not read with UNIFORM; ``image_scale`` [N] float32.
        t2i, i2t: [Q, N] and [N, Q] float32, filled with zeros.
        tops: [N, R] float32, with SEVERAL: maxima over the blocks of an image so far.
        arg_patch: [N, R], with ARGMAX: patch of each row's maximum, counted in its image.
        arg_bag: [slots, arg_columns], with ARGMAX: bag of each patch's maximum, counted in its
            title. Image n begins at column ``arg_starts[n]``, a multiple of 16.
        LENGTH: Columns of an image in a block. SEVERAL: images may be longer and take more than
            one block; IMAGES is then 1.
        EXTRA: Columns after the last block, 0 or 16; only with IMAGES = 1.
        DEPTH: Dimensions multiplied at once. KEEP: they are all; patches stay in shared memory.
        UNIFORM: Patches of every image; 0: it differs. EVEN: DEPTH divides D.
        STAGES: Planes that are loaded ahead.
    """
    first_image = tl.program_id(0).to(tl.int64) * IMAGES
    images = first_image + tl.arange(0, IMAGES)
    exists = images < N
    scale = tl.load(image_scale + images, mask=exists, other=0)
    start, length = image_range(patch_starts, images, N, UNIFORM)
    blocks = tl.maximum(tl.cdiv(tl.max(length, 0) - EXTRA, LENGTH), 1) if SEVERAL else 1
    first_group = tl.program_id(1) * groups_each
    last_group = tl.minimum(first_group + groups_each, groups)
    row, depth = tl.arange(0, TITLES), tl.arange(0, DEPTH)
    kind: tl.constexpr = tl.int32 if INTEGER else tl.float32
    zeros = tl.zeros((TITLES, IMAGES * LENGTH), kind)
    extra_zeros = tl.zeros((TITLES, 16), kind)
    mark = tl.zeros((IMAGES,), tl.float32)
    for block in range(blocks):
        first = block * LENGTH
        patch, inside = columns_of(start, length, first, P, LENGTH)
        if EXTRA > 0:
            extra_patch, extra_inside = columns_of(start, length, first + LENGTH, P, EXTRA)
            extra_inside = extra_inside & (block == blocks - 1)
        if KEEP:
            x = load_rows(patches, patch, depth, D, EVEN)
            mark += not_finite(x, IMAGES)
            if EXTRA > 0:
                y = load_rows(patches, extra_patch, depth, D, EVEN)
                mark += not_finite(y, 1)
        elif not INTEGER:
            for d0 in range(0, D, DEPTH):
                mark += not_finite(load_rows(patches, patch, d0 + depth, D, EVEN), IMAGES)
                if EXTRA > 0:
                    mark += not_finite(load_rows(patches, extra_patch, d0 + depth, D, EVEN), 1)
        for group in range(first_group, last_group):
            plane0 = tl.load(group_starts + group)
            planes = tl.load(group_starts + group + 1) - plane0
            slot = group * TITLES + row
            count = tl.load(counts + slot)
            t2i_sum = tl.zeros((TITLES, IMAGES), tl.float32)
            best, extra_best = zeros + LOWEST, extra_zeros + LOWEST
            nth = tl.zeros((TITLES, IMAGES * LENGTH), tl.int32)
            extra_nth = tl.zeros((TITLES, 16), tl.int32)
            for plane in tl.range(0, planes, num_stages=STAGES):
                rows = (plane0 + plane) * TITLES + row
                if KEEP:
                    bag = load_rows(bags, rows, depth, D, EVEN)
                    acc = dot(bag, tl.trans(x), zeros, FLOAT32)
                    if EXTRA > 0:
                        extra = dot(bag, tl.trans(y), extra_zeros, FLOAT32)
                else:
                    acc = streamed_dot(
                        bags, patches, rows, patch, zeros, D, DEPTH, EVEN, STAGES, FLOAT32
                    )
                    if EXTRA > 0:
                        extra = streamed_dot(
                            bags, patches, rows, extra_patch, extra_zeros, D,
                            DEPTH, EVEN, STAGES, FLOAT32,
                        )  # fmt: skip
                # t2i: the maximum over all patches of an image ...
                top, where = image_max(acc, IMAGES, ARGMAX)
                if EXTRA > 0:
                    extra_top, extra_where = image_max(extra, 1, ARGMAX)
                    where = tl.where(extra_top > top, LENGTH + extra_where, where)
                    top = tl.maximum(top, extra_top)
                top, where = top.to(tl.float32), where + first
                at = images[None, :] * R + rows[:, None]
                if SEVERAL:  # ... also over those of the blocks before
                    before = tl.load(tops + at, mask=block > 0, other=float("-inf"))
                    if ARGMAX:
                        earlier = tl.load(arg_patch + at, mask=block > 0, other=0).to(tl.int32)
                        where = tl.where(top > before, where, earlier)
                    top = tl.maximum(top, before)
                    tl.store(tops + at, top, mask=block < blocks - 1)
                if ARGMAX:
                    kept = where.to(arg_patch.dtype.element_ty)
                    tl.store(arg_patch + at, kept, mask=exists[None, :])
                t2i_sum += tl.where((plane < count)[:, None], top, 0.0)
                # i2t: the maximum over the planes.
                if BOTH:
                    if ARGMAX:  # >: the first of equals
                        nth = tl.where(acc > best, plane, nth)
                        if EXTRA > 0:
                            extra_nth = tl.where(extra > extra_best, plane, extra_nth)
                    best = tl.maximum(best, acc)
                    if EXTRA > 0:
                        extra_best = tl.maximum(extra_best, extra)
            real = (count > 0)[:, None] & (length > 0)[None, :]
            factor = tl.load(title_scale + slot)[:, None] * scale[None, :]
            title = tl.load(titles + slot)
            at = title[:, None] * N + images[None, :]
            tl.store(t2i + at, t2i_sum * factor + mark[None, :], mask=real)
            if BOTH:
                i2t_sum = image_sum(best, inside, IMAGES)
                if EXTRA > 0:
                    i2t_sum += image_sum(extra_best, extra_inside, 1)
                at = images[None, :] * Q + title[:, None]
                before = tl.load(i2t + at, mask=real & (block > 0), other=0)
                tl.store(i2t + at, before + i2t_sum * factor + mark[None, :], mask=real)
            if ARGMAX:  # IMAGES is 1
                begin = tl.load(arg_starts + tl.minimum(first_image, N - 1)) + first
                line = arg_bag + slot.to(tl.int64)[:, None] * arg_columns + begin
                kept = nth.to(arg_bag.dtype.element_ty)
                tl.store(line + tl.arange(0, LENGTH)[None, :], kept, mask=inside[None, :])
                if EXTRA > 0:
                    kept = extra_nth.to(arg_bag.dtype.element_ty)
                    line += LENGTH
                    tl.store(line + tl.arange(0, EXTRA)[None, :], kept, mask=extra_inside[None, :])
        if SEVERAL:
            tl.debug_barrier()  # the next block reads what other threads of this program stored
