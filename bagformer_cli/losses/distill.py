"""One scorer taught by another's score matrix.

Whatever taught and whatever learns, both are score matrices of the same titles and images; the
teacher's carries no gradient. Rows are titles of ``t2i``, images of ``i2t``; the two directions
are averaged, each a mean over its rows. A pair that was not scored (``known`` False) takes no part.

Shapes: R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["cross_entropy", "mse", "ordinal"]


def distillation_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    kind: Kind = "cross_entropy",
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    known: Tensor | None = None,
) -> Tensor:
    """How far the student's scores are from what the teacher's say, both directions.

    Args:
        student: t2i [Q, N] and i2t [N, Q], unscaled.
        teacher: The same of the teacher.
        kind: See :func:`soft_cross_entropy`, :func:`squared_error` and :func:`order_loss`.
        student_temperature: Divides the student's scores.
        teacher_temperature: Divides the teacher's.
        known: [Q, N] bool, which pairs were scored; None: all. Where some were not, titles alone
            are compared: an image's column is then no sample of its titles.
    """
    measure: Callable[[Tensor, Tensor, Tensor | None], Tensor] = {
        "cross_entropy": soft_cross_entropy,
        "mse": squared_error,
        "ordinal": order_loss,
    }[kind]
    scaled = [
        measure(
            mine.float() / student_temperature, theirs.detach().float() / teacher_temperature, known
        )
        for mine, theirs in zip(student, teacher, strict=True)
        if known is None or mine is student[0]
    ]
    return torch.stack(scaled).mean()


def soft_cross_entropy(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """``-1/R Σ_ij softmax(teacher_i)_j log softmax(student_i)_j``.

    Inflate and Shrink, eq. 7 (temperatures 1/16 and 1/16, then 1/2 and 1/16); ListNet, as ALADIN
    has it (1 and 1/6); Thinking Fast and Slow, eq. 5, over the subset that ``known`` tells.
    """
    if known is not None:
        student = student.masked_fill(~known, -torch.inf)
        teacher = teacher.masked_fill(~known, -torch.inf)
    log_student = F.log_softmax(student, dim=1)
    if known is not None:
        log_student = log_student.masked_fill(~known, 0.0)  # 0 x -inf is no number
    return -(torch.softmax(teacher, dim=1) * log_student).sum(dim=1).mean()


def squared_error(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """``mean_ij (student_ij - teacher_ij)²``."""
    squares = (student - torch.where(torch.isfinite(teacher), teacher, 0.0)).square()
    if known is None:
        return squares.mean()
    return squares.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def order_loss(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """``mean_i mean_{jk: teacher_ij > teacher_ik} log(1 + exp(student_ik - student_ij))``.

    The order of every two candidates of a row as the teacher has it, whatever the distances.
    """
    above = teacher[:, :, None] > teacher[:, None, :]
    if known is not None:
        above = above & known[:, :, None] & known[:, None, :]
    wrong = F.softplus(student[:, None, :] - student[:, :, None])
    counts = above.sum(dim=(1, 2))
    rows = wrong.masked_fill(~above, 0.0).sum(dim=(1, 2)) / counts.clamp(min=1)
    return rows.sum() / (counts > 0).sum().clamp(min=1)
