"""Compiled (numba) loop that turns residual codes back into vectors. Imported where first needed.

Shapes: N vectors, C centroids, D dimensions, E dimensions a byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bagformer_cli.compiled import compile_loop


def _make_unit(vector: Any) -> None:
    total = np.float32(0)
    for d in range(len(vector)):
        total += vector[d] * vector[d]
    scale = np.float32(1) / max(np.sqrt(total), np.float32(1e-12))
    for d in range(len(vector)):
        vector[d] *= scale


_unit = compile_loop(_make_unit)


def _decode_2(codes: Any, centroids: Any, table: Any, out: Any, unit: Any) -> None:
    """Two dimensions a byte: ``codes`` [N, 2 + D/2] uint8, ``table`` [256, 2], ``out`` [N, D]."""
    for i in range(len(codes)):
        own = codes[i]
        c = np.int64(own[0]) | np.int64(own[1]) << 8
        d = np.int64(0)
        for b in range(2, len(own)):
            byte = np.int64(own[b])
            # All loads before all stores: then the compiler may make one instruction of each.
            v0 = centroids[c, d] + table[byte, 0]
            v1 = centroids[c, d + 1] + table[byte, 1]
            out[i, d] = v0
            out[i, d + 1] = v1
            d += np.int64(2)
        if unit:
            _unit(out[i])


def _decode_4(codes: Any, centroids: Any, table: Any, out: Any, unit: Any) -> None:
    """Four dimensions a byte: ``codes`` [N, 2 + D/4] uint8, ``table`` [256, 4], ``out`` [N, D]."""
    for i in range(len(codes)):
        own = codes[i]
        c = np.int64(own[0]) | np.int64(own[1]) << 8
        d = np.int64(0)
        for b in range(2, len(own)):
            byte = np.int64(own[b])
            v0 = centroids[c, d] + table[byte, 0]
            v1 = centroids[c, d + 1] + table[byte, 1]
            v2 = centroids[c, d + 2] + table[byte, 2]
            v3 = centroids[c, d + 3] + table[byte, 3]
            out[i, d] = v0
            out[i, d + 1] = v1
            out[i, d + 2] = v2
            out[i, d + 3] = v3
            d += np.int64(4)
        if unit:
            _unit(out[i])


decode = {2: compile_loop(_decode_2), 4: compile_loop(_decode_4)}
