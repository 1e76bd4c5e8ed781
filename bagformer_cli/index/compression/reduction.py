"""Fewer vectors an item: pooled, pruned, or the first so many.

Shapes: n items, N vectors in all, P of one item, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of


@dataclass(frozen=True)
class Fewer:
    """How an item's list becomes shorter; the steps follow each other in this order.

    Args:
        keep: The first so many vectors; None: all.
        prune: Share that stays, those most like the item's first vector (its class token); None:
            all.
        pool: Vectors that become one, on average; None: none.
    """

    keep: int | None = None
    prune: float | None = None
    pool: int | None = None

    def __call__(self, vectors: MultiVectors) -> MultiVectors:
        """Items with fewer vectors, of the type they had."""
        if self.keep is not None:
            vectors = keep_first(vectors, self.keep)
        if self.prune is not None and self.prune < 1:
            vectors = prune_by_weight(vectors, self.prune)
        if self.pool is not None and self.pool > 1:
            vectors = pool_clusters(vectors, self.pool)
        return vectors

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> Self:
        """What :meth:`to_json` gave."""
        whole = {name: int(values[name]) for name in ("keep", "pool") if name in values}
        return cls(prune=values.get("prune"), **whole)

    def to_json(self) -> dict[str, float]:
        """What was asked for, without what was not."""
        named = {"keep": self.keep, "prune": self.prune, "pool": self.pool}
        return {name: value for name, value in named.items() if value is not None}


def keep_first(vectors: MultiVectors, count: int) -> MultiVectors:
    """The first ``count`` vectors of each item."""
    lengths = vectors.lengths.clamp_max(count)
    return _rows(vectors, lengths, torch.arange(int(lengths.sum())))


def prune_by_weight(vectors: MultiVectors, share: float) -> MultiVectors:
    """The ``share`` of each item's vectors that is most like its first one, in their old order.

    The first vector of an image is its class token: its cosine with a patch says how much the
    whole owes to the patch, which needs no attention map and so works for every backbone. At
    least one vector stays.
    """
    lengths = vectors.lengths
    wanted = (lengths * share).ceil().long().clamp_min(1).minimum(lengths)
    parts = []
    for item, count in zip(vectors.to_list(), wanted.tolist(), strict=True):
        if not count:
            parts.append(item)
            continue
        weight = item.float() @ item[0].float()  # [P]
        parts.append(item[weight.topk(count).indices.sort().values])
    return _joined(parts, vectors)


def pool_clusters(vectors: MultiVectors, factor: int) -> MultiVectors:
    """Each item's vectors in clusters of ``factor`` on average, one mean of unit length each.

    Ward's hierarchical clustering (token pooling: Clavié et al. 2024, "Reducing the Footprint of
    Multi-Vector Retrieval"). The first vector, an image's class token, stays as it is.
    """
    return _joined([_pooled(item, factor) for item in vectors.to_list()], vectors)


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


def _joined(parts: list[Tensor], like: MultiVectors) -> MultiVectors:
    return MultiVectors.from_list(parts) if parts else like


def _rows(vectors: MultiVectors, lengths: Tensor, places: Tensor) -> MultiVectors:
    """The first ``lengths`` rows of each item."""
    offsets = offsets_of(lengths)
    shift = (vectors.offsets[:-1] - offsets[:-1]).repeat_interleave(lengths)
    rows = (places + shift).to(vectors.device)
    return MultiVectors(vectors.values[rows], offsets, vectors.scales)
