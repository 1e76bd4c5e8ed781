"""Pretraining losses and their gradients equal literal versions of their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bagformer_cli.losses.contrastive import (
    SoftTargets,
    contrastive_loss,
    momentum_contrastive_loss,
)
from bagformer_cli.losses.masked import masked_patch_losses, masked_token_losses
from bagformer_cli.losses.matching import matching_loss, reversed_negatives


def log_softmax(row: Tensor) -> Tensor:
    """Compute the formula literally."""
    return row - torch.stack([value.exp() for value in row]).sum().log()


def close(ours: Tensor, literal: Tensor, *inputs: Tensor) -> None:
    """Check that values and gradients are the same."""
    torch.testing.assert_close(ours.double(), literal, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(literal, inputs), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_mlm_equals_its_formula(alpha: float) -> None:
    torch.manual_seed(0)
    logits, momentum, tokens = values(4, 7), values(4, 7), torch.tensor([0, 6, 3, 3])
    terms = []
    for row, belief, token in zip(logits, momentum.detach(), tokens, strict=True):
        log_p, q = log_softmax(row), log_softmax(belief).exp()
        soft = -torch.stack([q[v] * log_p[v] for v in range(7)]).sum()
        terms.append((1 - alpha) * -log_p[token] + alpha * soft)
    ours = masked_token_losses(logits, tokens, momentum, alpha).mean()
    close(ours, torch.stack(terms).mean(), logits)
    if alpha:
        assert torch.autograd.grad(
            masked_token_losses(logits, tokens, momentum, alpha).sum(), momentum, allow_unused=True
        ) == (None,)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_mfm_equals_its_formula(temperature: float | None) -> None:
    torch.manual_seed(1)
    outputs, candidates, own = values(3, 5), values(6, 5), torch.tensor([4, 0, 5])
    terms = []
    for output, place in zip(outputs, own, strict=True):
        products = []
        for candidate in candidates.detach():
            product = (output * candidate).sum()
            if temperature is not None:
                product = product / output.norm() / candidate.norm() / temperature
            products.append(product)
        terms.append(-log_softmax(torch.stack(products))[place])
    ours = masked_patch_losses(outputs, own, candidates, temperature).mean()
    close(ours, torch.stack(terms).mean(), outputs)
    assert torch.autograd.grad(
        masked_patch_losses(outputs, own, candidates).sum(), candidates, allow_unused=True
    ) == (None,)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_itc_with_soft_targets_equals_its_formula(alpha: float) -> None:
    torch.manual_seed(2)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    sides, inputs, literal = [], [temperature], []
    for rows, columns in ((3, 8), (4, 6)):
        scores, momentum = values(rows, columns), values(rows, columns).detach()
        positives = torch.rand(rows, columns) < 0.3
        positives[torch.arange(rows), torch.arange(rows)] = True
        sides.append(SoftTargets(scores, momentum, positives))
        inputs.append(scores)
        terms = []
        for r in range(rows):
            log_p = log_softmax(scores[r] / temperature)
            q = log_softmax(momentum[r] / temperature.detach()).exp()
            wanted = positives[r].double() / positives[r].sum()
            terms.append(-((alpha * q + (1 - alpha) * wanted) * log_p).sum())
        literal.append(torch.stack(terms).mean())
    ours = momentum_contrastive_loss(*sides, alpha, temperature)
    close(ours, (literal[0] + literal[1]) / 2, *inputs)


def test_without_momentum_and_queue_it_is_the_plain_contrastive_loss() -> None:
    torch.manual_seed(3)
    t2i, i2t, positives = torch.randn(5, 5), torch.randn(5, 5), torch.eye(5, dtype=torch.bool)
    soft = momentum_contrastive_loss(
        SoftTargets(t2i, t2i, positives), SoftTargets(i2t, i2t, positives.T), 0.0, 0.1
    )
    torch.testing.assert_close(soft, contrastive_loss(t2i, i2t, positives, 0.1))


def test_one_logit_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[2.0], [-1.0], [0.5]])
    labels = torch.tensor([1, 0, 0])
    expected = sum(
        math.log(1 + math.exp(-x if y else x))
        for x, y in zip(logits[:, 0].tolist(), labels.tolist(), strict=True)
    )
    assert float(matching_loss(logits, labels)) == pytest.approx(expected / 3)


def test_the_second_half_is_reversed_and_positives_are_dropped() -> None:
    own = torch.arange(8)
    positives = torch.eye(8, dtype=torch.bool)
    positives[4, 7] = True  # an equal title: reversing would make this pair a false negative
    rows, columns, labels = reversed_negatives(own, positives)
    assert rows.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert columns.tolist() == [0, 1, 2, 3, 6, 5, 4]
    assert labels.tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_the_middle_of_an_odd_half_is_left_out() -> None:
    rows, columns, labels = reversed_negatives(torch.arange(6), torch.eye(6, dtype=torch.bool))
    assert list(zip(rows.tolist(), columns.tolist(), labels.tolist(), strict=True)) == [
        (0, 0, 1),
        (1, 1, 1),
        (2, 2, 1),
        (3, 5, 0),
        (5, 3, 0),
    ]
