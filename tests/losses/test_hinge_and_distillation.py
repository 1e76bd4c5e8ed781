"""Hinge, distillation and captioning losses and poolings equal literal versions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bagformer_cli.config.scoring import Scoring
from bagformer_cli.losses.captioning import captioning_loss
from bagformer_cli.losses.distill import distillation_loss
from bagformer_cli.losses.hinge import power_hinge_loss, triplet_loss
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.training.objectives.distillation import nearest_candidates
from bagformer_cli.vectors.multi_vectors import MultiVectors

Loss = Callable[[Tensor, Tensor], Tensor]


def literal_power_hinge(
    t2i: Tensor, i2t: Tensor, positives: Tensor, margin: float, diagonal: bool
) -> Tensor:
    def side(scores: Tensor, positive: Tensor) -> Tensor:
        terms = []
        for i in range(len(scores)):
            for p in range(scores.shape[1]):
                if not positive[i, p]:
                    continue
                total = torch.tensor(1e-5, dtype=scores.dtype)
                for j in range(scores.shape[1]):
                    if (j == p and diagonal) or not positive[i, j]:
                        total = total + (margin + scores[i, j] - scores[i, p]).clamp_min(0) ** 8
                terms.append(total ** (1 / 8))
        return torch.stack(terms).sum() / len(terms)

    return side(t2i, positives) + side(i2t, positives.T)


def literal_triplet(t2i: Tensor, i2t: Tensor, positives: Tensor, margin: float) -> Tensor:
    def side(scores: Tensor, positive: Tensor) -> Tensor:
        terms = []
        for i in range(len(scores)):
            for p in range(scores.shape[1]):
                if positive[i, p]:
                    worst = torch.zeros((), dtype=scores.dtype)
                    for j in range(scores.shape[1]):
                        if not positive[i, j]:
                            worst = torch.maximum(worst, margin + scores[i, j] - scores[i, p])
                    terms.append(worst)
        return torch.stack(terms).sum() / len(terms)

    return side(t2i, positives) + side(i2t, positives.T)


def literal_soft_cross_entropy(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    total = torch.zeros((), dtype=student.dtype)
    for mine, theirs, there in zip(student, teacher, known, strict=True):
        columns = [c for c in range(len(mine)) if there[c]]
        own = sum(mine[c].exp() for c in columns)
        their = sum(theirs[c].exp() for c in columns)
        for c in columns:
            total = total - theirs[c].exp() / their * (mine[c].exp() / own).log()
    return total / len(student)


def literal_squares(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    pairs = [
        (student[r, c] - teacher[r, c]) ** 2
        for r in range(len(student))
        for c in range(student.shape[1])
        if known[r, c]
    ]
    return torch.stack(pairs).mean()


def literal_order(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    rows = []
    for r in range(len(student)):
        terms = [
            (1 + (student[r, k] - student[r, j]).exp()).log()
            for j in range(student.shape[1])
            for k in range(student.shape[1])
            if known[r, j] and known[r, k] and teacher[r, j] > teacher[r, k]
        ]
        rows.append(torch.stack(terms).mean())
    return torch.stack(rows).mean()


LITERAL = {
    "cross_entropy": literal_soft_cross_entropy,
    "mse": literal_squares,
    "ranknet": literal_order,
}


def matrices(seed: int, rows: int = 5, columns: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    t2i = torch.randn(rows, columns, dtype=torch.float64, requires_grad=True)
    i2t = torch.randn(columns, rows, dtype=torch.float64, requires_grad=True)
    positives = torch.zeros(rows, columns, dtype=torch.bool)
    positives[torch.arange(rows), torch.arange(rows) % columns] = True
    positives[0, 2] = True
    return t2i, i2t, positives


def same_with_gradients(ours: Tensor, literal: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours.double(), literal.double(), rtol=1e-5, atol=1e-6)
    mine = torch.autograd.grad(ours, inputs, allow_unused=True)
    theirs = torch.autograd.grad(literal, inputs, allow_unused=True)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("margin", [0.2, 0.6])
def test_the_power_hinge_equals_its_formula(seed: int, diagonal: bool, margin: float) -> None:
    t2i, i2t, positives = matrices(seed)
    ours = power_hinge_loss(t2i, i2t, positives, margin, include_diagonal=diagonal)
    same_with_gradients(
        ours, literal_power_hinge(t2i, i2t, positives, margin, diagonal), (t2i, i2t)
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_triplet_loss_equals_its_formula(seed: int) -> None:
    t2i, i2t, positives = matrices(seed)
    ours = triplet_loss(t2i, i2t, positives, 0.2)
    same_with_gradients(ours, literal_triplet(t2i, i2t, positives, 0.2), (t2i, i2t))


@pytest.mark.parametrize("kind", sorted(LITERAL))
@pytest.mark.parametrize("temperatures", [(1 / 16, 1 / 16), (1 / 2, 1 / 16), (1.0, 1 / 6)])
def test_distillation_equals_its_formula_in_both_directions(
    kind: str, temperatures: tuple[float, float]
) -> None:
    t2i, i2t, _ = matrices(0)
    torch.manual_seed(9)
    teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    of_teacher, of_student = temperatures
    ours = distillation_loss(
        (t2i, i2t),
        teacher,
        kind,  # type: ignore[arg-type]
        student_temperature=of_student,
        teacher_temperature=of_teacher,
    )
    literal = sum(
        LITERAL[kind](
            mine / of_student, theirs / of_teacher, torch.ones_like(theirs, dtype=torch.bool)
        )
        for mine, theirs in zip((t2i, i2t), teacher, strict=True)
    )
    same_with_gradients(ours, literal / 2, (t2i, i2t))


def test_mse_with_a_factor_and_an_offset_equals_aladins() -> None:
    """``mse_loss(student * w + b, teacher)``, in ALADIN of one matrix: the mean of both sides."""
    t2i, _, _ = matrices(0)
    torch.manual_seed(9)
    teacher = torch.randn(5, 4, dtype=torch.float64)
    line = torch.tensor([0.5, 0.25], dtype=torch.float64, requires_grad=True)
    ours = distillation_loss((t2i, t2i.T), (teacher, teacher.T), "mse", scale_and_offset=line)
    theirs = torch.nn.functional.mse_loss(t2i * line[0] + line[1], teacher)
    same_with_gradients(ours, theirs, (t2i, line))


@pytest.mark.parametrize("kind", sorted(LITERAL))
def test_pairs_that_the_teacher_did_not_score_are_left_out(kind: str) -> None:
    t2i, i2t, _ = matrices(0)
    known = torch.tensor([[True, True, False, True]] * 5)
    teacher = torch.randn(5, 4, dtype=torch.float64).masked_fill(~known, -torch.inf)
    ours = distillation_loss((t2i, i2t), (teacher, teacher.T), kind, known=known)  # type: ignore[arg-type]
    same_with_gradients(ours, LITERAL[kind](t2i, teacher, known), (t2i,))
    (gradient,) = torch.autograd.grad(
        distillation_loss((t2i, i2t), (teacher, teacher.T), kind, known=known),  # type: ignore[arg-type]
        (t2i,),
    )
    assert torch.equal(gradient[:, 2], torch.zeros(5, dtype=torch.float64))


def test_the_teacher_gets_no_gradient() -> None:
    t2i, i2t, _ = matrices(0)
    teacher = torch.randn(5, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    distillation_loss((t2i, i2t), teacher).backward()
    assert teacher[0].grad is None
    assert t2i.grad is not None


LOSSES: dict[str, Loss] = {
    "power": lambda scores, positives: power_hinge_loss(scores, scores.T, positives, 0.6),
    "triplet": lambda scores, positives: triplet_loss(scores, scores.T, positives, 0.2),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    torch.manual_seed(0)
    scores, order = torch.randn(6, 6), torch.randperm(6)
    positives = torch.eye(6, dtype=torch.bool) | (torch.rand(6, 6) < 0.2)
    before = LOSSES[name](scores, positives)
    after = LOSSES[name](scores[order][:, order], positives[order][:, order])
    assert float(before) == pytest.approx(float(after), rel=1e-6)


def test_captioning_is_the_mean_over_predicted_tokens() -> None:
    ahead = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -1.0, -1.0]])
    behind = torch.tensor([[-0.5, -0.5, -9.0], [-1.0, -1.0, -1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = (1 + 2 + 3 + 1 + 1 + 0.5 + 0.5 + 1 + 1 + 1) / 5
    assert float(captioning_loss(ahead, behind, mask)) == pytest.approx(expected)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("pooling", ["each", "text", "image", "both", "mean"])
def test_every_pooling_equals_its_formula(pooling: str, mean: bool) -> None:
    torch.manual_seed(0)
    texts = [torch.randn(n, 4, dtype=torch.float64) for n in (2, 3, 1)]
    images = [torch.randn(n, 4, dtype=torch.float64) for n in (4, 2)]
    t2i, i2t = pooled_maxsim(
        MultiVectors.from_list(texts).to(dtype=torch.float32),
        MultiVectors.from_list(images).to(dtype=torch.float32),
        Scoring(pooling, mean),  # type: ignore[arg-type]
    )
    for q, text in enumerate(texts):
        for n, image in enumerate(images):
            products = text @ image.T
            by_text, by_image = products.amax(1).sum(), products.amax(0).sum()
            if mean:
                by_text, by_image = by_text / len(text), by_image / len(image)
            expected = {
                "each": (by_text, by_image),
                "text": (by_text, by_text),
                "image": (by_image, by_image),
                "both": (by_text + by_image, by_text + by_image),
                "mean": (products.mean(), products.mean()),
            }[pooling]
            assert float(t2i[q, n]) == pytest.approx(float(expected[0]), abs=1e-5)
            assert float(i2t[n, q]) == pytest.approx(float(expected[1]), abs=1e-5)


def test_candidates_are_the_own_image_and_the_best_others() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.2, 0.1, 0.9, 0.8]])
    own = torch.tensor([[True, False, False, False], [False, True, False, False]])
    assert nearest_candidates(scores, own, 2).tolist() == [
        [True, True, False, False],
        [False, True, True, False],
    ]


def test_a_loss_that_is_zero_has_finite_gradients() -> None:
    scores = torch.eye(3) * 10
    scores.requires_grad_()
    loss = power_hinge_loss(scores, scores.T, torch.eye(3, dtype=torch.bool), 0.2)
    loss.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert float(loss.detach()) == pytest.approx(2 * 1e-5**0.125, rel=1e-4)
