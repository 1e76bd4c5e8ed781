"""MaxSim of one pair at a time, in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.interaction import MultiVectors

Lengths = list[int]


def vectors(lengths: Lengths, dim: int = 16, seed: int = 0) -> MultiVectors:
    """Unit vectors in float32."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), dim, generator=generator)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return MultiVectors(F.normalize(values, dim=-1), offsets)


def oracle(texts: MultiVectors, images: MultiVectors) -> tuple[Tensor, Tensor]:
    """One pair at a time, float64, differentiable."""
    zero = torch.zeros((), dtype=torch.float64)
    texts, images = texts.to(dtype=torch.float64), images.to(dtype=torch.float64)

    def one(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T).max(1).values.sum() if len(a) and len(b) else zero

    return (
        torch.stack([torch.stack([one(t, i) for i in images]) for t in texts]),
        torch.stack([torch.stack([one(i, t) for t in texts]) for i in images]),
    )


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 1e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)
