"""Compiled loop: the table of products of a query with all centroids, int8 in AVX-512 registers.

:mod:`bagformer_cli.interaction.kernels.cpu.centroids` looks up this table. Every centroid is
multiplied with 16 vectors of the query at once, as in :mod:`.loops`; the 32-bit products are
shifted to 16 bits and stored instead of reduced.

Shapes: C centroids, a multiple of 16; H slots of 16 query vectors; W words of 4 bytes per vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bagformer_cli.compiled import compile_loop
from bagformer_cli.interaction.kernels.avx512.registers import I64, INTS, RegisterBlock
from bagformer_cli.interaction.kernels.cpu.centroids import SLOT

_ROWS = 16  # centroids multiplied together
_SHORTS = ir.VectorType(ir.IntType(16), SLOT)


def _build_store_products(
    _: Any, centroids: Any, bags: Any, words: Any, begin: Any, rows: Any, stride: Any, shift: Any,
    out: Any,
) -> Any:  # fmt: skip
    """Build the function that writes [16 centroids, 16 lanes] uint16 at address ``out``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = RegisterBlock(builder, types.int8, 1, _ROWS)
        _, bags, words, begin, rows, stride, shift, out = args
        ahead = builder.mul(stride, I64(4 * _ROWS))
        products = block.products(bags, words, begin, rows, stride, ahead)
        bits, middle = block.broadcast(shift), ir.Constant(INTS, [1 << 15] * SLOT)
        for row, value in enumerate(products):
            short = builder.add(builder.ashr(value, bits), middle)
            block.store(builder.trunc(short, _SHORTS), out, 2 * SLOT * row, align=2)
        return context.get_dummy_value()

    return types.void(centroids, bags, words, begin, rows, stride, shift, out), generate


_store_products: Any = intrinsic(_build_store_products)


def _make_table(
    centroids: Any, begins: Any, bags: Any, shift: Any, first: Any, end: Any, table: Any
) -> None:
    """Write ``table`` [H, C, 16] uint16 for the centroids from ``first`` to ``end``.

    A dot product is shifted to the right by ``shift`` bits, so that it lies in −32,768 … 32,767,
    and stored 32,768 larger. ``first`` and ``end`` are multiples of 16. ``centroids`` [C, D] int8;
    ``begins`` [C] int32: −128 times the sum of each; ``bags`` [H, W, 16] uint32.
    """
    words = np.int64(bags.shape[1])
    stride = np.int64(4) * words
    centroids_at, begins_at = np.int64(centroids.ctypes.data), np.int64(begins.ctypes.data)
    bags_at, table_at = np.int64(bags.ctypes.data), np.int64(table.ctypes.data)
    slot_bytes = np.int64(2 * SLOT) * np.int64(table.shape[1])
    for h in range(bags.shape[0]):
        slot = bags_at + np.int64(h) * words * np.int64(64)
        for c in range(first, end, _ROWS):
            row = np.int64(c)
            out = table_at + np.int64(h) * slot_bytes + row * np.int64(2 * SLOT)
            begin, rows = begins_at + row * np.int64(4), centroids_at + row * stride
            _store_products(centroids, slot, words, begin, rows, stride, np.int32(shift), out)


make_table = compile_loop(_make_table)
