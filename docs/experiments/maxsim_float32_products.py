"""Measure the error of MaxSim where float32 is multiplied as products of shorter types.

A number is split into a rounded part and the rounded rest, x = high + low, and a product is
high·high + high·low + low·high: three products that tensor cores can do. Prints the error of
dot products of random unit vectors, and of scores of ten bags, against float64: in float32, and
in one and in three products of TF32 and of bfloat16. Computed on the CPU: products of the parts
are exact in float32, which adds them up, as tensor cores do.

    python docs/experiments/maxsim_float32_products.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

TITLES, BAGS, IMAGES, PATCHES, DIM = 64, 10, 64, 257, 256
MANTISSA = {"tf32": 10, "bf16": 7}  # bits that are stored
FLOAT32_MANTISSA = 23


def rounded(x: Tensor, bits: int) -> Tensor:
    """Round float32 to a mantissa of ``bits`` bits, ties to even."""
    dropped = FLOAT32_MANTISSA - bits
    whole = x.view(torch.int32)
    last = (whole >> dropped) & 1
    kept = (whole + (1 << (dropped - 1)) - 1 + last) >> dropped << dropped
    return kept.view(torch.float32)


def products(a: Tensor, b: Tensor, bits: int, count: int) -> Tensor:
    """Multiply ``a`` [n, D] with ``b`` [m, D] by one or three products of shorter numbers."""
    high_a, high_b = rounded(a, bits), rounded(b, bits)
    found = high_a @ high_b.T
    if count == 3:
        found = found + high_a @ rounded(b - high_b, bits).T + rounded(a - high_a, bits) @ high_b.T
    return found


def scores(dots: Tensor) -> Tensor:
    """Add the maxima of the bags of each title: [TITLES, IMAGES]."""
    return dots.view(TITLES, BAGS, IMAGES, PATCHES).amax(3).sum(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each way."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    generator = torch.Generator().manual_seed(0)
    bags, patches = (
        normalize(torch.randn(count, DIM, dtype=torch.float64, generator=generator), dim=1).float()
        for count in (TITLES * BAGS, IMAGES * PATCHES)
    )
    true = bags.double() @ patches.double().T
    ways = {"float32": bags @ patches.T}
    for name, bits in MANTISSA.items():
        for count in (1, 3):
            ways[f"{name} × {count}"] = products(bags, patches, bits, count)
    print("products     dot product: largest, root mean square    score: largest relative error")
    for name, found in ways.items():
        error = found.double() - true
        of_scores = (scores(found.double()) / scores(true) - 1).abs().max()
        print(
            f"{name:12} {error.abs().max():20.1e} {error.square().mean().sqrt():18.1e}"
            f" {of_scores:32.1e}"
        )


if __name__ == "__main__":
    main()
