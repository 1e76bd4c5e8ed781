"""Measures of a whole order: nDCG@10, mean reciprocal rank, mean average precision.

Recall@k asks for one answer among the first k. These measures look at the ranks of all answers of a
query. With answers at ranks 0 and 3 of a pool::

    average precision   (1/1 + 2/4) / 2 = 0.75          precision at each answer, averaged
    reciprocal rank     1 / (0 + 1) = 1                 of the best answer
    nDCG@10             (1/log2(2) + 1/log2(5)) / (1/log2(2) + 1/log2(3)) = 0.877
                                                        Järvelin and Kekäläinen 2002, gains 0 or 1

Shapes: R rows, C columns, M answers of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.evaluation.candidates import Candidates
from bagformer_cli.evaluation.metrics import NOT_FOUND, Integers, Positives, Scores, require_numbers

CUT = 10
"""Columns that nDCG looks at."""

_BLOCK = 1 << 22  # numbers that are compared at once


@dataclass(frozen=True, slots=True)
class OrderMetrics:
    """Measures of each row that has answers, in [0, 1].

    Args:
        ndcg: [R'] nDCG@10.
        reciprocal_rank: [R'].
        average_precision: [R'].
    """

    ndcg: NDArray[np.float64]
    reciprocal_rank: NDArray[np.float64]
    average_precision: NDArray[np.float64]

    def percent(self) -> dict[str, float | None]:
        """Return the means in percent; None if no row has answers."""
        values = {
            f"ndcg@{CUT}": self.ndcg,
            "mrr": self.reciprocal_rank,
            "map": self.average_precision,
        }
        return {
            name: 100.0 * float(one.mean()) if len(one) else None for name, one in values.items()
        }


def answer_ranks(scores: Scores, positives: Positives) -> Integers:
    """Compute the rank of every answer among all columns.

    Args:
        scores: [R, C]; of equal scores the lower column comes first.
        positives: The answers of each row.

    Returns:
        [M] ranks from 0, in the order of ``positives.columns``.

    Raises:
        XmrError: A score is NaN.

    >>> scores = np.array([[0.9, 0.1, 0.8]])
    >>> answer_ranks(scores, Positives.from_lists([[2, 1]], 3)).tolist()
    [1, 2]
    """
    rows, columns = positives.rows, positives.columns
    ranks = np.empty(len(columns), dtype=np.int64)
    before = np.arange(positives.n_columns)
    step = max(1, _BLOCK // max(1, positives.n_columns))
    for begin in range(0, len(columns), step):
        some = slice(begin, begin + step)
        own = scores[rows[some]]
        require_numbers(own)
        mine = own[np.arange(len(own)), columns[some]][:, None]
        earlier = before[None, :] < columns[some][:, None]
        ranks[some] = np.count_nonzero((own > mine) | ((own == mine) & earlier), axis=1)
    return ranks


def candidate_ranks(candidates: Candidates, positives: Positives) -> Integers:
    """Find the rank of every answer among the candidates of its row.

    Returns:
        [M] ranks from 0, in the order of ``positives.columns``; NOT_FOUND if it is none of them.
    """
    rows, columns = positives.rows, positives.columns
    found = candidates.positions[rows] == columns[:, None]
    ranks: Integers = np.where(found.any(1), found.argmax(1), NOT_FOUND)
    return ranks


def order_metrics(ranks: Integers, positives: Positives) -> OrderMetrics:
    """Compute the measures of each row from the ranks of its answers.

    Args:
        ranks: [M] from :func:`answer_ranks` or :func:`candidate_ranks`.
        positives: The answers of each row. Rows without answers are left out.

    >>> found = order_metrics(np.array([0, 3]), Positives.from_lists([[5, 7]], 9))
    >>> found.average_precision.tolist(), found.ndcg.round(3).tolist()
    ([0.75], [0.877])
    """
    counts = np.diff(positives.offsets)
    rows = positives.rows
    ranks = ranks[np.lexsort((ranks, rows))]  # rising within each row
    number = np.arange(len(ranks)) - positives.offsets[:-1][rows]  # 0 for a row's best answer
    seen = ranks != NOT_FOUND
    place = np.where(seen, ranks, 0) + 1.0
    precision = np.where(seen, (number + 1) / place, 0)
    gains = np.where(ranks < CUT, 1 / np.log2(place + 1), 0)
    best = np.cumsum(1 / np.log2(np.arange(CUT) + 2))
    some = counts > 0
    first = positives.offsets[:-1][some]
    if not len(first):
        none = np.zeros(0)
        return OrderMetrics(none, none, none)
    sums = np.add.reduceat(np.stack([gains, precision]), first, axis=1)
    return OrderMetrics(
        sums[0] / best[np.minimum(counts[some], CUT) - 1],
        np.where(seen, 1 / place, 0)[first],
        sums[1] / counts[some],
    )


def interval(
    values: Sequence[NDArray[np.float64]], *, draws: int = 2000, seed: int = 0
) -> list[tuple[float, float]]:
    """Compute the 95 % interval of means over rows, by the bootstrap (Efron 1979).

    Args:
        values: Measures of the same R' rows.
        draws: Number of samples of the rows.
        seed: Random seed of the samples.

    Returns:
        Lower and upper bound for each measure; NaN without rows.
    """
    table = np.stack(values, axis=1)
    rows = len(table)
    if not rows:
        return [(float("nan"), float("nan"))] * len(values)
    random = np.random.default_rng(seed)
    means = np.empty((draws, len(values)))
    for draw in range(draws):
        counts = np.bincount(random.integers(0, rows, rows), minlength=rows)
        means[draw] = counts @ table / rows
    lower, upper = np.percentile(means, [2.5, 97.5], axis=0)
    return list(zip(lower.tolist(), upper.tolist(), strict=True))
