"""Find and score points of a Qdrant collection by late interaction: on the server, or here.

The server computes MaxSim of the query: the sum over the query's vectors. Another rule, such as the
sum over the title's vectors for an image (``model.pooling: text``), needs the points' vectors::

                      MaxSim of the query                       another rule
    recall, vector    nearest single vectors ─▶ scores          nearest single vectors
                      (one request, on the server)              ─▶ their vectors ─▶ scores (here)
    recall, exact     scores of all points (on the server)      all points, page after page
                                                                ─▶ their vectors ─▶ scores (here)

The candidates are the same in both columns, so no recall is lost by another rule. But each search
moves the candidates' vectors over the network: about 1 MB for 200 titles of ten bags.

The functions raise the client's exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models as q

from bagformer_cli.index.engine import Queries, RecallResult
from bagformer_cli.index.qdrant_connection import Collection
from bagformer_cli.index.rows import Side
from bagformer_cli.messages import tr
from bagformer_cli.runtime.scan import score_items
from bagformer_cli.vectors.arrays import Vectors, offsets_of

POINTS_AT_ONCE = 512


def recall_on_server(
    collection: Collection,
    queries: Queries,
    side: Side,
    narrow: q.Filter,
    k: int,
    candidates: int | None,
) -> RecallResult:
    """Find the best points by MaxSim of the query, in one request for all queries.

    Args:
        collection: The collection.
        queries: Q queries.
        side: The side of the points that is compared.
        narrow: The points that may be found.
        k: Points per query.
        candidates: Points that the search over single vectors passes on; None: all are scored.
    """
    requests = []
    for single, own in zip(queries.single.tolist(), queries.vectors, strict=True):
        first = q.Prefetch(query=single, using=f"{side}_vector", limit=candidates, filter=narrow)
        requests.append(
            q.QueryRequest(
                prefetch=None if candidates is None else first,
                query=own.tolist(),
                using=f"{side}_vectors",
                filter=narrow if candidates is None else None,
                limit=k,
            )
        )
    answers = collection.client.query_batch_points(collection.name, requests)
    keys = [np.array([str(point.id) for point in answer.points], object) for answer in answers]
    scores = [np.array([p.score for p in answer.points], np.float32) for answer in answers]
    scores = [own / _divisor(queries.one(number)) for number, own in enumerate(scores)]
    if candidates is None:
        return RecallResult(keys, scores, True, "exact", tr("all products scored by the server"))
    note = tr("nearest single vectors, then {n} candidates scored by the server", n=candidates)
    return RecallResult(keys, scores, True, "vector", note)


def recall_here(
    collection: Collection,
    queries: Queries,
    side: Side,
    narrow: q.Filter,
    k: int,
    candidates: int | None,
) -> RecallResult:
    """Find the best points by the queries' rule; arguments as of :func:`recall_on_server`."""
    using = f"{side}_vectors"
    if candidates is None:
        keys, scores = _best_of_all(collection, queries, using, narrow, k)
        return RecallResult(keys, scores, True, "exact", tr("all products scored here"))
    requests = [
        q.QueryRequest(
            query=single,
            using=f"{side}_vector",
            filter=narrow,
            limit=candidates,
            with_vector=[using],
        )
        for single in queries.single.tolist()
    ]
    answers = collection.client.query_batch_points(collection.name, requests)
    best = [
        _best_points(queries.one(number), answer.points, using, k)
        for number, answer in enumerate(answers)
    ]
    note = tr("nearest single vectors, then {n} candidates scored here", n=candidates)
    return RecallResult([own[0] for own in best], [own[1] for own in best], True, "vector", note)


def scores_on_server(
    collection: Collection, query: Queries, side: Side, keys: NDArray[Any]
) -> NDArray[np.float32]:
    """Score points against one query by MaxSim of the query: [n], in the order of ``keys``.

    A point that was removed since it was found scores 0.
    """
    if not len(keys):
        return np.zeros(0, np.float32)
    answer = collection.client.query_points(
        collection.name,
        query=query.vectors.values.tolist(),
        using=f"{side}_vectors",
        query_filter=q.Filter(must=[q.HasIdCondition(has_id=list(keys))]),
        limit=len(keys),
    )
    scores = {str(point.id): point.score for point in answer.points}
    found = np.array([scores.get(key, 0.0) for key in keys], np.float32)
    return found / _divisor(query)


def scores_here(
    collection: Collection, query: Queries, side: Side, keys: NDArray[Any]
) -> NDArray[np.float32]:
    """Score points against one query by its rule; see :func:`scores_on_server`."""
    if not len(keys):
        return np.zeros(0, np.float32)
    dim = query.vectors.values.shape[1]
    return _score(query, vectors_of(collection, side, keys, dim))


def vectors_of(collection: Collection, side: Side, keys: NDArray[Any], dim: int) -> Vectors:
    """Read the multi-vector embeddings of points, in the order of ``keys``.

    A point that was removed since it was found has no vectors.
    """
    using = f"{side}_vectors"
    found: dict[str, Any] = {}
    for begin in range(0, len(keys), POINTS_AT_ONCE):
        part = keys[begin : begin + POINTS_AT_ONCE].tolist()
        records: list[Any] = collection.client.retrieve(
            collection.name, part, with_payload=False, with_vectors=[using]
        )
        found |= {str(record.id): record.vector[using] for record in records}
    gone = np.zeros((0, dim))
    return _packed([found.get(str(key), gone) for key in keys])


def _best_points(
    query: Queries, points: Sequence[Any], using: str, k: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the ids and the scores of the best ``k`` of some points, best first."""
    if not points:
        return np.zeros(0, object), np.zeros(0, np.float32)
    scores = _score(query, _packed([point.vector[using] for point in points]))
    order = np.argsort(-scores, kind="stable")[:k]
    return np.array([str(points[at].id) for at in order], object), scores[order]


def _best_of_all(
    collection: Collection, queries: Queries, using: str, narrow: q.Filter, k: int
) -> tuple[list[NDArray[Any]], list[NDArray[np.float32]]]:
    """Score all points of a filter against each query; return the best ``k`` of each."""
    keys = [np.zeros(0, object) for _ in queries.single]
    scores = [np.zeros(0, np.float32) for _ in queries.single]
    for points in collection.pages(POINTS_AT_ONCE, narrow, vectors=[using]):
        for number in range(len(keys)):
            own = _best_points(queries.one(number), points, using, k)
            together = np.concatenate([scores[number], own[1]])
            order = np.argsort(-together, kind="stable")[:k]
            keys[number] = np.concatenate([keys[number], own[0]])[order]
            scores[number] = together[order]
    return keys, scores


def _packed(embeddings: Sequence[Any]) -> Vectors:
    """Join multi-vector embeddings, as the client returns them."""
    items = [np.asarray(own, np.float32) for own in embeddings]
    return Vectors(np.concatenate(items), offsets_of(np.array([len(item) for item in items])))


def _score(query: Queries, items: Vectors) -> NDArray[np.float32]:
    """Score items against one query, by its rule: [n]."""
    scores: NDArray[np.float32] = score_items(query.vectors, items, rule=query.rule)[0]
    return scores


def _divisor(query: Queries) -> np.float32:
    """Return what the server's sum for one query is divided by."""
    count = int(query.vectors.lengths[0]) if query.rule.means else 1
    return np.float32(max(1, count))
