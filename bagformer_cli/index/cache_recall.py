"""The first stage over a vector cache: an exact scan, or centroids and a scan of their candidates.

The exact scan reads all eligible vectors. From about 48 MB of them on, the centroid first stage
(``centroids.py``) is faster: it selects candidates, and the scan reads only those.

Shapes: n rows of the cache, Q queries.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.index.engine import Queries, RecallMethod, RecallResult
from bagformer_cli.index.segment_scan import torch_is_installed
from bagformer_cli.index.segments import Keys
from bagformer_cli.index.vector_cache import VectorCache
from bagformer_cli.messages import tr

MIN_CANDIDATES, CANDIDATES_PER_RESULT = 1000, 16
"""Products that a search with centroids scores exactly: at least, and for each ``k`` results."""

EXACT_BYTES = 48 << 20
"""Bytes up to which an exact scan takes no longer than the centroid first stage."""

EXACT_BYTES_ON_DEVICE = 8 << 30
"""The same for a scan on a GPU, which reads a hundred times as many bytes in that time."""


def recall_from_cache(
    cache: VectorCache,
    queries: Queries,
    k: int,
    eligible: NDArray[np.bool_],
    method: RecallMethod,
    seconds: dict[str, float],
) -> RecallResult:
    """Find the best eligible rows for each query.

    Args:
        cache: The vectors of the searched side.
        queries: Q queries.
        k: Rows per query.
        eligible: [n] the rows that may be found.
        method: ``exact``, ``tokens``, or ``auto``: whichever is faster.
        seconds: Receives the wall time of each step.
    """
    count = int(np.count_nonzero(eligible))
    share = count / max(1, len(eligible))
    limit = EXACT_BYTES if cache.scanner.device is None else EXACT_BYTES_ON_DEVICE
    # Without torch (the service of an exported model) every scan is exact, in numpy.
    quick = method != "tokens" and (cache.cost * share <= limit or not torch_is_installed())
    if method != "exact" and not quick and cache.centroids is not None:
        return _recall_by_centroids(cache, queries, k, eligible, seconds)
    started = time.perf_counter()
    rows = None if count == len(eligible) else np.flatnonzero(eligible)
    scores, positions = cache.scan(queries, k, rows)  # one pass over the vectors for all queries
    seconds["scan"] = time.perf_counter() - started
    note = tr("{n} products, {mb} MB scanned", n=count, mb=int(cache.nbytes * share) // 10**6)
    if method == "tokens":
        reason = tr("the index is too small for centroids")
        note = tr("{one}; {other}", one=note, other=reason)
    keys = [cache.keys[row] for row in positions]
    return RecallResult(keys, list(scores), True, "exact", note, seconds)


def _recall_by_centroids(
    cache: VectorCache,
    queries: Queries,
    k: int,
    eligible: NDArray[np.bool_],
    seconds: dict[str, float],
) -> RecallResult:
    """Select candidates by centroids, one query at a time, and score only those."""
    import torch

    centroids = cache.centroids
    assert centroids is not None
    # Rows that were added after the centroids were computed are all candidates.
    added = centroids.count + np.flatnonzero(eligible[centroids.count :])
    keys, found, scored = [], [], 0
    seconds |= {"rounded": 0.0, "late": 0.0}
    for query in map(queries.one, range(len(queries.single))):
        started = time.perf_counter()
        minimum = max(MIN_CANDIDATES, CANDIDATES_PER_RESULT * k)
        values = torch.from_numpy(query.vectors.values)
        selected = centroids.candidates(values, minimum, eligible, rule=query.rule)
        candidates = np.concatenate([selected, added])
        seconds["rounded"] += time.perf_counter() - started
        started = time.perf_counter()
        scores, positions = cache.scan(query, k, candidates)
        seconds["late"] += time.perf_counter() - started
        keys.append(cache.keys[positions[0]])
        found.append(scores[0])
        scored = max(scored, len(candidates))
    count = int(np.count_nonzero(eligible))
    note = tr("{n} of {all} products scored, selected by centroids", n=scored, all=count)
    return RecallResult(keys, found, True, "tokens", note, seconds)


def exact_scores(cache: VectorCache, query: Queries, keys: Keys) -> NDArray[np.float32]:
    """Score the rows of ``keys`` by an exact scan, which numpy can do; in their order."""
    positions = cache.positions(keys)
    order = np.argsort(positions)
    rising = positions[order]
    found, at = cache.scan(query, len(keys), rising)
    scores = np.zeros(len(keys), np.float32)
    scores[order[np.searchsorted(rising, at[0])]] = found[0]
    return scores
