"""Fewer vectors per image: token pooling, pruning, truncation.

Shapes: n items, N vectors in all, P vectors of one item, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass(frozen=True)
class VectorReduction:
    """Keep fewer vectors of each item: truncation, then pruning, then token pooling.

    >>> items = MultiVectors.from_list([F.normalize(torch.randn(33, 8), dim=1)])
    >>> VectorReduction(pool=4)(items).lengths
    tensor([9])

    Args:
        keep: Truncation: keep the first ``keep`` vectors. None: all.
        prune: Pruning: the share to keep, in (0, 1]; those most similar to the item's first vector
            (its class token). None: all.
        pool: Token pooling: vectors that are merged into one, on average. None: none.
    """

    keep: int | None = None
    prune: float | None = None
    pool: int | None = None

    def __call__(self, vectors: MultiVectors) -> MultiVectors:
        """Return the items with fewer vectors, in the same type."""
        if self.keep is not None:
            vectors = vectors.truncate(self.keep)
        if self.prune is not None and self.prune < 1:
            vectors = prune_by_similarity(vectors, self.prune)
        if self.pool is not None and self.pool > 1:
            vectors = pool_clusters(vectors, self.pool)
        return vectors

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> Self:
        """Read the output of :meth:`to_json`."""
        whole = {name: int(values[name]) for name in ("keep", "pool") if name in values}
        return cls(prune=values.get("prune"), **whole)

    def to_json(self) -> dict[str, float]:
        """Return the steps that are not None."""
        values = {"keep": self.keep, "prune": self.prune, "pool": self.pool}
        return {name: value for name, value in values.items() if value is not None}


def prune_by_similarity(vectors: MultiVectors, share: float) -> MultiVectors:
    """Keep the vectors of each item that are most similar to its first one, in their old order.

    The first vector of an image is its class token. Its cosine with a patch measures how
    much the patch contributes to the whole; unlike attention maps, every backbone has it.

    Args:
        vectors: The items.
        share: The share to keep, in (0, 1]; at least one vector of each item stays.
    """
    lengths = vectors.lengths
    counts = (lengths * share).ceil().long().clamp_min(1).minimum(lengths)
    parts = []
    for item, count in zip(vectors.to_list(), counts.tolist(), strict=True):
        if not count:
            parts.append(item)
            continue
        similarity = item.float() @ item[0].float()  # [P]
        parts.append(item[similarity.topk(count).indices.sort().values])
    return _packed(parts, vectors)


def pool_clusters(vectors: MultiVectors, factor: int) -> MultiVectors:
    """Merge the vectors of each item by Ward clustering into the unit-length means of the clusters.

    Token pooling of Clavié et al. 2024, "Reducing the Footprint of Multi-Vector Retrieval with
    Minimal Performance Impact via Token Pooling". The first vector, an image's class token, is not
    merged.

    Args:
        vectors: The items.
        factor: Vectors per cluster, on average.
    """
    return _packed([_pooled(item, factor) for item in vectors.to_list()], vectors)


def _pooled(item: Tensor, factor: int) -> Tensor:
    rest = item[1:]
    clusters = -(-len(rest) // factor)
    if len(rest) < 2 or clusters >= len(rest):
        return item
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(rest.float().cpu().numpy(), "ward")
    labels = fcluster(tree, clusters, "maxclust").astype(np.int64) - 1
    index = torch.from_numpy(labels).to(item.device)
    sums = torch.zeros(int(labels.max()) + 1, item.shape[1], device=item.device)
    sums.index_add_(0, index, rest.float())
    return torch.cat([item[:1], F.normalize(sums, dim=-1).to(item.dtype)])


def _packed(parts: list[Tensor], like: MultiVectors) -> MultiVectors:
    return MultiVectors.from_list(parts) if parts else like
