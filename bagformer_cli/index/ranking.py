"""The rows found for a query, and the fusion of a ranking by MaxSim with one by terms (BM25).

    MaxSim            p1 0.61   p2 0.55   p3 0.40                  mean cosines
    BM25              p3 9.1    p9 4.2                             p3 has the model code
    rrf               p3 1/(60+3) + 1/(60+1)   p1 1/(60+1)   …     ranks alone
    weighted, w       p3 (1-w) · 0.40 + w · 9.1/9.1   …            scores; 9.1 is the query's best

Reciprocal rank fusion: Cormack, Clarke, Büttcher 2009. A weighted sum of scores: Bruch, Gai, Ingber
2023, "An Analysis of Fusion Functions for Hybrid Retrieval".

Shapes: n rows of one query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Fusion = Literal["none", "rrf", "weighted"]
FUSIONS: tuple[Fusion, ...] = ("none", "rrf", "weighted")

RRF_RANK = 60
"""Added to each rank; a larger number makes the first ranks count less. The paper's value."""

DEPTH = 30
"""Rows of each part that are fused, at least."""

LEXICAL_WEIGHT = 0.3
"""Share of BM25 in a weighted fusion, unless the caller says otherwise."""


@dataclass
class Ranking:
    """The rows found for one query, best first.

    Args:
        keys: Their keys.
        scores: The scores that order them.
        fast: Their late-interaction scores, by the model's rule.
        mean: The same as mean cosines, from −1 to 1.
        slow: Their cross-encoder scores; NaN where it is missing.
        fast_rank: Their ranks by late interaction, from 1; 0: not among those that were fused.
        lexical: Their BM25 scores; NaN where no term was found.
        lexical_rank: Their ranks by BM25, from 1; 0 where no term was found.
    """

    keys: NDArray[Any]
    scores: NDArray[np.float32]
    fast: NDArray[np.float32]
    mean: NDArray[np.float32]
    slow: NDArray[np.float32]
    fast_rank: NDArray[np.int64]
    lexical: NDArray[np.float32]
    lexical_rank: NDArray[np.int64]

    @classmethod
    def by_late_interaction(
        cls, keys: NDArray[Any], fast: NDArray[np.float32], mean: NDArray[np.float32]
    ) -> Self:
        """Rank rows by their late-interaction scores, which fall; ``mean``: as mean cosines."""
        missing = np.full(len(keys), np.nan, np.float32)
        ranks = np.arange(1, len(keys) + 1)
        return cls(keys, fast, fast, mean, missing, ranks, missing, np.zeros(len(keys), np.int64))

    def ordered(self, order: NDArray[np.int64]) -> Self:
        """Return the rows at ``order``."""
        return type(self)(*(values[order] for values in vars(self).values()))


class TermHits(NamedTuple):
    """The rows that have terms of a query.

    Args:
        keys: [n] their keys, best first.
        scores: [n] their BM25 scores, falling.
    """

    keys: NDArray[Any]
    scores: NDArray[np.float32]


class FusedTerms(NamedTuple):
    """The lexical part of one query, for :func:`fuse`.

    Args:
        hits: The rows that have its terms.
        fast: [n] the late-interaction scores of these rows. NaN: the row is left out, unless late
            interaction has found it itself.
        mean: [n] the same as mean cosines.
    """

    hits: TermHits
    fast: NDArray[np.float32]
    mean: NDArray[np.float32]


class FusionRule(NamedTuple):
    """The rule by which the two parts of one query are fused.

    Args:
        fusion: ``rrf`` or ``weighted``.
        weight: Share of BM25 in a weighted fusion, from 0 to 1.
        depth: Rows of each part that are fused. Further ones by late interaction only follow.
        bounded: Whether a row of a lower late-interaction score has no higher mean cosine; not so
            if scores are sums over the rows' vectors.
    """

    fusion: Fusion
    weight: float
    depth: int = DEPTH
    bounded: bool = True

    def counted(
        self, fast_rank: NDArray[np.int64], lexical_rank: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the ranks by late interaction that count: 0 for a row by terms beyond ``depth``.

        Late pages read more rows. Without this bound the rows of earlier pages would then have
        other scores, and so another order.
        """
        return np.where((lexical_rank > 0) & (fast_rank > self.depth), 0, fast_rank)

    def scores(
        self,
        mean: NDArray[np.float32],
        fast_rank: NDArray[np.int64],
        lexical: NDArray[np.float32],
        lexical_rank: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Fuse the scores of rows; ``lexical`` are shares of the query's best."""
        if self.fusion == "rrf":
            return _reciprocal(fast_rank) + _reciprocal(lexical_rank)
        return (1 - self.weight) * mean.astype(np.float64) + self.weight * lexical


def within_reach(late: Ranking, hits: TermHits, rule: FusionRule, k: int) -> NDArray[np.bool_]:
    """Tell which rows of the lexical part could be among the best ``k`` only by a further score.

    A row that late interaction has not found scores at most as much as the last one that it has,
    and so, if the rule is ``bounded``, does its mean cosine.

    Args:
        late: The rows by late interaction.
        hits: The rows by terms.
        rule: How they are fused.
        k: Rows that are wanted.

    Returns:
        [n] True for rows of which the late-interaction score is needed.
    """
    position = _positions(late, hits)
    new = position < 0
    shares, ranks = _shares(hits), np.arange(1, len(hits.keys) + 1)
    if len(late.keys) < k or not new.any() or not rule.bounded:
        return new
    known = np.flatnonzero(~new)
    lexical, lexical_rank = np.zeros(len(late.keys), np.float32), np.zeros(len(late.keys), np.int64)
    lexical[position[known]], lexical_rank[position[known]] = shares[known], ranks[known]
    fast_rank = rule.counted(late.fast_rank, lexical_rank)
    least = np.partition(rule.scores(late.mean, fast_rank, lexical, lexical_rank), -k)[-k]
    last = np.full(len(hits.keys), late.mean[-1], np.float32)
    best = rule.scores(last, np.zeros(len(hits.keys), np.int64), shares, ranks)
    reach: NDArray[np.bool_] = new & (best >= least - 1e-6)
    return reach


def fuse(late: Ranking, lexical: FusedTerms, rule: FusionRule) -> Ranking:
    """Fuse the ranking of one query with that by its terms.

    Args:
        late: The rows by late interaction.
        lexical: The rows by terms.
        rule: How they are fused.
    """
    hits = lexical.hits
    at = _positions(late, hits)
    new = np.flatnonzero((at < 0) & ~np.isnan(lexical.fast))
    at[new] = len(late.keys) + np.arange(len(new))
    kept = np.flatnonzero(at >= 0)
    count = len(late.keys) + len(new)
    keys = np.concatenate([late.keys, hits.keys[new]]) if len(new) else late.keys
    fast = np.concatenate([late.fast, lexical.fast[new]])
    mean = np.concatenate([late.mean, lexical.mean[new]])
    fast_rank = np.concatenate([late.fast_rank, np.zeros(len(new), np.int64)])
    scores = np.full(count, np.nan, np.float32)
    shares = np.zeros(count, np.float32)
    ranks = np.zeros(count, np.int64)
    scores[at[kept]] = hits.scores[kept]
    shares[at[kept]] = _shares(hits)[kept]
    ranks[at[kept]] = kept + 1
    # Products of one image and title score the same. Those by terms are the same on each page, and
    # are ordered by key. The others are as many as the page needs: they keep their order.
    by_key = np.unique(keys, return_inverse=True)[1]
    ties = np.where(ranks > 0, by_key, count + fast_rank)
    fast_rank = rule.counted(fast_rank, ranks)
    fused = rule.scores(mean, fast_rank, shares, ranks)
    slow = np.full(count, np.nan, np.float32)
    late_parts = fast, mean, slow, fast_rank
    ranking = Ranking(keys, fused.astype(np.float32), *late_parts, scores, ranks)
    return ranking.ordered(np.lexsort((ties, -fast, -fused)))


def _positions(late: Ranking, hits: TermHits) -> NDArray[np.int64]:
    """Return the position in ``late`` of each row of ``hits``, -1 for one that is not there."""
    position = {key: at for at, key in enumerate(late.keys.tolist())}
    return np.array([position.get(key, -1) for key in hits.keys.tolist()], np.int64)


def _shares(hits: TermHits) -> NDArray[np.float32]:
    """Return the BM25 scores as shares of the best."""
    return hits.scores / np.float32(hits.scores.max(initial=0.0) or 1.0)


def _reciprocal(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(ranks > 0, 1 / (RRF_RANK + ranks), 0.0)
