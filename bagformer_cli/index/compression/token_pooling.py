"""Fewer vectors per image: token pooling and pruning.

Shapes: n items, N vectors in all, P vectors of one item, D dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.vectors.multi_vectors import MultiVectors


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
