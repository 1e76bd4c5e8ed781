"""A task is a model and its objectives: a batch in, named losses out. The loop knows no more.

Every objective is a function of one scorer's score matrix (``models.scorers``) or of a slow
scorer's logits; distillation is a function of two scorers' matrices. The first kind needs the
vectors of the whole batch (:meth:`RetrievalTask.compare`), the second a pair at a time
(:meth:`RetrievalTask.pair`): what is computed in parts is told from that (``training.step``).

Shapes: B images in the batch, Q titles, L text positions, P patches, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bagformer_cli.config import DistillConfig, ObjectivesConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.positives import Links
from bagformer_cli.losses.contrastive import contrastive_loss, momentum_contrastive_loss
from bagformer_cli.losses.distill import distillation_loss
from bagformer_cli.losses.hinge import EPSILON, power_hinge_loss, triplet_loss
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.scorers import ScoreMatrix, Scorer, own_scorer, score_matrix
from bagformer_cli.training.distributed import ALONE, World
from bagformer_cli.training.objectives.masked import Hidden, find_hidden, patch_loss, token_loss
from bagformer_cli.training.objectives.momentum_targets import MomentumTargets
from bagformer_cli.training.objectives.pairs import caption_loss, match_loss, matching_pairs
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


@dataclass
class Views:
    """A batch, or a part of one, encoded.

    Attributes:
        texts: Titles.
        images: Images.
        momentum: Both by the momentum model; None: nothing asks for them.
    """

    texts: Encoded
    images: Encoded
    momentum: tuple[Encoded, Encoded] | None = None


class RetrievalTask(nn.Module):
    """The objectives of a configuration on pairs.

    ITC, late interaction, ITM and MLM (BagFormer, section 3.4; ALBEF, section 3), masked patches
    (QQ-browser), captioning (Thinking Fast and Slow), and what a teacher says.

    Args:
        model: The scorers.
        objectives: Weights and settings of the losses.
        distill: How the model's own fast scorer is taught; None: it is not.
        teacher: Who teaches it; None: the model's own late interaction.
        links: Which titles and images belong together, for pairs beyond one process's batch.
        world: The processes that share a batch.
        seed: Of the draw of one objective a step.
    """

    def __init__(
        self,
        model: RetrievalModel,
        objectives: ObjectivesConfig,
        distill: DistillConfig | None = None,
        teacher: Teacher | None = None,
        *,
        links: Links | None = None,
        world: World = ALONE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.objectives = objectives
        self.distill = distill
        self.teacher = teacher
        self.links, self.world, self.seed = links, world, seed
        self.student = own_scorer(model.config)
        late = objectives.late_interaction if model.config.model.late is not None else 0.0
        weights = {
            "itc_loss": objectives.itc,
            "late_interaction_loss": late,
            "itm_loss": objectives.itm,
            "mlm_loss": objectives.mlm,
            "mfm_loss": objectives.mfm,
            "caption_loss": objectives.caption,
        }
        if distill is not None and distill.weight:
            own = next(name for name, scorer in SCORERS.items() if scorer == self.student)
            weights[own] = distill.hard_loss_weight
            weights["distill_loss"] = distill.weight
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.momentum: MomentumTargets | None = None
        if objectives.momentum is not None:
            scorers = [SCORERS[name] for name in SCORERS if name in self.weights]
            self.momentum = MomentumTargets(model, objectives.momentum, scorers, world)

    @property
    def trains_fast(self) -> bool:
        """Whether any fast scorer learns, so that recall tells how training goes."""
        return any(name in self.weights for name in (*SCORERS, "distill_loss"))

    def chance(self, batch_size: int) -> dict[str, float]:
        """Each loss's value for a model that knows nothing, where that can be said."""
        config = self.model.config
        titles = batch_size * config.data.titles_per_image
        margin = self.objectives.margin
        momentum = self.objectives.momentum
        queued = 0 if momentum is None else momentum.queue
        contrastive = {
            "nce": (math.log(batch_size + queued) + math.log(titles + queued)) / 2,
            "triplet": 2 * margin,
            "power_hinge": sum(
                (EPSILON + (n - 1 + self.objectives.include_diagonal) * margin**8) ** 0.125
                for n in (batch_size, titles)
            ),
        }[self.objectives.loss]
        vocabulary = math.log(self.model.titles.tokenizer.vocab_size)
        values = {
            "itc_loss": contrastive,
            "late_interaction_loss": contrastive,
            "itm_loss": math.log(2),
            "mlm_loss": vocabulary,
            "caption_loss": 2 * vocabulary,
        }
        return {name: values[name] for name in self.weights if name in values}

    def forward(self, batch: Batch, epoch: float = 0.0, number: int = 0) -> StepOutput:
        """The losses of one batch.

        Args:
            batch: Titles and images; of several processes, this one's.
            epoch: How many epochs were done; a teacher may have to wait.
            number: The batch's, which draws the objective where one is drawn.
        """
        weights = self.drawn(number, epoch)
        views = self.encode(batch)
        views.momentum = self.soft_views(batch, weights)
        hidden = self.hidden(batch, views.images, weights)
        compared = self.compare(batch, views, weights, epoch)
        paired = self.pair(batch, views, weights, epoch, hidden)
        losses = compared.losses | paired.losses
        ordered = {name: losses[name] for name in weights if name in losses}
        return StepOutput(ordered, weights, compared.report | paired.report)

    def drawn(self, number: int, epoch: float) -> dict[str, float]:
        """The weights of a step's objectives: of all, or of one drawn by (seed, number)."""
        due = dict(self.weights)
        if not self._is_taught(epoch):
            due.pop("distill_loss", None)
        if self.objectives.task_sampling == "all":
            return due
        random = np.random.default_rng([self.seed % 2**64, number])
        name = list(due)[int(random.integers(len(due)))]
        return {name: due[name]}

    def encode(self, batch: Batch) -> Views:
        """A batch, or a part of one, as every scorer takes it."""
        return Views(self.model.encode_texts(batch.text), self.model.encode_images(batch.pixels()))

    def soft_views(
        self, batch: Batch, weights: dict[str, float], chunk: int | None = None
    ) -> tuple[Encoded, Encoded] | None:
        """A batch by the momentum model, ``chunk`` images at a time; None: nothing asks for it."""
        if self.momentum is None or not {*SCORERS, "mlm_loss"} & weights.keys():
            return None
        return self.momentum.copy.encode(batch, chunk)

    def hidden(self, batch: Batch, images: Encoded, weights: dict[str, float]) -> Hidden | None:
        """What masked modelling hides of a batch; None: nothing."""
        if not {"mlm_loss", "mfm_loss"} & weights.keys():
            return None
        patches = self.objectives.masking.patches if "mfm_loss" in weights else None
        return find_hidden(self.model, batch, images, self.world, patches)

    # ---------------------------------------------------------------- of the whole batch's vectors

    def compare(
        self, batch: Batch, views: Views, weights: dict[str, float], epoch: float
    ) -> StepOutput:
        """The objectives on score matrices, of all processes' batches together."""
        images = self._everyones(views.images)
        matrices: dict[Scorer, ScoreMatrix] = {}

        def scores(scorer: Scorer) -> ScoreMatrix:
            if scorer not in matrices:
                matrices[scorer] = self._together(self.scores_of(scorer, views.texts, images))
            return matrices[scorer]

        losses: dict[str, Tensor] = {}
        report = {"temperature": float(self.model.temperature.detach())}
        for name, scorer in SCORERS.items():
            if name not in weights:
                continue
            if self.momentum is None:
                losses[name] = self._contrast(scorer, scores(scorer), self._positives(batch))
            else:
                losses[name] = self._contrast_softly(scorer, batch, views, epoch)
        if "distill_loss" in weights:
            student = scores(self.student)
            taught = self._taught(batch, student, scores)
            losses["distill_loss"] = self._distillation(student, taught)
        return StepOutput(losses, weights, report)

    def scores_of(self, scorer: Scorer, texts: Encoded, images: Encoded) -> ScoreMatrix:
        """The model's scores of a batch, unscaled."""
        return score_matrix(self.model, scorer, texts, images)

    def _everyones(self, images: Encoded, *, states: bool = False) -> Encoded:
        """The images of all processes; each of these scores its own titles with them."""
        if self.world.size == 1:
            return images
        gather = self.world.gather
        late = None if images.late is None else self.world.gather_vectors(images.late)
        return Encoded(
            images.vectors,
            gather(images.cls),
            gather(images.states) if states else images.states,
            gather(images.mask) if states and images.mask is not None else None,
            late,
        )

    def _together(self, block: ScoreMatrix) -> ScoreMatrix:
        """The score matrix of which each process has the rows of its own titles."""
        if self.world.size == 1:
            return block
        known = None if block.known is None else self.world.gather(block.known)
        i2t = self.world.gather(block.i2t.T.contiguous()).T
        return ScoreMatrix(self.world.gather(block.t2i), i2t, known)

    def _positives(self, batch: Batch) -> Tensor:
        if self.world.size == 1:
            return self._own_positives(batch)
        if self.objectives.share_positives:
            gather = self.world.gather
            return self._match(gather(batch.text_groups), gather(batch.image_groups))
        return self.world.gather(_own_pairs(batch, self.world))

    def _own_positives(self, batch: Batch) -> Tensor:
        """[Q, B] bool of this process's titles and images."""
        return batch.positives if self.objectives.share_positives else _own_pairs(batch)

    def _match(self, text_groups: Tensor, image_groups: Tensor) -> Tensor:
        """[Q, N] bool of any titles and images."""
        assert self.links is not None
        found = self.links.positives(text_groups.cpu().numpy(), image_groups.cpu().numpy())
        return torch.from_numpy(found).to(text_groups.device)

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

    def _contrast_softly(self, scorer: Scorer, batch: Batch, views: Views, epoch: float) -> Tensor:
        """The same against momentum model and queue."""
        assert self.momentum is not None
        assert views.momentum is not None
        online = views.texts, views.images
        t2i, i2t = self.momentum.compare(scorer, batch, online, views.momentum, self._match)
        plain = scorer == "late" and self.objectives.late_scale == "sum"
        temperature = 1.0 if plain else self.model.temperature
        return momentum_contrastive_loss(t2i, i2t, self.momentum.alpha(epoch), temperature)

    def _taught(self, batch: Batch, student: ScoreMatrix, scores: Any) -> ScoreMatrix:
        """What the teacher says of the batch, or of each title's candidates in it."""
        assert self.distill is not None
        if self.teacher is None:
            matrix: ScoreMatrix = scores("late")
            return matrix
        texts, images = self.teacher.encode(batch)
        images = self._everyones(images, states=self.teacher.scorer == "slow")
        known = None
        count = self.distill.candidates
        if count is not None and count < student.t2i.shape[1]:
            first = self.world.rank * len(batch.own)
            rows = student.t2i.detach()[first : first + len(batch.own)]
            known = nearest_candidates(rows, _own_pairs(batch, self.world), count)
        return self._together(self.teacher.scores(texts, images, known))

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

    # ------------------------------------------------------------------------------- pair by pair

    def pair(
        self,
        batch: Batch,
        views: Views,
        weights: dict[str, float],
        epoch: float,
        hidden: Hidden | None,
        share: float = 1.0,
    ) -> StepOutput:
        """The objectives on a slow scorer's logits, of a batch or of ``share`` of one.

        Those of all parts add up to the whole's.
        """
        losses: dict[str, Tensor] = {}
        report: dict[str, float] = {}
        if "itm_loss" in weights:
            images = views.images
            pairs = matching_pairs(
                batch, views.texts, images, self._own_positives(batch), self.objectives,
                self.model.temperature,
            )  # fmt: skip
            loss, accuracy = match_loss(self.model, views.texts, images, *pairs)
            losses["itm_loss"], report["itm_accuracy"] = _of(loss, share), accuracy * share
        if "mlm_loss" in weights:
            assert hidden is not None
            momentum, alpha = None, 0.0
            if self.momentum is not None and views.momentum is not None:
                momentum = self.momentum.copy.model, views.momentum[1]
                alpha = self.momentum.alpha(epoch)
            losses["mlm_loss"] = token_loss(
                self.model, batch, views.images, hidden, momentum, alpha
            )
        if "mfm_loss" in weights:
            assert hidden is not None
            temperature = self.objectives.mfm_temperature
            losses["mfm_loss"] = patch_loss(self.model, batch, views.images, hidden, temperature)
        if "caption_loss" in weights:
            losses["caption_loss"] = _of(
                caption_loss(self.model, batch, views.texts, views.images), share
            )
        return StepOutput(losses, weights, report)


def _of(loss: Tensor, share: float) -> Tensor:
    """A part's share of the whole's mean."""
    return loss if share == 1.0 else loss * share


def nearest_candidates(scores: Tensor, own: Tensor, count: int) -> Tensor:
    """[Q, N] bool: each title's own image and the best others, ``count`` in all.

    Args:
        scores: [Q, N] of the student.
        own: [Q, N] bool, one True a row.
        count: Of candidates, at most N.
    """
    places = scores.masked_fill(own, torch.inf).topk(count, dim=1).indices
    return torch.zeros_like(own).scatter(1, places, True)


def _own_pairs(batch: Batch, world: World = ALONE) -> Tensor:
    """[Q, N] bool: each title of this process with its own image, among all processes' images."""
    places = torch.arange(len(batch) * world.size, device=batch.own.device)
    return (batch.own[:, None] + world.rank * len(batch)) == places
