"""The kernels that score few titles against a large catalogue, at the speed of memory.

With a few bags every patch is read once and little is computed, so the patches are the rows of the
product and stream through shared memory, STAGES tiles ahead; the bags stay. A tile holds LENGTH
patches of each of IMAGES products::

                     bags of all queries, padded to COLUMNS (16 … 128)
                      query 0     query 1
                     b0  b1  b2 │ b3  b4 │ --             -- zeros
    product 0  p0    .   .   .    .   .
    (LENGTH)   p1    .   .   .    .   .    ─▶ maximum of each column ─┐
    product 1  p2    .   .   .    .   .                               ├─▶ best [IMAGES, COLUMNS]
    (LENGTH)   p3    .   .   .    .   .    ─▶ maximum of each column ─┘   ─▶ sum of each query's
                                                                              columns: t2i

A product with more than LENGTH patches takes several steps; a shorter one repeats its last patch.
A patch with a value that is not finite makes products of it that are not finite either; their
``sum(product · 0)`` is NaN, which marks the scores of this product only.

``scan_codes`` reads residual codes (``vectors/residual_codes.py``) and decodes them in registers.
One byte of a code holds two neighbouring dimensions. So the even and the odd dimensions are
multiplied separately, and nothing has to be interleaved.

Shapes: Q queries of C bags in total, N products of P patches in total, D dimensions.
"""

# mypy: ignore-errors
# (The functions under triton.jit are compiled by Triton; their values have no Python types.)

from __future__ import annotations

import triton
import triton.language as tl

from bagformer_cli.interaction.kernels.cuda.tiles import (
    columns_of,
    dot,
    image_range,
    load_rows,
    streamed_dot,
)

# Arguments that change from call to call. Triton would compile a kernel again, for seconds, where
# one of them is 1 or a multiple of 16.
VARYING = ["count", "steps", "blocks", "N", "P"]


@triton.jit
def _products(chosen, first, count, IMAGES: tl.constexpr, CHOSEN: tl.constexpr):
    """Return positions of IMAGES products from ``first`` on [IMAGES], and which of them exist."""
    at = first + tl.arange(0, IMAGES)
    exists = at < count
    product = tl.minimum(at, count - 1).to(tl.int64)
    if CHOSEN:
        product = tl.load(chosen + product)
    return at, product, exists


@triton.jit
def _column_max(acc, IMAGES: tl.constexpr):
    """Return the maximum of each product's rows [IMAGES, COLUMNS], and NaN or 0 [IMAGES]."""
    values = acc.to(tl.float32)
    parts = tl.reshape(values, (IMAGES, acc.shape[0] // IMAGES, acc.shape[1]))
    mark = tl.sum(tl.sum(parts * 0.0, 2), 1)
    return tl.max(parts, 1), mark


@triton.jit
def _store(best, mark, scale, owner, query_scale, out, at, exists, count, QUERIES: tl.constexpr):
    """Sum ``best`` [IMAGES, COLUMNS] over each query's columns and store the scores."""
    query = tl.arange(0, QUERIES)
    member = owner[None, :] == query[:, None]
    total = tl.sum(tl.where(member[None, :, :], best[:, None, :], 0.0), 2)  # [IMAGES, QUERIES]
    factor = tl.load(query_scale + query)  # as many as QUERIES
    total = total * scale[:, None] * factor[None, :] + mark[:, None]
    where = out + query[None, :].to(tl.int64) * count + at[:, None]
    tl.store(where, total, mask=exists[:, None] & (factor != 0)[None, :])


@triton.jit(do_not_specialize=VARYING)
def scan_tiles(
    bags, owners, query_scale, patches, patch_starts, product_scale, chosen, out,
    count, steps, blocks, N, P, D,
    IMAGES: tl.constexpr, LENGTH: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr,
    DEPTH: tl.constexpr, KEEP: tl.constexpr, UNIFORM: tl.constexpr, EVEN: tl.constexpr,
    CHOSEN: tl.constexpr, SCALED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Score the products of ``steps // blocks`` consecutive tiles.

    The arguments that are not plain sizes:
        bags: [COLUMNS, D]; rows beyond C are zeros. ``owners`` [COLUMNS] int32: the query of each.
        query_scale: [QUERIES] float32, factor of each query's scores; NaN marks a spoilt query, 0
            a query that is padding or has no bags.
        patches: [P, D]; ``patch_starts`` [N + 1] int64, not read with UNIFORM.
        product_scale: [N] float32, read with SCALED.
        chosen: [count] int64, with CHOSEN: products to score. Else products 0 … count − 1.
        out: [Q, count] float32, filled with zeros.
        steps: Steps of the loop: tiles of this program × ``blocks``.
        blocks: Blocks of LENGTH patches of the longest product.
    """
    column, depth = tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    owner = tl.load(owners + column)
    kind: tl.constexpr = tl.int32 if patches.dtype.element_ty == tl.int8 else tl.float32
    zeros = tl.zeros((IMAGES * LENGTH, COLUMNS), kind)
    if KEEP:
        b = tl.trans(load_rows(bags, column, depth, D, EVEN))
    first_tile = tl.program_id(0) * (steps // blocks)
    best = tl.zeros((IMAGES, COLUMNS), tl.float32)
    mark = tl.zeros((IMAGES,), tl.float32)
    for step in tl.range(0, steps, num_stages=STAGES):
        first = (first_tile + step // blocks) * IMAGES
        block = step % blocks
        at, product, exists = _products(chosen, first, count, IMAGES, CHOSEN)
        start, length = image_range(patch_starts, product, N, UNIFORM)
        row, _ = columns_of(start, length, block * LENGTH, P, LENGTH)
        if KEEP:
            acc = dot(load_rows(patches, row, depth, D, EVEN), b, zeros)
        else:
            acc = streamed_dot(patches, bags, row, column, zeros, D, DEPTH, EVEN, STAGES)
        top, spoilt = _column_max(acc, IMAGES)
        best = tl.where(block == 0, top, tl.maximum(best, top))
        mark = tl.where(block == 0, spoilt, mark + spoilt)
        scale = tl.full((IMAGES,), 1.0, tl.float32)
        if SCALED:
            scale = tl.load(product_scale + product)
        done = exists & (length > 0) & (block == blocks - 1)
        _store(best, mark, scale, owner, query_scale, out, at, done, count, QUERIES)


@triton.jit(do_not_specialize=VARYING)
def scan_codes(
    even_bags, odd_bags, owners, query_scale, codes, even_centroids, odd_centroids, weights,
    patch_starts, chosen, out,
    count, steps, blocks, N, P, HALF, CENTROIDS,
    IMAGES: tl.constexpr, LENGTH: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr,
    DEPTH: tl.constexpr, UNIFORM: tl.constexpr, UNIT: tl.constexpr, EVEN: tl.constexpr,
    CHOSEN: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Do what :func:`scan_tiles` does with residual codes.

    The arguments that are not plain sizes:
        even_bags, odd_bags: [COLUMNS, HALF], the bags' dimensions 0, 2, … and 1, 3, …
        codes: [P, 2 + HALF] uint8.
        even_centroids, odd_centroids: [CENTROIDS, HALF].
        weights: [16] float32, the residual that each bucket stands for.
        HALF: D / 2. DEPTH: the power of two ≥ HALF.
        UNIT: Whether decoded vectors are scaled to unit length.
        Others: See :func:`scan_tiles`.
    """
    column, depth = tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    owner = tl.load(owners + column)
    zeros = tl.zeros((IMAGES * LENGTH, COLUMNS), tl.float32)
    even = tl.trans(load_rows(even_bags, column, depth, HALF, EVEN))
    odd = tl.trans(load_rows(odd_bags, column, depth, HALF, EVEN))
    first_tile = tl.program_id(0) * (steps // blocks)
    best = tl.zeros((IMAGES, COLUMNS), tl.float32)
    mark = tl.zeros((IMAGES,), tl.float32)
    for step in tl.range(0, steps, num_stages=STAGES):
        first = (first_tile + step // blocks) * IMAGES
        block = step % blocks
        at, product, exists = _products(chosen, first, count, IMAGES, CHOSEN)
        start, length = image_range(patch_starts, product, N, UNIFORM)
        row, _ = columns_of(start, length, block * LENGTH, P, LENGTH)
        code = codes + row * (2 + HALF)
        centroid = tl.load(code).to(tl.int32) | (tl.load(code + 1).to(tl.int32) << 8)
        # A damaged code may name a centroid that does not exist: take the last one.
        centroid = tl.minimum(centroid, CENTROIDS - 1)
        inside = (depth < HALF)[None, :]
        byte = tl.load(code[:, None] + 2 + depth[None, :], mask=inside, other=0).to(tl.int32)
        low = load_rows(even_centroids, centroid, depth, HALF, EVEN).to(tl.float32)
        high = load_rows(odd_centroids, centroid, depth, HALF, EVEN).to(tl.float32)
        low += tl.load(weights + (byte & 15), mask=inside, other=0)
        high += tl.load(weights + (byte >> 4), mask=inside, other=0)
        acc = dot(low.to(even.dtype), even, zeros)
        acc = dot(high.to(odd.dtype), odd, acc)
        if UNIT:
            norm = tl.sqrt(tl.sum(low * low, 1) + tl.sum(high * high, 1))
            acc = acc / tl.maximum(norm, 1e-12)[:, None]
        top, spoilt = _column_max(acc, IMAGES)
        best = tl.where(block == 0, top, tl.maximum(best, top))
        mark = tl.where(block == 0, spoilt, mark + spoilt)
        done = exists & (length > 0) & (block == blocks - 1)
        scale = tl.full((IMAGES,), 1.0, tl.float32)
        _store(best, mark, scale, owner, query_scale, out, at, done, count, QUERIES)
