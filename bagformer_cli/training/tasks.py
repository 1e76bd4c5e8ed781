"""A task is a model and its objectives: a batch in, named losses out. The loop knows no more.

Every objective is a function of one scorer's score matrix (``models.scorers``) or of a slow
scorer's logits; distillation is a function of two scorers' matrices.

Shapes: B images in the batch, Q titles, L text positions, P patches, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bagformer_cli.config import DistillConfig, ObjectivesConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.losses.captioning import captioning_loss
from bagformer_cli.losses.contrastive import contrastive_loss
from bagformer_cli.losses.distill import distillation_loss
from bagformer_cli.losses.hinge import EPSILON, power_hinge_loss, triplet_loss
from bagformer_cli.losses.matching import hard_negatives, matching_loss
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.scorers import ScoreMatrix, Scorer, own_scorer, score_matrix
from bagformer_cli.training.teacher import Teacher

SCORERS: dict[str, Scorer] = {"itc_loss": "cls", "late_interaction_loss": "late"}
"""The objectives on a fast scorer, and on which."""


@dataclass
class StepOutput:
    """What one batch gave.

    Attributes:
        losses: Name ending in ``_loss`` to scalar, not yet weighted.
        weights: What each counts in the total.
        report: Figures worth logging beside the losses.
    """

    losses: dict[str, Tensor]
    weights: dict[str, float]
    report: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum, what is back-propagated."""
        return torch.stack([self.weights[name] * loss for name, loss in self.losses.items()]).sum()


class RetrievalTask(nn.Module):
    """The objectives of a configuration on pairs.

    ITC, late interaction and ITM (BagFormer, section 3.4; ALBEF, section 3.2), captioning
    (Thinking Fast and Slow), and what a teacher says.

    Args:
        model: The scorers.
        objectives: Weights and settings of the losses.
        distill: How the model's own fast scorer is taught; None: it is not.
        teacher: Who teaches it; None: the model's own late interaction.
    """

    def __init__(
        self,
        model: RetrievalModel,
        objectives: ObjectivesConfig,
        distill: DistillConfig | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objectives = objectives
        self.distill = distill
        self.teacher = teacher
        self.student = own_scorer(model.config)
        late = objectives.late_interaction if model.config.model.late is not None else 0.0
        weights = {
            "itc_loss": objectives.itc,
            "late_interaction_loss": late,
            "itm_loss": objectives.itm,
            "caption_loss": objectives.caption,
        }
        if distill is not None and distill.weight:
            own = next(name for name, scorer in SCORERS.items() if scorer == self.student)
            weights[own] = distill.hard_loss_weight
            weights["distill_loss"] = distill.weight
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    def chance(self, batch_size: int) -> dict[str, float]:
        """Each loss's value for a model that knows nothing, where that can be said."""
        config = self.model.config
        titles = batch_size * config.data.titles_per_image
        margin = self.objectives.margin
        contrastive = {
            "nce": (math.log(batch_size) + math.log(titles)) / 2,
            "triplet": 2 * margin,
            "power_hinge": sum(
                (EPSILON + (n - 1 + self.objectives.include_diagonal) * margin**8) ** 0.125
                for n in (batch_size, titles)
            ),
        }[self.objectives.loss]
        values = {
            "itc_loss": contrastive,
            "late_interaction_loss": contrastive,
            "itm_loss": math.log(2),
            "caption_loss": 2 * math.log(self.model.titles.tokenizer.vocab_size),
        }
        return {name: values[name] for name in self.weights if name in values}

    def forward(self, batch: Batch, epoch: float = 0.0) -> StepOutput:
        """The losses of one batch.

        Args:
            batch: Titles and images.
            epoch: How many epochs were done; a teacher may have to wait.
        """
        model = self.model
        texts = model.encode_texts(batch.text)
        images = model.encode_images(batch.pixels())
        positives = self._positives(batch)
        temperature = model.temperature
        matrices: dict[Scorer, ScoreMatrix] = {}

        def scores(scorer: Scorer) -> ScoreMatrix:
            if scorer not in matrices:
                matrices[scorer] = self.scores_of(scorer, texts, images)
            return matrices[scorer]

        losses: dict[str, Tensor] = {}
        for name, scorer in SCORERS.items():
            if name in self.weights:
                losses[name] = self._contrast(scorer, scores(scorer), positives)
        report = {"temperature": float(temperature.detach())}
        if "itm_loss" in self.weights:
            logits = (scores("cls").t2i / temperature).detach()
            losses["itm_loss"], report["itm_accuracy"] = self._matching(
                texts, images, logits, positives, batch.own
            )
        if "caption_loss" in self.weights:
            losses["caption_loss"] = self._captioning(texts, images, batch.own)
        if self._is_taught(epoch):
            student = scores(self.student)
            taught = self._taught(batch, student, scores)
            losses["distill_loss"] = self._distillation(student, taught)
        return StepOutput(losses, self.weights, report)

    def scores_of(self, scorer: Scorer, texts: Encoded, images: Encoded) -> ScoreMatrix:
        """The model's scores of a batch, unscaled."""
        return score_matrix(self.model, scorer, texts, images)

    def _positives(self, batch: Batch) -> Tensor:
        if self.objectives.share_positives:
            return batch.positives
        return _own_pairs(batch)

    def _is_taught(self, epoch: float) -> bool:
        distill = self.distill
        if distill is None or not distill.weight:
            return False
        return epoch >= distill.activate_distillation_after

    def _contrast(self, scorer: Scorer, scores: ScoreMatrix, positives: Tensor) -> Tensor:
        """A fast scorer's own loss, with true labels."""
        settings = self.objectives
        t2i, i2t = scores.both
        if settings.loss == "power_hinge":
            return power_hinge_loss(
                t2i, i2t, positives, settings.margin, include_diagonal=settings.include_diagonal
            )
        if settings.loss == "triplet":
            return triplet_loss(t2i, i2t, positives, settings.margin)
        if scorer == "late" and settings.late_scale == "sum":
            return contrastive_loss(t2i, i2t, positives)
        return contrastive_loss(t2i, i2t, positives, self.model.temperature)

    def _taught(self, batch: Batch, student: ScoreMatrix, scores: Any) -> ScoreMatrix:
        """What the teacher says of the batch, or of each title's candidates in it."""
        assert self.distill is not None
        if self.teacher is None:
            matrix: ScoreMatrix = scores("late")
            return matrix
        known = None
        count = self.distill.candidates
        if count is not None and count < student.t2i.shape[1]:
            known = nearest_candidates(student.t2i.detach(), _own_pairs(batch), count)
        return self.teacher.scores(batch, known)

    def _distillation(self, student: ScoreMatrix, teacher: ScoreMatrix) -> Tensor:
        assert self.distill is not None
        return distillation_loss(
            student.both,
            teacher.both,
            self.distill.loss,
            student_temperature=self.distill.student_temperature,
            teacher_temperature=self.distill.teacher_temperature,
            known=teacher.known,
        )

    def _captioning(self, texts: Encoded, images: Encoded, own: Tensor) -> Tensor:
        """The titles' likelihood under their own images."""
        captioner: Any = self.model.cross
        assert texts.mask is not None
        ahead, behind = captioner(
            texts.states,
            texts.mask,
            images.states.index_select(0, own),
            None if images.mask is None else images.mask[own],
        )
        return captioning_loss(ahead, behind, texts.mask[:, 1:])

    def _matching(
        self, texts: Encoded, images: Encoded, logits: Tensor, positives: Tensor, own: Tensor
    ) -> tuple[Tensor, float]:
        """Titles with their own image and with a wrong one; those images with a wrong title."""
        head: Any = self.model.cross
        n_images = positives.shape[1]
        seen = max(1, round(self.objectives.itm_share * n_images))
        # one title an image: every k-th, where each image has k of them side by side
        rows = torch.arange(seen, device=own.device) * (len(own) // n_images)
        shown = own[rows]
        wrong_images, has_image = hard_negatives(logits[rows], positives[rows])
        wrong_texts, has_text = hard_negatives(logits.T[shown], positives.T[shown])
        text_index = torch.cat([rows, rows[has_image], wrong_texts[has_text]])
        image_index = torch.cat([shown, wrong_images[has_image], shown[has_text]])
        assert texts.mask is not None
        # index_select, not states[index]: the gradient of that is added up by several threads in
        # no fixed order, and a resumed run would no longer be the unbroken one to the bit
        pair_logits = head(
            texts.states.index_select(0, text_index),
            texts.mask[text_index],
            images.states.index_select(0, image_index),
            None if images.mask is None else images.mask[image_index],
        )
        labels = torch.zeros(len(text_index), dtype=torch.int64, device=positives.device)
        labels[: len(rows)] = 1
        accuracy = (pair_logits.detach().argmax(dim=1) == labels).float().mean()
        return matching_loss(pair_logits, labels), float(accuracy)


def nearest_candidates(scores: Tensor, own: Tensor, count: int) -> Tensor:
    """[Q, N] bool: each title's own image and the best others, ``count`` in all.

    Args:
        scores: [Q, N] of the student.
        own: [Q, N] bool, one True a row.
        count: Of candidates, at most N.
    """
    places = scores.masked_fill(own, torch.inf).topk(count, dim=1).indices
    return torch.zeros_like(own).scatter(1, places, True)


def _own_pairs(batch: Batch) -> Tensor:
    places = torch.arange(len(batch), device=batch.own.device)
    return batch.own[:, None] == places
