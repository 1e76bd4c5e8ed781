"""One- and two-level k-means: the centroids of residual codes and of the first stage.

One level compares a vector with all C centroids. For the first stage C is up to 32,768, so it uses
two levels: about √C *trunk* centroids, and under each of them its own *leaves*::

    trunk      t0            t1         t2          T ≈ √C centroids
              ╱ │ ╲         ╱  ╲         │
    leaves  l0 l1 l2      l3    l4      l5          C centroids
    offsets  0              3           5       6   leaves of t: offsets[t] … offsets[t+1]

A vector is compared with the trunk and then with the leaves of its nearest trunk centroid only:
2·√C dot products instead of C. A vector near the border of two trunk centroids may miss its nearest
leaf.

Shapes: N vectors, C centroids, T trunk centroids, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

ITERATIONS = 5
BLOCK = 1 << 15  # vectors compared at once; bounds the memory of the matrix of dot products
SAMPLE_PER_TRUNK = 256  # vectors that train each trunk centroid


def kmeans(sample: Tensor, size: int, *, spherical: bool) -> Tensor:
    """Cluster [N, D] float32 vectors into [size, D] centroids; deterministic for a given sample.

    A centroid to which no vector is nearest restarts at a random vector of the sample.

    Args:
        sample: At least one vector; of unit length if ``spherical``.
        size: C.
        spherical: Spherical k-means: centroids have unit length, the nearest has the largest dot
            product. False: the nearest by Euclidean distance.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randperm(len(sample), generator=generator)[:size]
    centroids = sample[start.repeat(-(-size // max(1, len(start))))[:size]].clone()
    for _ in range(ITERATIONS):
        closest = nearest(sample, centroids, spherical=spherical)
        sums = torch.zeros_like(centroids).index_add_(0, closest, sample)
        counts = torch.bincount(closest, minlength=size)
        empty = counts == 0
        if empty.any():
            again = torch.randint(len(sample), (int(empty.sum()),), generator=generator)
            sums[empty] = sample[again]
        centroids = F.normalize(sums, dim=1) if spherical else sums / counts.clamp_min(1)[:, None]
    return centroids


@torch.no_grad()
def nearest(values: Tensor, centroids: Tensor, *, spherical: bool) -> Tensor:
    """Find the nearest centroid of each vector: [N] int64.

    >>> nearest(torch.tensor([[0.0, 3.0]]), torch.eye(2), spherical=True)
    tensor([1])

    Args:
        values: [N, D] of any type.
        centroids: [C, D] float32.
        spherical: By dot product, where a positive scale of a vector changes nothing. False: by
            Euclidean distance.
    """
    columns = centroids.T.contiguous()
    # |v − c|² = |v|² − 2·(v·c − |c|²/2), and |v|² is the same for every c.
    half_norms = None if spherical else columns.square().sum(0) / 2
    found = [torch.zeros(0, dtype=torch.int64)]
    for first in range(0, len(values), BLOCK):
        products = values[first : first + BLOCK].float() @ columns
        found.append((products if half_norms is None else products.sub_(half_norms)).max(1).indices)
    return torch.cat(found)


@dataclass(frozen=True)
class CentroidTree:
    """Centroids of unit length in two levels; see the module.

    Args:
        trunk: [T, D].
        leaves: [C, D], grouped by trunk centroid.
        offsets: [T+1] int64: where each group of leaves begins and ends.
    """

    trunk: Tensor
    leaves: Tensor
    offsets: Tensor

    @classmethod
    def train(cls, sample: Tensor, size: int) -> Self:
        """Train about ``size`` leaves on [N, D] vectors of any type, at least one."""
        trunk_size = max(1, round(size**0.5))
        generator = torch.Generator().manual_seed(0)
        rows = torch.randperm(len(sample), generator=generator)[: trunk_size * SAMPLE_PER_TRUNK]
        trunk = kmeans(_normalized(sample[rows]), trunk_size, spherical=True)
        group = nearest(sample, trunk, spherical=True)
        order = group.argsort(stable=True)
        counts = torch.bincount(group, minlength=trunk_size)
        leaves = []
        first = 0
        for count in counts.tolist():
            members = sample[order[first : first + count]]
            first += count
            wanted = max(1, round(size * count / len(sample)))
            if count:
                leaves.append(kmeans(_normalized(members), min(wanted, count), spherical=True))
            else:
                leaves.append(trunk[len(leaves)][None])
        lengths = torch.tensor([0] + [len(group) for group in leaves])
        return cls(trunk, torch.cat(leaves), lengths.cumsum(0))

    def nearest(self, values: Tensor) -> Tensor:
        """Find a leaf near each vector: [N] int64. A positive scale of a vector changes nothing."""
        found = torch.empty(len(values), dtype=torch.int64)
        for first in range(0, len(values), BLOCK):
            block = values[first : first + BLOCK].float()
            group = nearest(block, self.trunk, spherical=True)
            # Vectors of one trunk centroid are sorted together: one matrix product per centroid.
            order = group.argsort(stable=True)
            counts = torch.bincount(group, minlength=len(self.trunk)).tolist()
            start = 0
            for number, count in enumerate(counts):
                if count:
                    rows = order[start : start + count]
                    begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
                    products = block[rows] @ self.leaves[begin:end].T
                    found[first + rows] = products.max(1).indices + begin
                    start += count
        return found


def _normalized(values: Tensor) -> Tensor:
    return F.normalize(values.float(), dim=1)
