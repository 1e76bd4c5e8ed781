"""Contrastive and matching losses equal literal versions of their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bagformer_cli.losses.contrastive import contrastive_loss
from bagformer_cli.losses.matching import (
    hard_negatives,
    matching_loss,
    reversed_negatives,
)


def literal_contrastive(t2i: Tensor, i2t: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """Compute the formula pair by pair."""

    def one_side(scores: Tensor, positive: Tensor) -> Tensor:
        terms = []
        for row, wanted in zip(scores / temperature, positive, strict=True):
            if not wanted.any():
                continue
            total = torch.stack([s.exp() for s in row]).sum()
            chosen = [-(s.exp() / total).log() for s, w in zip(row, wanted, strict=True) if w]
            terms.append(torch.stack(chosen).mean())
        return torch.stack(terms).mean()

    return (one_side(t2i, positives) + one_side(i2t, positives.T)) / 2


@pytest.mark.parametrize("seed", range(3))
def test_the_contrastive_loss_equals_its_formula_with_gradients(seed: int) -> None:
    torch.manual_seed(seed)
    t2i = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    i2t = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    positives = torch.rand(5, 4) < 0.3
    positives[0] = False
    positives[1, 2] = True
    ours = contrastive_loss(t2i, i2t, positives, 0.3)
    literal = literal_contrastive(t2i, i2t, positives, 0.3)
    torch.testing.assert_close(ours.double(), literal, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (t2i, i2t)),
        torch.autograd.grad(literal, (t2i, i2t)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_equal_scores_have_the_random_guess_loss() -> None:
    scores = torch.zeros(8, 8)
    assert contrastive_loss(scores, scores, torch.eye(8, dtype=torch.bool)) == pytest.approx(
        math.log(8)
    )


def test_the_order_of_the_pairs_does_not_matter() -> None:
    torch.manual_seed(0)
    scores, order = torch.randn(6, 6), torch.randperm(6)
    positives = torch.eye(6, dtype=torch.bool) | (torch.rand(6, 6) < 0.2)
    shuffled = scores[order][:, order]
    before = contrastive_loss(scores, scores.T, positives, 0.1)
    after = contrastive_loss(shuffled, shuffled.T, positives[order][:, order], 0.1)
    assert float(before) == pytest.approx(float(after), rel=1e-6)


def test_a_second_positive_is_no_negative() -> None:
    scores = torch.zeros(2, 3, requires_grad=True)
    positives = torch.tensor([[True, True, False], [False, False, True]])
    contrastive_loss(scores, scores.T, positives).backward()
    assert scores.grad is not None
    assert scores.grad[0, 1] < 0  # a higher score would lower the loss
    assert scores.grad[0, 2] > 0


def test_matching_is_cross_entropy_over_two_logits() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert float(matching_loss(logits, torch.tensor([1, 1]))) == pytest.approx(expected)


def test_a_positive_is_never_drawn_as_a_negative() -> None:
    torch.manual_seed(0)
    positives = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    scores = torch.where(positives, 1e4, 0.0)  # the positives would win any draw
    for _ in range(50):
        columns, possible = hard_negatives(scores, positives)
        assert possible.tolist() == [True, False, True]
        assert columns[0] == 1


def test_harder_negatives_are_drawn_more_often() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[9.0, 3.0, 0.0, 0.0]]).repeat(2000, 1)
    positives = torch.tensor([[True, False, False, False]]).repeat(2000, 1)
    columns, _ = hard_negatives(scores, positives)
    share = (columns == 1).float().mean()
    assert float(share) == pytest.approx(math.exp(3) / (math.exp(3) + 2), abs=0.03)


def test_a_negative_exists_even_where_every_score_underflows() -> None:
    scores = torch.tensor([[0.0, -1e9, -1e9]])
    positives = torch.tensor([[True, False, False]])
    columns, possible = hard_negatives(scores, positives)
    assert possible.all()
    assert columns.item() in (1, 2)


def test_negatives_of_equal_scores_are_uniform_over_all_that_do_not_match() -> None:
    """BagFormer's code draws from ``ones(B, B)`` with a diagonal of zeros."""
    torch.manual_seed(0)
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 3] = True
    counts = torch.zeros(6, 6)
    for _ in range(3000):
        columns, possible = hard_negatives(torch.zeros(6, 6), positives)
        assert possible.all()
        counts[torch.arange(6), columns] += 1
    weights = (~positives).float()
    expected = weights / weights.sum(dim=1, keepdim=True)
    assert float((counts / 3000 - expected).abs().max()) < 0.04
    assert float(counts[positives].max()) == 0


def literal_reversal(count: int) -> list[tuple[int, int, int]]:
    """(title, image, label): the first half as it is, the second with its images reversed."""
    half = (count + 1) // 2
    pairs = [(n, n, 1) for n in range(half)]
    for place, title in enumerate(range(half, count)):
        image = count - 1 - place
        if image != title:  # the middle one meets its own image: neither right nor wrong
            pairs.append((title, image, 0))
    return pairs


@pytest.mark.parametrize("count", range(1, 12))
def test_the_second_half_is_reversed_and_its_middle_item_left_out(count: int) -> None:
    own = torch.arange(count)
    found = reversed_negatives(own, torch.eye(count, dtype=torch.bool))
    assert [tuple(map(int, row)) for row in zip(*found, strict=True)] == literal_reversal(count)


def test_a_reversed_pair_that_matches_is_left_out() -> None:
    positives = torch.eye(4, dtype=torch.bool)
    positives[2, 3] = True  # two titles of the second half share an image
    rows, columns, labels = reversed_negatives(torch.arange(4), positives)
    assert list(zip(rows.tolist(), columns.tolist(), labels.tolist(), strict=True)) == [
        (0, 0, 1), (1, 1, 1), (3, 2, 0),
    ]  # fmt: skip
