"""The matrix product of one tile: which type is multiplied, and by which function of torch.

Processors with instructions for bfloat16 or int8 multiply those types 2–4 times as fast as
float32. On other processors torch emulates them slowly (and int8 with 16-bit sums that overflow),
so the vectors are converted to float32, which is exact, and multiplied as such.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

# Processor features by LLVM's names (x86: AVX-512, AVX and AMX; Arm: bf16, i8mm).
_BF16_FEATURES = ("avx512bf16", "amx-bf16", "bf16")
_INT8_FEATURES = ("avx512vnni", "avxvnni", "amx-int8", "i8mm")


class Product(NamedTuple):
    """One way to multiply a tile.

    Attributes:
        name: Shown by ``xmr bench``.
        operand: Type to which bags and patches are converted first.
        tile: Type of the products.
        multiply: ``(bags [G, D], patches [R, D], out [G, R])``: writes the products to ``out``.
    """

    name: str
    operand: torch.dtype
    tile: torch.dtype
    multiply: Callable[[Tensor, Tensor, Tensor], Tensor]


def _mm(bags: Tensor, patches: Tensor, out: Tensor) -> Tensor:
    return torch.mm(bags, patches.T, out=out)


def _int_mm(bags: Tensor, patches: Tensor, out: Tensor) -> Tensor:
    # With D = 1, patches.T has the strides (1, 1), and oneDNN reads memory that is not its own.
    across = patches.reshape(1, -1) if patches.shape[1] == 1 else patches.T
    products: Tensor = torch._int_mm(bags, across, out=out)
    return products


FP32 = Product("float32 by torch.mm", torch.float32, torch.float32, _mm)
BF16 = Product("bfloat16 by torch.mm", torch.bfloat16, torch.bfloat16, _mm)
INT8 = Product("int8 by torch._int_mm", torch.int8, torch.int32, _int_mm)


@cache
def product_for(dtype: torch.dtype) -> Product:
    """Return the product to use on this processor for float32, bfloat16 or int8 vectors."""
    import llvmlite.binding

    features = llvmlite.binding.get_host_cpu_features()

    def any_of(names: tuple[str, ...]) -> bool:
        return any(features.get(name, False) for name in names)

    if dtype == torch.bfloat16 and any_of(_BF16_FEATURES):
        return BF16
    if dtype == torch.int8 and any_of(_INT8_FEATURES):
        return INT8
    return FP32
