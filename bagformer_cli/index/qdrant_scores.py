"""Score points of Qdrant in this process, by rules that its server cannot compute.

The server computes MaxSim of the query: the sum over the query's vectors. Another rule, such as the
sum over the title's vectors for an image (``model.pooling: text``), needs the points' vectors::

    recall, vector    nearest single vectors (server) ─▶ their vectors ─▶ scores (here) ─▶ best k
    recall, exact     all points, page after page     ─▶ their vectors ─▶ scores (here) ─▶ best k

The candidates are those of any other search by single vectors, so no recall is lost beyond that.
Each search moves the candidates' vectors over the network: about 1 MB for 200 titles of ten bags.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient
from qdrant_client import models as q

from bagformer_cli.index.engine import Queries
from bagformer_cli.runtime.scan import score_items
from bagformer_cli.vectors.arrays import Vectors, offsets_of

POINTS_AT_ONCE = 512


def score_points(query: Queries, points: Sequence[Any], using: str) -> NDArray[np.float32]:
    """Score points that carry their vectors against one query, by its rule: [n]."""
    scores: NDArray[np.float32] = score_items(
        query.vectors, vectors_of(points, using), rule=query.rule
    )[0]
    return scores


def best_points(
    query: Queries, points: Sequence[Any], using: str, k: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the ids and the scores of the best ``k`` of some points, best first."""
    if not points:
        return np.zeros(0, object), np.zeros(0, np.float32)
    scores = score_points(query, points, using)
    order = np.argsort(-scores, kind="stable")[:k]
    return np.array([str(points[at].id) for at in order], object), scores[order]


def best_of_all(
    client: QdrantClient, collection: str, queries: Queries, using: str, narrow: q.Filter, k: int
) -> tuple[list[NDArray[Any]], list[NDArray[np.float32]]]:
    """Score all points of a filter against each query; return the best ``k`` of each.

    Args:
        client: The client.
        collection: Its collection.
        queries: Q queries.
        using: The name of the multi-vector embeddings.
        narrow: Which points are scored.
        k: Points per query.
    """
    keys = [np.zeros(0, object) for _ in queries.single]
    scores = [np.zeros(0, np.float32) for _ in queries.single]
    for points in _pages(client, collection, using, narrow):
        for number in range(len(keys)):
            own = best_points(queries.one(number), points, using, k)
            together = np.concatenate([scores[number], own[1]])
            order = np.argsort(-together, kind="stable")[:k]
            keys[number] = np.concatenate([keys[number], own[0]])[order]
            scores[number] = together[order]
    return keys, scores


def points_of(client: QdrantClient, collection: str, using: str, keys: Sequence[Any]) -> list[Any]:
    """Return points with their vectors, in the order of ``keys``."""
    found: dict[str, Any] = {}
    for begin in range(0, len(keys), POINTS_AT_ONCE):
        part = list(keys[begin : begin + POINTS_AT_ONCE])
        records = client.retrieve(collection, part, with_payload=False, with_vectors=[using])
        found |= {str(record.id): record for record in records}
    return [found[str(key)] for key in keys]


def vectors_of(points: Sequence[Any], using: str) -> Vectors:
    """Return the multi-vector embeddings that points carry."""
    items = [np.asarray(point.vector[using], np.float32) for point in points]
    return Vectors(np.concatenate(items), offsets_of(np.array([len(item) for item in items])))


def _pages(
    client: QdrantClient, collection: str, using: str, narrow: q.Filter
) -> Iterator[list[Any]]:
    following: Any = None
    while True:
        points, following = client.scroll(
            collection,
            narrow,
            limit=POINTS_AT_ONCE,
            offset=following,
            with_payload=False,
            with_vectors=[using],
        )
        if points:
            yield points
        if following is None:
            return
