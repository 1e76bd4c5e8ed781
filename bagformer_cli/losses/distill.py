"""Distillation losses between two score matrices of the same titles and images.

The student's matrix carries gradients, the teacher's does not. Both come in two directions (rows of
``t2i`` are titles, rows of ``i2t`` images); the loss is the mean of the two, each a mean over its
rows. Pairs that the teacher did not score (``known`` is False) are left out.

Shapes: R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["cross_entropy", "mse", "ranknet"]


def distillation_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    kind: Kind = "cross_entropy",
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    known: Tensor | None = None,
    scale_and_offset: Tensor | None = None,
) -> Tensor:
    """Compute the distance of the student's scores from the teacher's, in both directions.

    Args:
        student: t2i [Q, N] and i2t [N, Q], unscaled.
        teacher: The teacher's t2i and i2t, unscaled.
        kind: See :func:`soft_cross_entropy`, :func:`squared_error` and :func:`ranknet_loss`.
        student_temperature: Divides the student's scores.
        teacher_temperature: Divides the teacher's.
        known: [Q, N] bool, the pairs that the teacher scored; None: all. If some are missing, only
            title → image is compared: the candidates were chosen for titles, not for images.
        scale_and_offset: [2], applied to the student's divided scores, with gradients: ``mse`` then
            is ``mean_ij (scale · student_ij + offset - teacher_ij)²`` (ALADIN). None: 1 and 0.
    """
    measure: Callable[[Tensor, Tensor, Tensor | None], Tensor] = {
        "cross_entropy": soft_cross_entropy,
        "mse": squared_error,
        "ranknet": ranknet_loss,
    }[kind]
    losses = []
    for mine, theirs in zip(student, teacher, strict=True):
        scaled = mine.float() / student_temperature
        if scale_and_offset is not None:
            scaled = scale_and_offset[0] * scaled + scale_and_offset[1]
        losses.append(measure(scaled, theirs.detach().float() / teacher_temperature, known))
        if known is not None:
            break
    return torch.stack(losses).mean()


def soft_cross_entropy(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """Compute ``-1/R Σ_ij softmax(teacher_i)_j log softmax(student_i)_j``.

    Inflate and Shrink, eq. 7 (temperatures of teacher and student: 1/16 and 1/16, then 1/2 and
    1/16); ListNet in ALADIN (1 and 1/6); Thinking Fast and Slow, eq. 5, over the ``known`` pairs.
    """
    if known is not None:
        student = student.masked_fill(~known, -torch.inf)
        teacher = teacher.masked_fill(~known, -torch.inf)
    log_student = F.log_softmax(student, dim=1)
    if known is not None:
        log_student = log_student.masked_fill(~known, 0.0)  # 0 · -inf would be NaN
    return -(torch.softmax(teacher, dim=1) * log_student).sum(dim=1).mean()


def squared_error(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """Compute ``mean_ij (student_ij - teacher_ij)²``."""
    squares = (student - torch.where(torch.isfinite(teacher), teacher, 0.0)).square()
    if known is None:
        return squares.mean()
    return squares.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def ranknet_loss(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """Compute ``mean_i mean_{jk: teacher_ij > teacher_ik} log(1 + exp(student_ik - student_ij))``.

    RankNet's pairwise logistic loss: the student learns the teacher's order of every two candidates
    of a row, not their distance.
    """
    above = teacher[:, :, None] > teacher[:, None, :]
    if known is not None:
        above = above & known[:, :, None] & known[:, None, :]
    wrong = F.softplus(student[:, None, :] - student[:, :, None])
    counts = above.sum(dim=(1, 2))
    rows = wrong.masked_fill(~above, 0.0).sum(dim=(1, 2)) / counts.clamp(min=1)
    return rows.sum() / (counts > 0).sum().clamp(min=1)
