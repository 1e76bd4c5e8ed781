"""Pieces that the CUDA kernels share: which rows a tile has, loads, products and maxima.

Shapes: see ``planes.py``; N images of P patches in total. A tile has COLUMNS = IMAGES × LENGTH
columns: LENGTH patches of each of IMAGES images.
"""

# mypy: ignore-errors
# (The functions under triton.jit are compiled by Triton; their values have no Python types.)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def image_range(patch_starts, image, N, UNIFORM: tl.constexpr):
    """Return first patch and number of patches of ``image`` [IMAGES]; 0 patches beyond the last.

    With UNIFORM > 0 every image has as many patches, and no offset is loaded.
    """
    exists = image < N
    if UNIFORM > 0:
        start, length = image * UNIFORM, tl.where(exists, UNIFORM, 0).to(tl.int64)
    else:
        start = tl.load(patch_starts + image, mask=exists, other=0)
        length = tl.load(patch_starts + image + 1, mask=exists, other=0) - start
    return start, length


@triton.jit
def columns_of(start, length, first, P, LENGTH: tl.constexpr):
    """Return the patch of each column of a tile, and whether the column is real.

    The columns of an image are its patches from position ``first`` on. Beyond its end the last
    patch is repeated: that changes no maximum, so no mask is applied to a dot product.
    """
    IMAGES: tl.constexpr = start.shape[0]
    within = first + tl.arange(0, LENGTH)
    inside = (within[None, :] < length[:, None]).to(tl.int32)
    last = tl.maximum(length - 1, 0)
    patch = start[:, None] + tl.minimum(within[None, :], last[:, None])
    patch = tl.minimum(patch, P - 1)  # an empty image at the end has no patch to repeat
    return tl.reshape(patch, (IMAGES * LENGTH,)), tl.reshape(inside, (IMAGES * LENGTH,)) > 0


@triton.jit
def load_rows(matrix, row, depth, D, EVEN: tl.constexpr):
    """Load rows [len(row), len(depth)] of a matrix with D columns; zeros beyond, unless EVEN."""
    at = matrix + row.to(tl.int64)[:, None] * D + depth[None, :]
    return tl.load(at) if EVEN else tl.load(at, mask=(depth < D)[None, :], other=0)


@triton.jit
def dot(a, b, acc, FLOAT32: tl.constexpr = "tf32x3"):
    """Return ``acc + a @ b`` by tensor cores; float32 as ``settings.float32_products`` says."""
    if acc.dtype == tl.int32:
        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
    else:
        acc = tl.dot(a, b, acc, input_precision=FLOAT32)
    return acc


@triton.jit
def streamed_dot(
    a, b, a_row, b_row, acc, D,
    DEPTH: tl.constexpr, EVEN: tl.constexpr, STAGES: tl.constexpr,
    FLOAT32: tl.constexpr = "tf32x3",
):  # fmt: skip
    """Return ``acc`` plus the products of rows of two matrices, DEPTH dimensions at a time."""
    for d0 in tl.range(0, D, DEPTH, num_stages=STAGES):
        depth = d0 + tl.arange(0, DEPTH)
        left = load_rows(a, a_row, depth, D, EVEN)
        right = load_rows(b, b_row, depth, D, EVEN)
        acc = dot(left, tl.trans(right), acc, FLOAT32)
    return acc


@triton.jit
def not_finite(x, IMAGES: tl.constexpr):
    """Return NaN for each image with a value in ``x`` that is not finite, else 0: [IMAGES].

    x · 0 is NaN for NaN and for infinity. Adding the result to a score marks it.
    """
    if x.dtype == tl.int8:
        mark = tl.zeros((IMAGES,), tl.float32)
    else:
        of_patch = tl.sum(x.to(tl.float32) * 0.0, 1)
        mark = tl.sum(tl.reshape(of_patch, (IMAGES, x.shape[0] // IMAGES)), 1)
    return mark


@triton.jit
def image_max(acc, IMAGES: tl.constexpr, ARGMAX: tl.constexpr):
    """Return the maximum over each image's columns [T, IMAGES] and the first column that has it."""
    TITLES: tl.constexpr = acc.shape[0]
    LENGTH: tl.constexpr = acc.shape[1] // IMAGES
    within = tl.arange(0, LENGTH)
    where = tl.zeros((TITLES, IMAGES), tl.int32)
    if IMAGES == 1:  # a reduction of the whole row needs no other layout
        top = tl.max(acc, 1)[:, None]
        if ARGMAX:
            # Two passes of cheap instructions; pairs (value, index) would take more of them.
            where = tl.min(tl.where(acc == top, within[None, :], LENGTH), 1)[:, None]
    else:
        parts = tl.reshape(acc, (TITLES, IMAGES, LENGTH))
        top = tl.max(parts, 2)
        if ARGMAX:
            same = parts == top[:, :, None]
            where = tl.min(tl.where(same, within[None, None, :], LENGTH), 2)
    return top, where


@triton.jit
def image_sum(values, inside, IMAGES: tl.constexpr):
    """Return the sum over the real columns of each image, float32 [T, IMAGES]."""
    counted = tl.where(inside[None, :], values.to(tl.float32), 0.0)
    if IMAGES == 1:
        total = tl.sum(counted, 1)[:, None]
    else:
        LENGTH: tl.constexpr = values.shape[1] // IMAGES
        total = tl.sum(tl.reshape(counted, (values.shape[0], IMAGES, LENGTH)), 2)
    return total
