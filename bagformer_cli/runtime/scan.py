"""The best items for each query by late interaction, exactly, in numpy.

For an index that is small enough this is quicker than importing torch, whose kernels are faster.

Shapes: Q queries with G vectors in all, n items with N vectors in all, m of them scored, k results,
D dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.runtime.vectors import blocks, mean_vectors
from bagformer_cli.vectors.arrays import Vectors, offsets_of

BLOCK = 1 << 22
"""Values that are converted to float32, or dot products, at a time (16 MB)."""


def scan(
    queries: Vectors,
    items: Vectors,
    k: int,
    rows: NDArray[np.int64] | None = None,
    rule: ScoreRule = MAXSIM,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score items against every query and return the best.

    Args:
        queries: Q queries, float32.
        items: n items as they are stored; int8 and float16 are multiplied as float32.
        k: Results per query; fewer are returned if there are fewer items.
        rows: [m] the items to score, rising; None: all.
        rule: The score. Default: MaxSim of the query.

    Returns:
        Scores [Q, k], highest first, and positions [Q, k]. Equal scores are in the order of their
        positions.

    >>> items = Vectors(np.float32([[0.5, 0], [0, 1], [0.9, 0]]), np.array([0, 1, 2, 3]))
    >>> found, positions = scan(Vectors(np.float32([[1, 0]]), np.array([0, 1])), items, 2)
    >>> positions.tolist()
    [[2, 0]]
    """
    scores = score_items(queries, items, rows, rule)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)
    positions = order if rows is None else rows[order]
    return np.take_along_axis(scores, order, 1), positions


def score_items(
    queries: Vectors,
    items: Vectors,
    rows: NDArray[np.int64] | None = None,
    rule: ScoreRule = MAXSIM,
) -> NDArray[np.float32]:
    """Score items against every query by a rule: [Q, m]. Without vectors, they score 0."""
    chosen = np.arange(len(items), dtype=np.int64) if rows is None else rows
    offsets = offsets_of(items.lengths[chosen])
    scores = np.zeros((len(queries), len(chosen)), np.float32)
    filled = np.flatnonzero(queries.lengths)
    limit = max(1, BLOCK // max(1, items.values.shape[1], len(queries.values)))
    for first, end in blocks(offsets, limit):
        own = chosen[first:end]
        some = np.flatnonzero(items.lengths[own])
        if not len(some) or not len(filled):
            continue
        values = _rows(items, own).astype(np.float32, copy=False)  # [N, D]
        lengths = items.lengths[own[some]]
        scales = None if items.scales is None else items.scales[own[some]]
        block = Vectors(values, offsets_of(lengths), scales)  # of the items with vectors
        scores[np.ix_(filled, first + some)] = _score_block(queries, filled, block, rule)
    return scores


def _score_block(
    queries: Vectors, filled: NDArray[np.int64], items: Vectors, rule: ScoreRule
) -> NDArray[np.float32]:
    """Score n items with vectors against the queries ``filled``, which have some: [filled, n]."""
    scales = np.ones(1, np.float32) if items.scales is None else items.scales
    if rule.is_mean:
        means = mean_vectors(items) * scales[:, None]
        found: NDArray[np.float32] = mean_vectors(queries)[filled] @ means.T
        return found
    products = items.values @ queries.values.T  # [N, G]
    starts, begins = items.offsets[:-1], queries.offsets[:-1][filled]
    by_query = by_item = None
    if rule.over_query:
        best = np.maximum.reduceat(products, starts, axis=0)  # over the vectors of each item
        by_query = np.add.reduceat(best * scales[:, None], begins, axis=1).T
    if rule.over_item:
        best = np.maximum.reduceat(products, begins, axis=1)  # over the vectors of each query
        by_item = (np.add.reduceat(best, starts, axis=0) * scales[:, None]).T
    counts = queries.lengths[filled][:, None], items.lengths[None]
    scores: NDArray[np.float32] = rule.combine(by_query, by_item, *counts)
    return scores


def _rows(items: Vectors, own: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return the stored vectors of items, one after the other; a view if they are neighbours."""
    if len(own) == own[-1] - own[0] + 1:
        return items.values[items.offsets[own[0]] : items.offsets[own[-1] + 1]]
    lengths = items.lengths[own]
    # A vector comes from its item's start plus its place in the item.
    shift = np.repeat(items.offsets[own] - offsets_of(lengths)[:-1], lengths)
    return items.values[np.arange(len(shift)) + shift]
