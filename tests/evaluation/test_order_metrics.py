"""nDCG, reciprocal rank and average precision against their formulas, query by query."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bagformer_cli.errors import XmrError
from bagformer_cli.evaluation.candidates import top_k
from bagformer_cli.evaluation.metrics import NOT_FOUND, Positives, best_ranks
from bagformer_cli.evaluation.order_metrics import (
    answer_ranks,
    candidate_ranks,
    interval,
    order_metrics,
)


def pool(seed: int, rows: int = 40, columns: int = 30) -> tuple[np.ndarray, Positives]:
    """Make scores with many ties, and up to twelve answers a row; some rows have none."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 9, (rows, columns)).astype(np.float32)
    lists = [random.permutation(columns)[: random.integers(0, 13)].tolist() for _ in range(rows)]
    return scores, Positives.from_lists(lists, columns)


def order(row: np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda column: (-row[column], column))


def answers_of(positives: Positives, row: int) -> list[int]:
    return positives.columns[positives.offsets[row] : positives.offsets[row + 1]].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_measures_are_those_of_the_formulas(seed: int) -> None:
    scores, positives = pool(seed)
    found = order_metrics(answer_ranks(scores, positives), positives)
    at = 0
    for row, own in enumerate(scores):
        answers = answers_of(positives, row)
        if not answers:
            continue
        right = [column in answers for column in order(own)]
        precisions = [sum(right[: i + 1]) / (i + 1) for i, hit in enumerate(right) if hit]
        gain = sum(hit / math.log2(i + 2) for i, hit in enumerate(right[:10]))
        ideal = sum(1 / math.log2(i + 2) for i in range(min(10, len(answers))))
        assert found.average_precision[at] == pytest.approx(sum(precisions) / len(answers))
        assert found.reciprocal_rank[at] == pytest.approx(1 / (right.index(True) + 1))
        assert found.ndcg[at] == pytest.approx(gain / ideal)
        at += 1
    assert at == len(found.ndcg)


def test_the_best_answer_has_the_rank_that_recall_counts() -> None:
    scores, positives = pool(5)
    ranks = answer_ranks(scores, positives)
    best = best_ranks(scores, positives)
    for row in range(len(scores)):
        own = ranks[positives.offsets[row] : positives.offsets[row + 1]]
        assert best[row] == (own.min() if len(own) else -1)


def test_candidates_give_the_ranks_of_the_whole_pool_as_far_as_they_reach() -> None:
    scores, positives = pool(6)
    ranks = answer_ranks(scores, positives)
    found = candidate_ranks(top_k(scores, 7), positives)
    assert found.tolist() == np.where(ranks < 7, ranks, NOT_FOUND).tolist()
    measures = order_metrics(found, positives)
    assert (measures.average_precision <= order_metrics(ranks, positives).average_precision).all()


def test_no_answers_are_no_figures() -> None:
    positives = Positives.from_lists([[], []], 3)
    found = order_metrics(answer_ranks(np.zeros((2, 3), np.float32), positives), positives)
    assert found.percent() == {"ndcg@10": None, "mrr": None, "map": None}


def test_scores_that_are_no_numbers_are_refused() -> None:
    scores = np.array([[np.nan, 1.0]], np.float32)
    with pytest.raises(XmrError, match="not a number"):
        answer_ranks(scores, Positives.from_lists([[0]], 2))


def test_the_interval_holds_the_mean_and_narrows_with_more_rows() -> None:
    random = np.random.default_rng(0)
    widths = []
    for rows in (50, 800):
        values = random.random(rows)
        ((lower, upper),) = interval([values])
        assert lower < values.mean() < upper
        assert upper - lower == pytest.approx(2 * 1.96 * values.std() / rows**0.5, rel=0.15)
        widths.append(upper - lower)
    assert widths[1] < widths[0] / 3
