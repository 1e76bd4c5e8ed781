"""Ranks and recall, worked by hand on literal matrices and against slow oracles."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.errors import XmrError
from bagformer_cli.evaluation.candidates import Candidates, TopK, merge_stages, top_k
from bagformer_cli.evaluation.metrics import (
    NO_POSITIVE,
    NOT_FOUND,
    Positives,
    Recall,
    best_ranks,
    group_numbers,
    group_scores,
    recall,
)

# three queries, four images
SCORES = np.array([[0.9, 0.1, 0.8, 0.2], [0.3, 0.3, 0.3, 0.3], [0.4, 0.6, 0.5, 0.7]])
ANSWERS = Positives.from_lists([[2], [3, 1], [0]], 4)


def ranks_by_sorting(scores: np.ndarray, answers: list[list[int]]) -> list[int]:
    """The obvious oracle: sort all columns by (falling score, rising position) and look."""
    ranks = []
    for row, wanted in zip(scores, answers, strict=True):
        order = sorted(range(len(row)), key=lambda n: (-row[n], n))
        places = [order.index(n) for n in wanted]
        ranks.append(min(places) if places else NO_POSITIVE)
    return ranks


def test_the_rank_is_the_number_of_better_images() -> None:
    assert best_ranks(SCORES, ANSWERS).tolist() == [1, 1, 3]


def test_a_query_counts_when_any_of_its_images_is_in_the_top_k() -> None:
    result = recall(best_ranks(SCORES, ANSWERS), ks=(1, 2, 4))
    assert result == Recall({1: 0, 2: 2, 4: 3}, 3)
    assert result.at == {1: 0.0, 2: 2 / 3, 4: 1.0}
    assert result.mean == pytest.approx(5 / 9)


def test_equal_scores_come_in_order_of_position() -> None:
    for column in range(4):
        only = Positives.from_lists([[column]], 4)
        assert best_ranks(np.zeros((1, 4)), only).tolist() == [column]
    # a tied pair of answers counts from the lower one, whichever is named first
    assert best_ranks(np.zeros((1, 4)), Positives.from_lists([[3, 2]], 4)).tolist() == [2]


def test_images_without_a_query_are_left_out_or_counted_as_misses() -> None:
    images = ANSWERS.transposed()  # images 0..3 are wanted by queries 2, 1, 0, 1
    assert images.offsets.tolist() == [0, 1, 2, 3, 4]
    assert images.columns.tolist() == [2, 1, 0, 1]
    lonely = Positives.from_lists([[2], [], [0], [1]], 3)
    ranks = best_ranks(SCORES.T, lonely)
    assert ranks.tolist() == [1, NO_POSITIVE, 0, 1]
    assert recall(ranks, ks=(1, 2)) == Recall({1: 1, 2: 3}, 3)
    assert recall(ranks, ks=(1, 2), missing="miss") == Recall({1: 1, 2: 3}, 4)


def test_recall_without_any_answer_is_unknown_not_zero() -> None:
    nothing = recall(np.array([NO_POSITIVE]))
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert set(nothing.percent().values()) == {None}


def test_percent_is_what_the_table_shows() -> None:
    assert recall(np.array([0, 4, 9, 10])).percent() == {
        "recall@1": 25.0,
        "recall@5": 50.0,
        "recall@10": 75.0,
        "mean_recall": 50.0,
    }


matrices = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=60, deadline=None)
@given(rng=matrices, n_rows=st.integers(1, 7), n_columns=st.integers(1, 12))
def test_ranks_agree_with_sorting_whatever_the_ties_and_chunks(
    rng: np.random.Generator, n_rows: int, n_columns: int
) -> None:
    scores = rng.integers(0, 4, (n_rows, n_columns)).astype(np.float32)
    answers = [
        rng.choice(n_columns, rng.integers(0, min(4, n_columns) + 1), replace=False).tolist()
        for _ in range(n_rows)
    ]
    positives = Positives.from_lists(answers, n_columns)
    expected = ranks_by_sorting(scores, answers)
    assert best_ranks(scores, positives).tolist() == expected
    pieces = (scores[i : i + 2] for i in range(0, n_rows, 2))
    assert best_ranks(pieces, positives).tolist() == expected
    assert top_k(scores, n_columns).ranks(positives).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(rng=matrices, k=st.integers(1, 6), n_columns=st.integers(1, 12))
def test_the_best_k_are_those_of_a_full_sort_streamed_or_not(
    rng: np.random.Generator, k: int, n_columns: int
) -> None:
    scores = rng.integers(0, 4, (5, n_columns)).astype(np.float32)
    expected = [sorted(range(n_columns), key=lambda n: (-row[n], n))[:k] for row in scores]
    whole = top_k(scores, k)
    assert whole.positions.tolist() == expected
    np.testing.assert_array_equal(whole.scores, np.take_along_axis(scores, whole.positions, axis=1))
    streamed = TopK(5, k)
    starts = list(range(0, n_columns, 3))
    rng.shuffle(starts)
    for start in starts:
        streamed.add(scores[:, start : start + 3], start)
    assert streamed.candidates().positions.tolist() == expected
    np.testing.assert_array_equal(streamed.candidates().scores, whole.scores)


def test_large_chunks_are_cut_up_without_changing_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 40)).astype(np.float32)
    positives = Positives.from_lists([[int(rng.integers(40))] for _ in range(50)], 40)
    ranks, best = best_ranks(scores, positives), top_k(scores, 7)
    for module in ("metrics", "candidates"):
        monkeypatch.setattr(f"bagformer_cli.evaluation.{module}.BLOCK", 90)
    np.testing.assert_array_equal(best_ranks(scores, positives), ranks)
    np.testing.assert_array_equal(top_k(scores, 7).positions, best.positions)


def test_an_answer_outside_the_candidates_is_not_found() -> None:
    candidates = top_k(SCORES, 2)
    assert candidates.positions.tolist() == [[0, 2], [0, 1], [3, 1]]
    ranks = candidates.ranks(ANSWERS)
    assert ranks.tolist() == [1, 1, NOT_FOUND]
    assert recall(ranks, ks=(1, 2, 4)) == Recall({1: 0, 2: 2, 4: 2}, 3)


def test_rerank_and_merge_reorder_the_candidates_of_the_recall_stage() -> None:
    fast = Candidates(np.array([[5, 2, 9]]), np.array([[3.0, 2.0, 1.0]]))
    stages = merge_stages(fast, np.array([[0.0, 4.0, 4.5]]), beta=1.0)
    assert stages["recall"] is fast
    assert stages["rerank"].positions.tolist() == [[9, 2, 5]]
    assert stages["rerank"].scores.tolist() == [[4.5, 4.0, 0.0]]
    assert stages["merged"].positions.tolist() == [[2, 9, 5]]
    assert stages["merged"].scores.tolist() == [[6.0, 5.5, 3.0]]
    quarter = merge_stages(fast, np.array([[0.0, 4.0, 4.5]]), beta=0.25)["merged"]
    assert quarter.positions.tolist() == [[9, 2, 5]]
    assert quarter.scores.tolist() == [[4.75, 4.5, 0.75]]


def test_ties_after_reranking_come_in_order_of_position() -> None:
    fast = Candidates(np.array([[5, 2, 9]]), np.array([[3.0, 2.0, 1.0]]))
    assert fast.reordered(np.zeros((1, 3))).positions.tolist() == [[2, 5, 9]]


def test_several_images_of_one_product_count_once() -> None:
    groups = group_numbers(["coat", "hat", "coat", "bag"])
    assert groups.tolist() == [0, 1, 0, 2]
    scores = np.array([[0.9, 0.5, 0.8, 0.7]])
    assert group_scores(scores, groups).tolist() == [[0.9, 0.5, 0.7]]
    np.testing.assert_array_equal(
        group_scores(scores.T, groups, axis=0), group_scores(scores, groups).T
    )
    wanted = Positives.from_lists([[1, 3]], 4)
    assert best_ranks(scores, wanted).tolist() == [2]  # two images of the coat are before the bag
    assert best_ranks(group_scores(scores, groups), wanted.grouped(groups)).tolist() == [1]


def test_a_score_that_is_not_a_number_is_an_error_not_a_good_rank() -> None:
    broken = SCORES.copy()
    broken[1, 2] = np.nan
    with pytest.raises(XmrError, match="not a number"):
        best_ranks(broken, ANSWERS)
    with pytest.raises(XmrError, match="not a number"):
        top_k(broken, 2)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="4 columns wanted"):
        best_ranks(SCORES[:, :3], ANSWERS)
    with pytest.raises(ValueError, match="2 rows of scores, 3 wanted"):
        best_ranks(SCORES[:2], ANSWERS)
    with pytest.raises(ValueError, match="range"):
        Positives.from_lists([[4]], 4)
    with pytest.raises(ValueError, match="decrease"):
        Positives(np.array([0, 2, 1]), np.array([0]), 4)


# ------------------------------------------------------------------- what the original computed


@pytest.fixture
def original(shared: Path) -> dict[str, object]:
    text = (shared / "reference/muge/itm_eval.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@pytest.fixture
def scores(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "reference/muge/scores.npz") as arrays:
        return {"text_to_image": arrays["s_t2i"], "image_to_text": arrays["s_i2t"]}


def both_ways(case: dict, original: dict) -> dict[str, Positives]:
    lists = case.get("txt2img", original["txt2img"])
    texts = Positives.from_lists([lists[str(i)] for i in range(len(lists))], original["num_image"])
    return {"text_to_image": texts, "image_to_text": texts.transposed()}


def expected(case: dict, way: str) -> list[float]:
    prefix = "img" if way == "text_to_image" else "txt"  # the original names what is found
    return [case["result"][f"{prefix}_{name}"] for name in ("r1", "r5", "r10", "r_mean")]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["A_dense_all_images_have_text", "B_images_without_text"])
def test_dense_recall_is_the_original_s(name: str, original: dict, scores: dict) -> None:
    case = original["cases"][name]
    for way, positives in both_ways(case, original).items():
        ranks = best_ranks(scores[way], positives)
        figures = recall(ranks, missing="miss").percent()
        assert list(figures.values()) == expected(case, way)


@pytest.mark.shared
def test_without_the_images_that_no_text_names(original: dict, scores: dict) -> None:
    case = original["cases"]["B_images_without_text"]
    positives = both_ways(case, original)["image_to_text"]
    ours = recall(best_ranks(scores["image_to_text"], positives))
    without = case["images_without_text"]
    assert ours.n == original["num_image"] - len(without)
    share = original["num_image"] / ours.n  # the original divides the same hits by all images
    figures = [figure * share for figure in expected(case, "image_to_text")]
    assert list(ours.percent().values()) == pytest.approx(figures, rel=1e-12)


@pytest.mark.shared
@pytest.mark.parametrize("k", [3, 10, 20])
def test_recall_among_the_top_k_is_the_original_s(k: int, original: dict, scores: dict) -> None:
    sparse, dense = (
        original["cases"][f"{c}_top{k}{end}"]
        for c, end in (("D_sparse", ""), ("C", "_else_minus100"))
    )
    for way, positives in both_ways(sparse, original).items():
        candidates = top_k(scores[way], k)
        figures = recall(candidates.ranks(positives), missing="miss").percent()
        assert list(figures.values()) == expected(sparse, way)
        filled = np.full_like(scores[way], -100)
        np.put_along_axis(filled, candidates.positions, candidates.scores, axis=1)
        figures = recall(best_ranks(filled, positives), missing="miss").percent()
        if k >= 10:
            assert list(figures.values()) == expected(dense, way)
            continue
        # Beyond the third place the original's order of equal scores is an unstable sort's:
        # its figures lie between those of the answers last and first among their equals.
        assert figures["recall@1"] == expected(dense, way)[0]
        answers = np.zeros_like(filled)
        answers[positives.rows, positives.columns] = 1e-3
        low, high = (
            list(recall(best_ranks(filled + sign * answers, positives)).percent().values())
            for sign in (-1, 1)
        )
        for least, value, most in zip(low, expected(dense, way), high, strict=True):
            assert least <= value <= most


@pytest.mark.shared
def test_the_first_predictions_are_the_original_s(original: dict, scores: dict) -> None:
    best = top_k(scores["text_to_image"], 10)
    ids: dict[int, int] = {}
    for row, line in enumerate(original["t2i_pred_first3"]):
        for position, image_id in zip(best.positions[row].tolist(), line["item_ids"], strict=True):
            assert ids.setdefault(position, image_id) == image_id
    assert len(set(ids.values())) == len(ids)
