"""The kernels of the backward pass: gradients of the vectors from the argmax.

The gradient of the dot products is a matrix with one entry per maximum, [R, P] for the rows of the
planes. For image n, title q in a slot, the bag in plane j of that slot and patch p::

    W[row, p] =  (argmax of patch p within title q  is bag j) · grad_i2t[n, q]
               + (argmax of bag j within image n is patch p) · grad_t2i[q, n]

    grad_patches = Wᵀ @ bags      one program per block of patches, a loop over all rows
    grad_bags    = W @ patches    one program per block of rows, a loop over a part of the images

A tile of W is built in registers and multiplied at once by tensor cores. It holds one entry per
patch and title, about one in ten, so that a dense product is the fastest way; the entries of the
titles' direction come along at the price of one comparison. Sums are taken in a fixed order
(parts of the images are added by the caller), so results are the same in every run.

Shapes: see ``planes.py`` and ``score_tiles.py``, which writes both argmax arrays.
"""

# mypy: ignore-errors
# (The functions under triton.jit are compiled by Triton; their values have no Python types.)

from __future__ import annotations

import triton
import triton.language as tl

from bagformer_cli.interaction.kernels.cuda.tiles import dot, image_range, load_rows

# Arguments that change from call to call. Triton would compile a kernel again, for seconds, where
# one of them is 1 or a multiple of 16.
VARYING = ["blocks", "N", "slots"]


@triton.jit
def _weights(
    rows, position, image, arg_start, slot, nth, arg_patch, arg_bag, grad_t2i, grad_i2t,
    R, slots, arg_columns,
):  # fmt: skip
    """Return a tile of W: ``rows`` of the planes × ``position`` in the image; −1 has no patch."""
    exists = rows < R
    title = tl.load(slot + rows, mask=exists, other=0)
    bag = tl.load(nth + rows, mask=exists, other=-1)
    real = bag >= 0  # a repetition gets no gradient
    of_i2t = tl.load(grad_i2t + image * slots + title, mask=real, other=0)
    of_t2i = tl.load(grad_t2i + image * slots + title, mask=real, other=0)
    best_patch = tl.load(arg_patch + image * R + rows, mask=real, other=0).to(tl.int32)
    at = title.to(tl.int64)[:, None] * arg_columns + (arg_start + position)[None, :]
    best_bag = tl.load(arg_bag + at, mask=(position >= 0)[None, :], other=0).to(tl.int32)
    weights = tl.where(best_bag == bag[:, None], of_i2t[:, None], 0.0)
    weights += tl.where(best_patch[:, None] == position[None, :], of_t2i[:, None], 0.0)
    return tl.where((position >= 0)[None, :], weights, 0.0)


@triton.jit(do_not_specialize=VARYING)
def patch_gradients(
    bags, patch_starts, arg_starts, slot, nth, arg_patch, arg_bag, grad_t2i, grad_i2t, out,
    blocks, N, R, D, slots, arg_columns,
    ROWS: tl.constexpr, INNER: tl.constexpr, DEPTH: tl.constexpr, UNIFORM: tl.constexpr,
    EVEN: tl.constexpr, STAGES: tl.constexpr, FLOAT32: tl.constexpr,
):  # fmt: skip
    """Store the gradients of ROWS patches of one image, DEPTH dimensions.

    The arguments that are not plain sizes:
        bags: [R, D] planes; ``slot`` and ``nth`` [R]: see ``planes.Planes``.
        patch_starts: [N + 1] int64, not read with UNIFORM.
        arg_patch, arg_bag, arg_starts: See ``score_tiles``.
        grad_t2i, grad_i2t: [N, slots] float32, for both directions in the order of the slots.
        out: [P, D] float32.
        blocks: Blocks of ROWS patches of the longest image.
        INNER: Rows of the planes multiplied at once.
    """
    image = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * ROWS
    depth = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    start, length = image_range(patch_starts, image, N, UNIFORM)
    arg_start = tl.multiple_of(tl.load(arg_starts + image), 16)
    within = first + tl.arange(0, ROWS)
    position = tl.where(within < length, within, -1)
    end = tl.where(first < length, R, 0)  # a shorter image has fewer blocks
    total = tl.zeros((ROWS, DEPTH), tl.float32)
    for r0 in tl.range(0, end, INNER, num_stages=STAGES):
        rows = r0 + tl.arange(0, INNER)
        weights = _weights(
            rows, position, image, arg_start, slot, nth, arg_patch, arg_bag, grad_t2i, grad_i2t,
            R, slots, arg_columns,
        )  # fmt: skip
        bag = load_rows(bags, tl.minimum(rows, R - 1), depth, D, EVEN)
        total = dot(tl.trans(weights.to(bag.dtype)), bag, total, FLOAT32)
    at = out + (start + within)[:, None] * D + depth[None, :]
    tl.store(at, total, mask=(within < length)[:, None] & (depth < D)[None, :])


@triton.jit(do_not_specialize=[*VARYING, "images_each", "P"])
def bag_gradients(
    patches, patch_starts, arg_starts, slot, nth, arg_patch, arg_bag, grad_t2i, grad_i2t, parts,
    blocks, images_each, N, P, R, D, slots, arg_columns,
    ROWS: tl.constexpr, INNER: tl.constexpr, DEPTH: tl.constexpr, UNIFORM: tl.constexpr,
    EVEN: tl.constexpr, STAGES: tl.constexpr, FLOAT32: tl.constexpr,
):  # fmt: skip
    """Store the gradients of ROWS rows of the planes from ``images_each`` images.

    The arguments that are not plain sizes:
        patches: [P, D].
        parts: [parts, R, D] float32; the caller adds the parts.
        blocks: Blocks of INNER patches of the longest image. A loop over (image, block) pairs of
            equal number keeps loads ahead of products from one image to the next.
        INNER: Patches multiplied at once.
        Others: See :func:`patch_gradients`.
    """
    # Programs that run at the same time read the same images: rows vary fastest.
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1).to(tl.int64)
    depth = tl.program_id(2) * DEPTH + tl.arange(0, DEPTH)
    first_image = part * images_each
    count = tl.minimum(images_each, N - first_image) * blocks
    total = tl.zeros((ROWS, DEPTH), tl.float32)
    for step in tl.range(0, count, num_stages=STAGES):
        image = first_image + step // blocks
        start, length = image_range(patch_starts, image, N, UNIFORM)
        arg_start = tl.multiple_of(tl.load(arg_starts + image), 16)
        within = (step % blocks) * INNER + tl.arange(0, INNER)
        position = tl.where(within < length, within, -1)
        weights = _weights(
            rows, position, image, arg_start, slot, nth, arg_patch, arg_bag, grad_t2i, grad_i2t,
            R, slots, arg_columns,
        )  # fmt: skip
        patch = load_rows(patches, tl.minimum(start + within, P - 1), depth, D, EVEN)
        total = dot(weights.to(patch.dtype), patch, total, FLOAT32)
    at = parts + (part * R + rows)[:, None] * D + depth[None, :]
    tl.store(at, total, mask=(rows < R)[:, None] & (depth < D)[None, :])
