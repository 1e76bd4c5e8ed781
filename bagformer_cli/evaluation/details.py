"""Single queries of an evaluation: the worst and the best ones, and what separates the scores.

Scores here are means over a title's vectors, so that titles of different lengths can be compared.

Shapes: Q queries, N images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.metrics import NO_POSITIVE, NOT_FOUND, Positives
from bagformer_cli.evaluation.result import Evaluation, name_of

SHOWN_ANSWERS = 2
"""Images that answer a query, of which a detail holds the best."""

SHOWN_RESULTS = 5
"""First results of a query that a detail holds."""

_BLOCK = 1 << 22


@dataclass(frozen=True)
class RankedImage:
    """An image as a result of a query.

    Attributes:
        position: In the split.
        score: Its fast score, a mean over the query's vectors.
        right: Whether it answers the query.
    """

    position: int
    score: float
    right: bool


@dataclass(frozen=True)
class QueryDetail:
    """A query, the images that answer it, and its first results.

    Attributes:
        position: In the split.
        query_id: Its id.
        text: The query.
        rank: Rank of its best answer after the last stage, from 1.
        answers: Its best answers.
        results: Its first results.
    """

    position: int
    query_id: int
    text: str
    rank: int
    answers: list[RankedImage]
    results: list[RankedImage]


def last_ranks(found: Evaluation) -> NDArray[np.int64]:
    """Return the rank of each query's best answer after the last stage, [Q].

    An answer that is none of the reranked candidates keeps its rank of the recall stage.
    """
    recalled = found.ranks["text_to_image"]
    last = found.ranks[name_of(list(found.stages)[-1], "text_to_image")]
    return np.where(last == NOT_FOUND, recalled, last)


def answer_scores(
    found: Evaluation,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return for each query with answers the scores of its best answer and of its best other image.

    Args:
        found: An evaluation that kept its scores.

    Returns:
        Two arrays [Q'].
    """
    scores, positives = found.directions["text_to_image"]
    answered = np.diff(positives.offsets) > 0
    owner, columns = positives.rows, positives.columns
    best = np.full(len(scores), -np.inf, np.float32)
    np.maximum.at(best, owner, scores[owner, columns])
    other = np.full(len(scores), -np.inf, np.float32)
    step = max(1, _BLOCK // max(1, scores.shape[1]))
    for begin in range(0, len(scores), step):
        rows = scores[begin : begin + step].copy()
        own = (owner >= begin) & (owner < begin + step)
        rows[owner[own] - begin, columns[own]] = -np.inf
        other[begin : begin + len(rows)] = rows.max(1, initial=-np.inf)
    lengths = np.maximum(found.title_vectors, 1).astype(np.float32)
    return (best / lengths)[answered], (other / lengths)[answered]


def extreme_queries(
    found: Evaluation, split: Split, worst: int = 50, best: int = 20
) -> tuple[list[QueryDetail], list[QueryDetail]]:
    """Find the worst and the best queries.

    Args:
        found: An evaluation of the whole split that kept its scores.
        split: The split.
        worst: Queries whose best answer has the highest ranks; of equal ranks those whose answer
            lies farthest below the best other image.
        best: Queries whose first result is right, those with the largest lead first.

    Returns:
        The worst queries, the worst first, without those whose first result is right; the best
        queries, the best first.
    """
    positives = found.directions["text_to_image"].positives
    ranks = last_ranks(found)
    answered = np.flatnonzero(np.diff(positives.offsets) > 0)
    right, other = answer_scores(found)
    lead = right - other
    order = np.lexsort((lead, -ranks[answered]))
    wrong = [int(answered[i]) for i in order if ranks[answered[i]] > 0][:worst]
    sure = [int(answered[i]) for i in np.argsort(-lead) if ranks[answered[i]] == 0][:best]
    return (
        [_detail(found, split, positives, ranks, query) for query in wrong],
        [_detail(found, split, positives, ranks, query) for query in sure],
    )


def _detail(
    found: Evaluation, split: Split, positives: Positives, ranks: NDArray[np.int64], query: int
) -> QueryDetail:
    scores = found.directions["text_to_image"].scores[query]
    scores = scores / max(1, int(found.title_vectors[query]))
    own = positives.columns[positives.offsets[query] : positives.offsets[query + 1]]

    def ranked(positions: NDArray[np.int64]) -> list[RankedImage]:
        return [RankedImage(p, float(scores[p]), p in own) for p in positions.tolist()]

    assert ranks[query] != NO_POSITIVE
    return QueryDetail(
        query,
        int(split.query_ids[query]),
        split.texts[query],
        int(ranks[query]) + 1,
        ranked(own[np.argsort(-scores[own], kind="stable")][:SHOWN_ANSWERS]),
        ranked(found.best[query, :SHOWN_RESULTS]),
    )
