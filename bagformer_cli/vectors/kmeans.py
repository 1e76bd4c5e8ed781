"""Centroids of many vectors: what a first stage rounds to, and what codes start from.

Shapes: N vectors, C centroids, T of them in a tree's trunk, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 5
BLOCK = 1 << 15  # vectors compared at once
OF_TRUNK = 256  # vectors for each centroid of a tree's trunk


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


@dataclass(frozen=True)
class Tree:
    """Centroids of unit length in two steps: near the nearest of few, the nearest of its own.

    Ten thousands of centroids cost what a few hundred do; a vector near the border of two of the
    first step may miss its nearest of all.

    Args:
        trunk: [T, D].
        leaves: [C, D], those of each of the trunk's next to each other.
        offsets: [T+1] int64: whose they are.
    """

    trunk: Tensor
    leaves: Tensor
    offsets: Tensor

    @classmethod
    def grow(cls, sample: Tensor, size: int) -> Self:
        """A tree for about ``size`` leaves of [N, D] vectors of any type, at least one."""
        few = max(1, round(size**0.5))
        generator = torch.Generator().manual_seed(0)
        some = torch.randperm(len(sample), generator=generator)[: few * OF_TRUNK]
        trunk = kmeans(_unit(sample[some]), few, unit=True)
        own = nearest(sample, trunk, unit=True)
        order = own.argsort(stable=True)
        counts = torch.bincount(own, minlength=few)
        leaves = []
        first = 0
        for count in counts.tolist():
            members = sample[order[first : first + count]]
            first += count
            wanted = max(1, round(size * count / len(sample)))
            if count:
                leaves.append(kmeans(_unit(members), min(wanted, count), unit=True))
            else:
                leaves.append(trunk[len(leaves)][None])
        lengths = torch.tensor([0] + [len(some) for some in leaves])
        return cls(trunk, torch.cat(leaves), lengths.cumsum(0))

    def nearest(self, values: Tensor) -> Tensor:
        """[N] int64, a leaf near each vector of any type; a positive scale changes nothing."""
        found = torch.empty(len(values), dtype=torch.int64)
        for first in range(0, len(values), BLOCK):
            block = values[first : first + BLOCK].float()
            own = nearest(block, self.trunk, unit=True)
            order = own.argsort(stable=True)
            counts = torch.bincount(own, minlength=len(self.trunk)).tolist()
            start = 0
            for branch, count in enumerate(counts):
                if count:
                    rows = order[start : start + count]
                    begin, end = int(self.offsets[branch]), int(self.offsets[branch + 1])
                    products = block[rows] @ self.leaves[begin:end].T
                    found[first + rows] = products.max(1).indices + begin
                    start += count
        return found


def _unit(values: Tensor) -> Tensor:
    return F.normalize(values.float(), dim=1)
