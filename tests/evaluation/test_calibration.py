"""Fitting what a score means: curves, the choice by held-out log loss, reliability."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bagformer_cli.calibration import Calibration
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.calibration import (
    Pairs,
    calibrate,
    fit,
    reliability,
    retrieved_pairs,
)
from bagformer_cli.evaluation.calibration_curves import isotonic, platt
from bagformer_cli.evaluation.encoded_split import EncodedSplit
from bagformer_cli.evaluation.metrics import Positives
from bagformer_cli.evaluation.sources import items_of_vectors, score_vectors
from bagformer_cli.vectors.multi_vectors import MultiVectors
from tests.support.remarks import Remarks


def drawn(probability: object, n: int = 4000, seed: int = 0) -> Pairs:
    """Pairs with scores from 0 to 1 that match with ``probability(score)``; ten a query."""
    random = np.random.default_rng(seed)
    scores = random.random(n)
    matches = random.random(n) < probability(scores)  # type: ignore[operator]
    return Pairs(scores, matches, np.arange(n) // 10, 10, 500)


def logistic(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-12 * scores + 7))


def steps(scores: np.ndarray) -> np.ndarray:
    return np.where(scores < 0.3, 0.02, np.where(scores < 0.6, 0.5, 0.55))


def test_isotonic_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.isotonic")
    pairs = drawn(steps, 300)
    scores = np.round(pairs.scores, 2)  # with ties
    other = sklearn.IsotonicRegression(out_of_bounds="clip").fit(scores, pairs.matches)
    grid = np.linspace(-0.2, 1.2, 57)
    margin = 1 / 302
    expected = np.interp(
        grid, other.X_thresholds_, np.clip(other.y_thresholds_, margin, 1 - margin)
    )
    curve = isotonic(scores, pairs.matches)
    np.testing.assert_allclose(curve.probability(grid), expected, atol=1e-9)
    assert 0 < min(curve.probabilities) <= max(curve.probabilities) < 1


def test_platt_is_the_logistic_regression_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    pairs = drawn(logistic)
    other = sklearn.LogisticRegression(C=1e9, tol=1e-10).fit(pairs.scores[:, None], pairs.matches)
    curve = platt(pairs.scores, pairs.matches)
    # Its targets are 0 and 1, Platt's are a thousandth away from them.
    assert curve.slope == pytest.approx(other.coef_[0, 0], rel=0.01)
    assert curve.intercept == pytest.approx(other.intercept_[0], rel=0.01)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_platt_does_not_depend_on_the_scale_of_scores(scale: float) -> None:
    pairs = drawn(logistic)
    curve = platt(scale * pairs.scores, pairs.matches)
    np.testing.assert_allclose(
        curve.probability(scale * pairs.scores),
        platt(pairs.scores, pairs.matches).probability(pairs.scores),
        atol=1e-4,
    )


def test_a_score_that_separates_all_pairs_has_a_finite_slope() -> None:
    scores = np.r_[np.linspace(0, 0.4, 50), np.linspace(0.6, 1, 50)]
    curve = platt(scores, scores > 0.5)
    low, high = curve.probability([0.0, 1.0])
    assert 0 < low < 0.05
    assert 0.95 < high < 1


@pytest.mark.parametrize("method", [platt, isotonic])
def test_a_misleading_score_gives_everybody_the_base_rate(method: object) -> None:
    scores = np.linspace(0, 1, 400)
    matches = np.random.default_rng(0).random(400) < 0.6 - 0.4 * scores
    found = method(scores, matches).probability(scores)  # type: ignore[operator]
    assert np.ptp(found[20:-20]) < 0.25  # a few pairs at the ends may be a step by chance
    assert (np.diff(found) >= 0).all()
    assert found.mean() == pytest.approx(matches.mean(), abs=0.02)


def test_equal_scores_give_the_base_rate() -> None:
    matches = np.arange(100) < 20
    for method in (platt, isotonic):
        assert method(np.full(100, 0.5), matches).probability(0.5) == pytest.approx(0.2, abs=0.01)


def test_the_method_with_the_lower_held_out_log_loss_is_kept() -> None:
    assert fit(drawn(logistic)).curve.method == "platt"
    found = fit(drawn(steps))
    assert found.curve.method == "isotonic"
    assert found.log_losses["isotonic"] < found.log_losses["platt"]
    assert found.log_losses["isotonic"] < found.log_losses["base_rate"]
    assert found.curve.counts["queries"] == 400
    assert found.curve.counts["pairs"] == sum(one.pairs for one in found.bins) == 4000


def test_held_out_figures_are_those_of_new_pairs() -> None:
    found = fit(drawn(logistic))
    new = drawn(logistic, seed=1)
    predicted = found.curve.probability(new.scores)
    right = np.where(new.matches, predicted, 1 - predicted)
    assert found.curve.held_out["log_loss"] == pytest.approx(-np.log(right).mean(), rel=0.1)
    assert found.curve.held_out["ece"] < 0.03


def test_pairs_of_one_query_are_held_out_together() -> None:
    """A score that only names its query predicts nothing about other queries."""
    random = np.random.default_rng(0)
    queries = np.repeat(np.arange(40), 10)
    scores = random.permutation(40)[queries] + random.random(400) / 100
    matches = (random.random(40) < 0.5)[queries]
    found = fit(Pairs(scores, matches, queries, 10, 100))
    assert found.log_losses["isotonic"] > 0.65
    assert found.log_losses["platt"] > 0.65


def test_reliability_by_hand() -> None:
    bins = reliability(np.array([0.05, 0.15, 0.15, 1.0]), np.array([False, True, False, True]))
    assert [(one.low, one.pairs, one.matching) for one in bins] == [
        (0.0, 1, 0.0),
        (0.1, 2, 0.5),
        (0.9, 1, 1.0),
    ]


def encoded(n_titles: int, n_images: int) -> EncodedSplit:
    """Titles of one and two vectors; the first images point in the titles' directions."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n_images, 8), dim=1)
    titles = [
        directions[[i] if i % 2 else [i, i]] if i < n_images else directions[[0]]
        for i in range(n_titles)
    ]
    images = [directions[[i]] for i in range(n_images)]
    return EncodedSplit(
        items_of_vectors(MultiVectors.from_list(images)),
        items_of_vectors(MultiVectors.from_list(titles)),
    )


def test_pairs_are_the_first_results_with_their_mean_scores() -> None:
    positives = Positives.from_lists([[0], [1], [], [3]], 15)
    both = encoded(4, 15)
    found = retrieved_pairs(both, positives, score_vectors(both))
    t2i = found["text_to_image"]
    assert np.unique(t2i.queries).tolist() == [0, 1, 3]  # one without an answer is left out
    assert len(t2i.scores) == 30
    assert t2i.scores[t2i.matches] == pytest.approx([1, 1, 1])  # means, for one vector and for two
    assert t2i.scores.max() <= 1 + 1e-6
    i2t = found["image_to_text"]
    assert np.unique(i2t.queries).tolist() == [0, 1, 3]
    assert len(i2t.scores) == 12  # a pool of four titles
    assert i2t.matches.sum() == 3


def both(pairs: Pairs) -> dict[str, Pairs]:
    return {"text_to_image": pairs, "image_to_text": pairs}


KNOWN = Calibration("0" * 16, {}, "demo")


@pytest.mark.parametrize("matching", [0, 9, 3991, 4000])
def test_too_few_pairs_of_one_kind_are_refused(matching: int) -> None:
    pairs = drawn(logistic)._replace(matches=np.arange(4000) < matching)
    with pytest.raises(InputError, match="too few pairs") as caught:
        calibrate(both(pairs), KNOWN)
    assert f"{matching} matching" in str(caught.value)


def test_a_direction_with_too_few_pairs_is_left_out_and_named() -> None:
    remarks = Remarks()
    few = drawn(logistic)._replace(matches=np.arange(4000) < 5)
    found, fits = calibrate(
        {"text_to_image": drawn(logistic, 150), "image_to_text": few}, KNOWN, remarks
    )
    assert list(found.curves) == list(fits) == ["text_to_image"]
    assert "image to text" in remarks.warnings[1]
    assert "5 matching" in remarks.warnings[1]
    assert "rough" in remarks.warnings[0]
