"""Compiled loops over one tile of dot products; each loop reads the tile once.

A tile holds the bags of some titles times the patches of some images. ``titles.offsets`` cuts its
rows into titles, ``images.offsets`` its columns into images, both counted from the tile's corner::

                       images.offsets   0         3              7
                                        |  image 0  |   image 1    |
    titles.offsets 0 ── title 0, bag 0  | .  .  .   | .  .  .  .   |  row in memory ->
                        title 0, bag 1  | .  .  .   | .  .  .  .   |
                   2 ── title 1, bag 0  | .  .  .   | .  .  .  .   |

For title 0 and image 0 the loops go along the rows of one cell. ``best`` (one number) is the
maximum of the current row: the largest product of that bag. ``column_best`` (one number per patch)
is the running maximum over the rows so far: after the last row, the largest product of each patch.
Both are taken in the same pass, over contiguous memory, so that the compiler makes vector
instructions of the inner loops.

A tile is float32, int32 (products of int8) or uint16 (the bits of bfloat16 products).

Importing numba takes half a second; compiling takes seconds, once per machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bagformer_cli.compiled import compile_loop


class Items(NamedTuple):
    """Titles (rows) or images (columns) of a tile.

    Attributes:
        offsets: [n+1] int64, where each item begins in the tile.
        scales: [n] float32, factor of each item's integers.
    """

    offsets: Any
    scales: Any


class TileScores(NamedTuple):
    """Scores of a tile, or their gradients.

    Attributes:
        t2i: [q, n] float32.
        i2t: [n, q] float32; no rows: not wanted.
    """

    t2i: Any
    i2t: Any


class TileArgmax(NamedTuple):
    """Argmax of all tiles, and the position of one tile in it.

    The whole arrays are passed, not the part of a tile: numba knows that they are contiguous and
    makes vector instructions for them (fifteen times as fast).

    Attributes:
        patch: [G, N] int32, index within its image.
        bag: [Q, P] int32, index within its title.
        title: Position of the tile's first title.
        image: Position of the tile's first image.
        first_bag: Row of the tile's first bag.
        first_patch: Row of the tile's first patch.
    """

    patch: Any
    bag: Any
    title: Any
    image: Any
    first_bag: Any
    first_patch: Any


# The intrinsics below exist because of what numba makes of the same Python:
# - max(a, b) of floats handles NaN with branches (callers keep NaN out), and of int32 it converts
#   to int64, which halves the numbers per register;
# - `a if condition else b` becomes a branch, which stops vectorisation.


def _build_larger(_: Any, a: Any, b: Any) -> Any:
    """Return the larger of two float32 or two int32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if a is types.float32:
            flags = ("nnan", "nsz")
            greater = builder.fcmp_ordered(">", *args, flags=flags)
            return builder.select(greater, *args, flags=flags)
        return builder.select(builder.icmp_signed(">", *args), *args)

    return a(a, b), build


def _build_select(_: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return int32 ``a`` if ``condition``, else int32 ``b``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return types.int32(types.boolean, types.int32, types.int32), build


def _build_number(_: Any, stored: Any) -> Any:
    """Convert a stored product to the type that is compared.

    bfloat16 is the upper half of a float32: its bits are shifted up by 16. Others stay.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if stored is types.uint16:
            word = ir.IntType(32)
            shifted = builder.shl(builder.zext(args[0], word), ir.Constant(word, 16))
            return builder.bitcast(shifted, ir.FloatType())
        return args[0]

    return (types.float32 if stored is types.uint16 else stored)(stored), build


def _build_larger_unsigned(_: Any, a: Any, b: Any) -> Any:
    """Return the larger of two unsigned integers of the same width."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *args), *args)

    return a(a, a), build


_larger: Any = intrinsic(_build_larger)
_larger_unsigned: Any = intrinsic(_build_larger_unsigned)
_number: Any = intrinsic(_build_number)
_select: Any = intrinsic(_build_select)


def _reduce(tile: Any, titles: Items, images: Items, out: TileScores, column_best: Any) -> None:
    """Reduce a tile to ``out.t2i`` and, if it has rows, ``out.i2t``.

    ``column_best`` is scratch memory: as long as the longest image, of the compared type.
    """
    both = out.i2t.shape[0] > 0
    for q in range(len(titles.offsets) - 1):
        first, end = titles.offsets[q], titles.offsets[q + 1]
        for i in range(len(images.offsets) - 1):
            start, length = images.offsets[i], images.offsets[i + 1] - images.offsets[i]
            scale = titles.scales[q] * images.scales[i]
            t2i = np.float32(0)
            i2t = np.float32(0)
            if length > 0 and end > first:
                for g in range(first, end):
                    row = tile[g, start : start + length]
                    best = _number(row[0])
                    if not both:
                        for p in range(length):
                            best = _larger(best, _number(row[p]))
                    elif g == first:
                        for p in range(length):
                            v = _number(row[p])
                            column_best[p] = v
                            best = _larger(best, v)
                    else:
                        for p in range(length):
                            v = _number(row[p])
                            column_best[p] = _larger(column_best[p], v)
                            best = _larger(best, v)
                    t2i += np.float32(best)
                if both:
                    for p in range(length):
                        i2t += np.float32(column_best[p])
            out.t2i[q, i] = t2i * scale
            if both:
                out.i2t[i, q] = i2t * scale


def _reduce_single(
    tile: Any, titles: Items, images: Items, out: TileScores, column_best: Any
) -> None:
    """Do the same as :func:`_reduce` for images of one vector each.

    A cell is then one column wide, so the inner loops go along all images of a row instead.
    ``column_best`` is as long as the tile is wide.
    """
    n = len(images.offsets) - 1
    both = out.i2t.shape[0] > 0
    for q in range(len(titles.offsets) - 1):
        first, end = titles.offsets[q], titles.offsets[q + 1]
        t2i = out.t2i[q]
        t2i[:] = 0
        column_best[:n] = 0
        for g in range(first, end):
            row = tile[g]
            if g == first:
                for i in range(n):
                    column_best[i] = _number(row[i])
                    t2i[i] += np.float32(_number(row[i]))
            else:
                for i in range(n):
                    v = _number(row[i])
                    column_best[i] = _larger(column_best[i], v)
                    t2i[i] += np.float32(v)
        for i in range(n):
            scale = titles.scales[q] * images.scales[i]
            t2i[i] *= scale
            if both:
                out.i2t[i, q] = np.float32(column_best[i]) * scale


def _reduce_argmax(
    tile: Any, titles: Any, images: Any, out: TileScores, argmax: TileArgmax, column_best: Any
) -> None:
    """Reduce a float32 tile as :func:`_reduce` does and find where each maximum was.

    The first index of equal maxima is taken. ``titles`` and ``images`` are offsets: there are no
    scales in training.
    """
    nowhere = np.int32(-0x7FFFFFFF)
    for q in range(len(titles) - 1):
        first, end = titles[q], titles[q + 1]
        for i in range(len(images) - 1):
            start, length = images[i], images[i + 1] - images[i]
            t2i = np.float32(0)
            i2t = np.float32(0)
            if length > 0 and end > first:
                column = argmax.first_patch + start
                best_bag = argmax.bag[argmax.title + q, column : column + length]
                for g in range(first, end):
                    row = tile[g, start : start + length]
                    best = row[0]
                    if g == first:
                        for p in range(length):
                            v = row[p]
                            column_best[p] = v
                            best_bag[p] = 0
                            best = _larger(best, v)
                    else:
                        bag = np.int32(g - first)
                        for p in range(length):
                            v = row[p]
                            best_bag[p] = _select(v > column_best[p], bag, best_bag[p])
                            column_best[p] = _larger(column_best[p], v)
                            best = _larger(best, v)
                    # The row is read again for the index of its maximum, while it is in the
                    # first-level cache. The largest -p is the smallest index p: a maximum
                    # vectorises, a search that stops at the first hit does not.
                    found = nowhere
                    for p in range(length):
                        found = _larger(found, _select(row[p] == best, np.int32(-p), nowhere))
                    argmax.patch[argmax.first_bag + g, argmax.image + i] = -found
                    t2i += best
                for p in range(length):
                    i2t += column_best[p]
            out.t2i[q, i] = t2i
            out.i2t[i, q] = i2t


def _spread_grads(
    weights: Any, titles: Any, images: Any, argmax: TileArgmax, grads: TileScores
) -> None:
    """Write the gradient of each dot product of a tile into zeroed ``weights`` [rows, R].

    Each maximum passes the gradient of its score to the one product that it was.
    """
    for q in range(len(titles) - 1):
        first, end = titles[q], titles[q + 1]
        for i in range(len(images) - 1):
            start, stop = images[i], images[i + 1]
            if end == first or stop == start:
                continue
            grad = grads.i2t[i, q]
            for p in range(start, stop):
                bag = argmax.bag[argmax.title + q, argmax.first_patch + p]
                weights[first + bag, p] += grad
            grad = grads.t2i[q, i]
            for g in range(first, end):
                patch = argmax.patch[argmax.first_bag + g, argmax.image + i]
                weights[g, start + patch] += grad


def _all_finite(words: Any, exponent: Any) -> Any:
    """Return whether no number has all bits of ``exponent`` set, as infinity and NaN have."""
    highest = words.dtype.type(0)
    for i in range(len(words)):
        highest = _larger_unsigned(highest, words[i] & exponent)
    return highest != exponent


all_finite = compile_loop(_all_finite)
reduce_tile = compile_loop(_reduce)
reduce_tile_single = compile_loop(_reduce_single)
reduce_tile_argmax = compile_loop(_reduce_argmax)
spread_grads = compile_loop(_spread_grads)
