"""Which matrix product is fastest on this processor, for one tile: measured once, not assumed.

fp32 is MKL's product or, where MKL is slow (it is at half speed on AMD), oneDNN's; bf16 and int8
use instructions of their own only where the processor has them and is measured faster with them,
and are else widened to fp32 (exactly).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

# How much faster another product must be than the first in its list to be taken. Of two that are
# as good as equal always the same is used, so that a run can be repeated to the last bit.
_CLEARLY = 1.25


@dataclass(frozen=True)
class Product:
    """One way to multiply a tile.

    Attributes:
        name: For people.
        operand: What bags and patches are converted to beforehand.
        tile: The type of the products.
        multiply: ``(bags [G, D], patches [R, D], out [G, R]) -> tile`` (``out`` where it could).
    """

    name: str
    operand: torch.dtype
    tile: torch.dtype
    multiply: Callable[[Tensor, Tensor, Tensor], Tensor]


def _mm(bags: Tensor, patches: Tensor, out: Tensor) -> Tensor:
    return torch.mm(bags, patches.T, out=out)


def _onednn(bags: Tensor, patches: Tensor, out: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(bags, patches, None, "none", [], "")
    return result


def _int_mm(bags: Tensor, patches: Tensor, out: Tensor) -> Tensor:
    result: Tensor = torch._int_mm(bags, patches.T, out=out)
    return result


_FP32 = (
    Product("fp32 by torch.mm", torch.float32, torch.float32, _mm),
    Product("fp32 by oneDNN", torch.float32, torch.float32, _onednn),
)
_BF16 = Product("bf16 by torch.mm", torch.bfloat16, torch.bfloat16, _mm)
_INT8 = Product("int8 by torch._int_mm", torch.int8, torch.int32, _int_mm)


@cache
def product_for(dtype: torch.dtype) -> Product:
    """The product to use on the CPU for vectors of ``dtype`` (float32, bfloat16 or int8).

    Call it on a thread that computes alone: it measures what such a thread will get.
    """
    if dtype == torch.float32:
        return _fastest(_FP32)
    return _fastest((product_for(torch.float32), _BF16 if dtype == torch.bfloat16 else _INT8))


def _fastest(candidates: Sequence[Product], rounds: int = 6) -> Product:
    """The first, unless another is clearly faster; those that fail or are wrong stay out."""
    G, R, D = 512, 512, 256  # a usual tile
    generator = torch.Generator().manual_seed(0)
    bags = torch.randint(-100, 101, (G, D), generator=generator).to(torch.int8)
    patches = torch.randint(-100, 101, (R, D), generator=generator).to(torch.int8)
    exact = bags.float() @ patches.float().T
    seconds = [float("inf")] * len(candidates)
    for _ in range(rounds):  # in turn, so that a disturbance meets all of them
        for place, product in enumerate(candidates):
            out = torch.empty(G, R, dtype=product.tile)
            operands = bags.to(product.operand), patches.to(product.operand)
            start = time.thread_time()  # what others do to this processor does not count
            try:
                tile = product.multiply(*operands, out)
            except (RuntimeError, AttributeError, NotImplementedError):
                continue
            spent = time.thread_time() - start
            if (tile.float() - exact).abs().max() < 1e-2 * exact.abs().max():
                seconds[place] = min(seconds[place], spent)
    chosen = 0
    for place in range(1, len(candidates)):
        if seconds[place] * _CLEARLY < seconds[chosen]:
            chosen = place
    return candidates[chosen]
