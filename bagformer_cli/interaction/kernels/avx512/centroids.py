"""Compiled (numba) loops over lists of centroids' numbers: MaxSim by looking up, not multiplying.

Sixteen vectors of a query lie side by side, as in ``_lanes``; what each makes of a centroid is a
whole number of 16 bits, so that one register holds all sixteen on any processor with AVX2 or NEON
(two there). The order of the numbers is that of the dot products; nothing is negative.

Shapes: n lists, N vectors in all, C centroids, H slots of 16 lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bagformer_cli.compiled import compile_loop
from bagformer_cli.interaction.kernels.avx512.lanes import _Block
from bagformer_cli.interaction.kernels.blocks import LANES

ROWS = 16  # centroids multiplied at once
_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_ROW, _WIDE = ir.VectorType(_I16, LANES), ir.VectorType(_I32, LANES)


def _build_best(_: Any, numbers: Any, count: Any, table: Any) -> Any:
    """``(address of numbers, how many, address of a slot's table) -> sum over lanes of maxima``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b = builder
        numbers, count, table = args
        zero = ir.Constant(_ROW, [0] * LANES)
        before = b.block
        loop, after = b.append_basic_block("vector"), b.append_basic_block("sum")
        b.cbranch(b.icmp_signed(">", count, _I64(0)), loop, after)
        b.position_at_end(loop)
        k, best = b.phi(_I64), b.phi(_ROW)
        k.add_incoming(_I64(0), before)
        best.add_incoming(zero, before)
        place = b.inttoptr(b.add(numbers, b.mul(k, _I64(2))), _I16.as_pointer())
        number = b.zext(b.load(place), _I64)
        row = b.load(b.inttoptr(b.add(table, b.mul(number, _I64(2 * LANES))), _ROW.as_pointer()))
        row.align = 2
        larger = b.select(b.icmp_unsigned(">", row, best), row, best)
        following = b.add(k, _I64(1))
        k.add_incoming(following, loop)
        best.add_incoming(larger, loop)
        b.cbranch(b.icmp_signed("<", following, count), loop, after)
        b.position_at_end(after)
        found = b.phi(_ROW)
        found.add_incoming(zero, before)
        found.add_incoming(larger, loop)
        kind = ir.FunctionType(_I32, [_WIDE])
        name = f"llvm.vector.reduce.add.v{LANES}i32"
        function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
        return b.zext(b.call(function, [b.zext(found, _WIDE)]), _I64)

    return types.int64(numbers, count, table), generate


_best: Any = intrinsic(_build_best)


def _score_rounded(
    numbers: Any, offsets: Any, allowed: Any, table: Any, first: Any, end: Any, sums: Any
) -> None:
    """``sums`` [n] int32 of the lists from ``first`` to ``end`` that are ``allowed`` [n].

    ``numbers`` [N] uint16 and ``offsets`` [n+1] say what the lists own; ``table`` [H, C, 16] uint16
    what each of the query's vectors makes of each centroid.
    """
    base, a_table = np.int64(numbers.ctypes.data), np.int64(table.ctypes.data)
    slot = np.int64(2) * np.int64(table.shape[1]) * np.int64(table.shape[2])
    for i in range(first, end):
        if not allowed[i]:
            continue
        start = offsets[i]
        if start == offsets[i + 1]:  # it scores 0 with everything
            sums[i] = np.int64(table.shape[0]) * np.int64(LANES << 15)
            continue
        total = np.int64(0)
        for h in range(table.shape[0]):
            at = base + np.int64(2) * start
            total += _best(at, offsets[i + 1] - start, a_table + np.int64(h) * slot)
        sums[i] = total


def _build_multiply(
    _: Any, element: Any, bags: Any, words: Any, begin: Any, rows: Any, stride: Any, shift: Any,
    out: Any,
) -> Any:  # fmt: skip
    """``out`` [16, 16] uint16: sixteen centroids by the sixteen lanes of a slot."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _Block(builder, types.int8, 1, ROWS)
        _, bags, words, begin, rows, stride, shift, out = args
        ahead = builder.mul(stride, _I64(4 * ROWS))
        found = block.products(bags, words, begin, rows, stride, ahead)[0]
        by, middle = block.splat(shift), ir.Constant(_WIDE, [1 << 15] * LANES)
        for row, value in enumerate(found):
            short = builder.add(builder.ashr(value, by), middle)
            block.store(builder.trunc(short, _ROW), out, 2 * LANES * row)
        return context.get_dummy_value()

    return types.void(element, bags, words, begin, rows, stride, shift, out), generate


_multiply: Any = intrinsic(_build_multiply)


def _make_table(
    centroids: Any, begins: Any, bags: Any, shift: Any, first: Any, end: Any, table: Any
) -> None:
    """``table`` [H, C, 16] uint16, of the centroids from ``first`` to ``end``.

    Dot products are shifted to the right by ``shift`` bits, then lie between −32,768 and 32,767,
    and 0 becomes 32,768. ``first`` and ``end`` are multiples of 16. ``centroids`` [C, D] int8,
    ``begins`` [C] int32: −128 times the sum of each; ``bags`` [H, W, 16] words, 128 larger each, as
    ``_lanes`` has them.
    """
    words = np.int64(bags.shape[1])
    stride = np.int64(4) * words
    base, a_begins = np.int64(centroids.ctypes.data), np.int64(begins.ctypes.data)
    a_bags, a_table = np.int64(bags.ctypes.data), np.int64(table.ctypes.data)
    slot = np.int64(2 * LANES) * np.int64(table.shape[1])
    for h in range(bags.shape[0]):
        b = a_bags + np.int64(h) * words * np.int64(64)
        for c in range(first, end, ROWS):
            row = np.int64(c)
            at = a_table + np.int64(h) * slot + row * np.int64(2 * LANES)
            sums, rows = a_begins + row * np.int64(4), base + row * stride
            _multiply(centroids, b, words, sums, rows, stride, np.int32(shift), at)


def _count(sums: Any, shift: Any, counts: Any) -> None:
    """``counts`` [bins], zeroed: how many of ``sums`` [n] fall into each bin; none of those < 0."""
    for i in range(len(sums)):
        if sums[i] >= 0:
            counts[sums[i] >> shift] += 1


def _collect(sums: Any, least: Any, found: Any) -> Any:
    """``found`` [n]: where ``sums`` are at least so much, rising; and how many there are."""
    count = 0
    for i in range(len(sums)):
        if sums[i] >= least:
            found[count] = i
            count += 1
    return count


score_rounded = compile_loop(_score_rounded)
make_table = compile_loop(_make_table)
count = compile_loop(_count)
collect = compile_loop(_collect)
