"""Compiled (numba) loop that decodes residual codes. Imported only when codes are first decoded.

Shapes: N vectors, C centroids, D dimensions, W = 2 + D / 2 bytes per code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bagformer_cli.compiled import compile_loop


def _normalize_in_place(vector: Any) -> None:
    total = np.float32(0)
    for d in range(len(vector)):
        total += vector[d] * vector[d]
    scale = np.float32(1) / max(np.sqrt(total), np.float32(1e-12))
    for d in range(len(vector)):
        vector[d] *= scale


_normalize = compile_loop(_normalize_in_place)


def _decode(codes: Any, centroids: Any, table: Any, out: Any, unit: Any) -> None:
    """Decode ``codes`` [N, W] uint8 with ``centroids`` [C, D] and ``table`` [256, 2] to ``out``."""
    for i in range(len(codes)):
        code = codes[i]
        # A damaged code may name a centroid that does not exist: take the last one.
        c = min(np.int64(code[0]) | np.int64(code[1]) << 8, np.int64(len(centroids) - 1))
        d = np.int64(0)
        for b in range(2, len(code)):
            byte = np.int64(code[b])
            # Both loads come before both stores: LLVM can then merge them into vector instructions.
            v0 = centroids[c, d] + table[byte, 0]
            v1 = centroids[c, d + 1] + table[byte, 1]
            out[i, d] = v0
            out[i, d + 1] = v1
            d += np.int64(2)
        if unit:
            _normalize(out[i])


decode = compile_loop(_decode)
