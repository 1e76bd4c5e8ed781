"""Distillation: a fast scorer (the student) learns another scorer's score matrix (the teacher).

One mechanism for every paper here: teacher scorer → score matrix → student scorer.

=======================  =========================  =================  ====================
recipe                   teacher                    student            pairs
=======================  =========================  =================  ====================
Inflate and Shrink       ``late``, another model    ``late``, ``cls``  all of the batch
ALADIN                   ``late``, the same model   ``cls``            all of the batch
Thinking Fast and Slow   ``slow``, another model    ``cls``            candidates of a title
=======================  =========================  =================  ====================

Shapes: Q titles of this process, N images of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.config import DistillConfig
from bagformer_cli.losses.distill import distillation_loss
from bagformer_cli.models.scorers import ScoreMatrix, own_scorer
from bagformer_cli.training.encoded_batch import Context, EncodedBatch, gather_images, gather_rows
from bagformer_cli.training.memory_estimate import matrix_bytes
from bagformer_cli.training.objectives.base import MatrixObjective, Objective
from bagformer_cli.transfer import to_device


class DistillationObjective(MatrixObjective):
    """The distance between the student's score matrix and the teacher's.

    Args:
        context: ``context.teacher`` is the teacher; None: the model's own late interaction.
        settings: The function, its temperatures, and when distillation begins.
    """

    name = "distill_loss"

    def __init__(self, context: Context, settings: DistillConfig) -> None:
        super().__init__(context, settings.weight)
        self.settings = settings
        self.student = own_scorer(context.model.config)

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return the objective if the configuration has ``distill`` with a weight above 0."""
        settings = context.config.distill
        return [] if settings is None or not settings.weight else [cls(context, settings)]

    def is_active(self, epoch: float) -> bool:
        """Say whether ``distill.activate_distillation_after`` epochs are over."""
        return epoch >= self.settings.activate_distillation_after

    def loss(self, batch: EncodedBatch) -> Tensor:
        """Compare the two matrices; see :mod:`bagformer_cli.losses.distill`."""
        student = batch.scores(self.student)
        teacher = self._teacher_scores(batch, student)
        return distillation_loss(
            student.both,
            teacher.both,
            self.settings.loss,
            student_temperature=self.settings.student_temperature,
            teacher_temperature=self.settings.teacher_temperature,
            known=teacher.known,
            scale_and_offset=self.context.model.distill_line,
        )

    def memory(self, batch_size: int) -> dict[str, int]:
        """Estimate the bytes of the student's vectors and score matrices."""
        return matrix_bytes(self.context, self.student, batch_size)

    def _teacher_scores(self, batch: EncodedBatch, student: ScoreMatrix) -> ScoreMatrix:
        """Score the batch with the teacher: all pairs, or ``distill.candidates`` of each title."""
        teacher, processes = self.context.teacher, self.context.processes
        if teacher is None:
            return batch.scores("late")
        texts, images = teacher.encode(batch.batch)
        images = gather_images(processes, images, states=teacher.scorer == "slow")
        known = None
        count = self.settings.candidates
        if count is not None and count < student.t2i.shape[1]:
            titles = len(batch.batch.own)
            first = processes.rank * titles
            rows = student.t2i.detach()[first : first + titles]
            known = nearest_candidates(rows, to_device(batch.own_pairs(), rows.device), count)
        return gather_rows(processes, teacher.scores(texts, images, known))


def nearest_candidates(scores: Tensor, own: Tensor, count: int) -> Tensor:
    """Choose the images that student and teacher compare for each title.

    Args:
        scores: [Q, N] of the student.
        own: [Q, N] bool, each title's own image.
        count: Images to choose for a title, at most N.

    Returns:
        [Q, N] bool: the own image and the best others, ``count`` in all.

    Example:
        >>> scores = torch.tensor([[0.1, 0.9, 0.5]])
        >>> nearest_candidates(scores, torch.tensor([[True, False, False]]), 2)
        tensor([[ True,  True, False]])
    """
    columns = scores.masked_fill(own, torch.inf).topk(count, dim=1).indices
    return torch.zeros_like(own).scatter(1, columns, True)
