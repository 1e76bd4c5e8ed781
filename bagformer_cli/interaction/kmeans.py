"""Centroids of many vectors: what the inverted index groups by, and what codes start from.

Shapes: N vectors, C centroids, D dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 5
BLOCK = 1 << 15  # vectors compared at once


def kmeans(sample: Tensor, size: int, *, unit: bool, rounds: int = ROUNDS) -> Tensor:
    """[size, D] centroids of [N, D] float32 vectors; always the same of the same sample.

    One that nobody is near starts anew at a vector of the sample.

    Args:
        sample: At least one vector; of unit length with ``unit``.
        size: C.
        unit: Spherical k-means: centroids of unit length, the nearest by dot product.
        rounds: Of assigning and averaging.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randperm(len(sample), generator=generator)[:size]
    centroids = sample[start.repeat(-(-size // max(1, len(start))))[:size]].clone()
    for _ in range(rounds):
        closest = nearest(sample, centroids, unit=unit)
        sums = torch.zeros_like(centroids).index_add_(0, closest, sample)
        counts = torch.bincount(closest, minlength=size)
        empty = counts == 0
        if empty.any():
            again = torch.randint(len(sample), (int(empty.sum()),), generator=generator)
            sums[empty] = sample[again]
        centroids = F.normalize(sums, dim=1) if unit else sums / counts.clamp_min(1)[:, None]
    return centroids


@torch.no_grad()
def nearest(values: Tensor, centroids: Tensor, *, unit: bool) -> Tensor:
    """[N] int64, the nearest centroid of each vector of any type, a block at a time.

    With ``unit`` by dot product, so that a positive scale of a vector changes nothing; else by
    Euclidean distance.
    """
    columns = centroids.T.contiguous()
    half = None if unit else columns.square().sum(0) / 2
    found = [torch.zeros(0, dtype=torch.int64)]
    for first in range(0, len(values), BLOCK):
        products = values[first : first + BLOCK].float() @ columns
        found.append((products if half is None else products.sub_(half)).max(1).indices)
    return torch.cat(found)
