"""Compiled (numba) loops over one tile of dot products; each reads the tile once.

A tile is [G, R]: the bags of some titles against the patches of some images, so that the inner
loops run along contiguous patches and become vector instructions. It is float32, int32 (products
of int8) or uint16 (the bits of bfloat16).

Offsets are relative to the tile: ``bags`` [q+1] cuts its rows into titles, ``patches`` [n+1] its
columns into images. Imported where first needed: importing numba takes half a second, compiling
a few more, once a machine (numba keeps the result on disk).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bagformer_cli.compiled import compile_loop


def _build_larger(_: Any, a: Any, b: Any) -> Any:
    """The larger of two float32 or two int32, in a form that the compiler can vectorise.

    numba's own ``max`` of floats takes care of NaN, and of int32 widens to 64 bits.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if a is types.float32:
            flags = ("nnan", "nsz")
            greater = builder.fcmp_ordered(">", *args, flags=flags)
            return builder.select(greater, *args, flags=flags)
        return builder.select(builder.icmp_signed(">", *args), *args)

    return a(a, b), build


def _build_if(_: Any, condition: Any, a: Any, b: Any) -> Any:
    """``a if condition else b`` of two int32, without the branch that stops vectorising."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return types.int32(types.boolean, types.int32, types.int32), build


def _build_value(_: Any, stored: Any) -> Any:
    """A tile's number as it is compared: bfloat16 bits become float32, others stay."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if stored is types.uint16:
            word = ir.IntType(32)
            shifted = builder.shl(builder.zext(args[0], word), ir.Constant(word, 16))
            return builder.bitcast(shifted, ir.FloatType())
        return args[0]

    return (types.float32 if stored is types.uint16 else stored)(stored), build


def _build_larger_bits(_: Any, a: Any, b: Any) -> Any:
    """The larger of two unsigned integers of one width, which numba would widen."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *args), *args)

    return a(a, a), build


_larger_bits: Any = intrinsic(_build_larger_bits)
_larger: Any = intrinsic(_build_larger)
_if: Any = intrinsic(_build_if)
_value: Any = intrinsic(_build_value)


def _reduce(
    tile: Any, bags: Any, patches: Any, title_scale: Any, image_scale: Any, t2i: Any, i2t: Any,
    over_bags: Any,
) -> None:  # fmt: skip
    """Both directions of a tile: ``t2i`` [q, n] and, where not empty, ``i2t`` [n, q].

    ``title_scale`` [q] and ``image_scale`` [n] multiply the sums; ``over_bags`` is scratch, as
    long as the longest image, of the type that is compared.
    """
    both = i2t.shape[0] > 0
    for q in range(len(bags) - 1):
        first, end = bags[q], bags[q + 1]
        for i in range(len(patches) - 1):
            start, length = patches[i], patches[i + 1] - patches[i]
            scale = title_scale[q] * image_scale[i]
            total = np.float32(0)
            other = np.float32(0)
            if length > 0 and end > first:
                for g in range(first, end):
                    row = tile[g, start : start + length]
                    best = _value(row[0])
                    if not both:
                        for p in range(length):
                            best = _larger(best, _value(row[p]))
                    elif g == first:
                        for p in range(length):
                            v = _value(row[p])
                            over_bags[p] = v
                            best = _larger(best, v)
                    else:
                        for p in range(length):
                            v = _value(row[p])
                            over_bags[p] = _larger(over_bags[p], v)
                            best = _larger(best, v)
                    total += np.float32(best)
                if both:
                    for p in range(length):
                        other += np.float32(over_bags[p])
            t2i[q, i] = total * scale
            if both:
                i2t[i, q] = other * scale


def _reduce_single(
    tile: Any, bags: Any, patches: Any, title_scale: Any, image_scale: Any, t2i: Any, i2t: Any,
    over_bags: Any,
) -> None:  # fmt: skip
    """As :func:`_reduce` for images of one vector each: the inner loops run along the images.

    ``over_bags`` is as long as the tile is wide.
    """
    n = len(patches) - 1
    both = i2t.shape[0] > 0
    for q in range(len(bags) - 1):
        first, end = bags[q], bags[q + 1]
        total = t2i[q]
        total[:] = 0
        over_bags[:n] = 0
        for g in range(first, end):
            row = tile[g]
            if g == first:
                for i in range(n):
                    over_bags[i] = _value(row[i])
                    total[i] += np.float32(_value(row[i]))
            else:
                for i in range(n):
                    v = _value(row[i])
                    over_bags[i] = _larger(over_bags[i], v)
                    total[i] += np.float32(v)
        for i in range(n):
            scale = title_scale[q] * image_scale[i]
            total[i] *= scale
            if both:
                i2t[i, q] = np.float32(over_bags[i]) * scale


def _reduce_arg(
    tile: Any, bags: Any, patches: Any, t2i: Any, i2t: Any, over_bags: Any, arg_patch: Any,
    arg_bag: Any,
) -> None:  # fmt: skip
    """As :func:`_reduce` for float32, and where each maximum was (the first of equals).

    ``arg_patch`` [G, n] int32, a patch's place in its image; ``arg_bag`` [q, R] int32, a bag's
    place in its title.
    """
    nowhere = np.int32(-0x7FFFFFFF)
    for q in range(len(bags) - 1):
        first, end = bags[q], bags[q + 1]
        for i in range(len(patches) - 1):
            start, length = patches[i], patches[i + 1] - patches[i]
            total = np.float32(0)
            other = np.float32(0)
            if length > 0 and end > first:
                where = arg_bag[q, start : start + length]
                for g in range(first, end):
                    row = tile[g, start : start + length]
                    best = row[0]
                    if g == first:
                        for p in range(length):
                            v = row[p]
                            over_bags[p] = v
                            where[p] = 0
                            best = _larger(best, v)
                    else:
                        place = np.int32(g - first)
                        for p in range(length):
                            v = row[p]
                            where[p] = _if(v > over_bags[p], place, where[p])
                            over_bags[p] = _larger(over_bags[p], v)
                            best = _larger(best, v)
                    # A second look for the place, while the row is in the nearest cache.
                    found = nowhere
                    for p in range(length):
                        found = _larger(found, _if(row[p] == best, np.int32(-p), nowhere))
                    arg_patch[g, i] = -found
                    total += best
                for p in range(length):
                    other += over_bags[p]
            t2i[q, i] = total
            i2t[i, q] = other


def _weigh(
    weights: Any, bags: Any, patches: Any, arg_patch: Any, arg_bag: Any, grad_t2i: Any,
    grad_i2t: Any,
) -> None:  # fmt: skip
    """What each dot product of a tile gets of the gradient, into zeroed ``weights`` [G, R].

    Each maximum passes its own to the one place where it was.
    """
    for q in range(len(bags) - 1):
        first, end = bags[q], bags[q + 1]
        for i in range(len(patches) - 1):
            start, stop = patches[i], patches[i + 1]
            if end == first or stop == start:
                continue
            share = grad_i2t[i, q]
            for p in range(start, stop):
                weights[first + arg_bag[q, p], p] += share
            share = grad_t2i[q, i]
            for g in range(first, end):
                weights[g, start + arg_patch[g, i]] += share


def _finite(words: Any, exponent: Any) -> Any:
    """Whether no number's bits have the whole ``exponent`` set: none is infinite or no number."""
    highest = words.dtype.type(0)
    for i in range(len(words)):
        highest = _larger_bits(highest, words[i] & exponent)
    return highest != exponent


finite = compile_loop(_finite)
reduce_tile = compile_loop(_reduce)
reduce_tile_single = compile_loop(_reduce_single)
reduce_tile_arg = compile_loop(_reduce_arg)
weigh_tile = compile_loop(_weigh)
