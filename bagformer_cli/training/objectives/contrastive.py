"""Contrastive objectives on a fast scorer: ITC (``cls``) and late interaction (``late``).

Without a momentum encoder the candidates of a title are the images of the batch and the targets
are true labels. With one (ALBEF, section 3), candidates come from the momentum encoder and a queue
of its earlier outputs, and the targets are softened. For a batch of B images and a queue of C::

                       momentum vectors of images
                     | this batch B | queue C      |
    title i (online) |  s_i1 … s_iB | s_i,B+1 …    |   scores, with gradient
    title i (moment.)|  m_i1 … m_iB | m_i,B+1 …    |   soft targets: α softmax(m / τ)
    positives of i   |  0 … 1 … 0   | 0 … 1 … 0    |   + (1 - α) true labels

Shapes: B images of this process, Q titles, N and M candidates of a side: all processes' and the
queue's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bagformer_cli.losses.contrastive import (
    SoftTargets,
    contrastive_loss,
    momentum_contrastive_loss,
)
from bagformer_cli.losses.hinge import EPSILON, power_hinge_loss, triplet_loss
from bagformer_cli.models.momentum import FeatureQueue, QueuePair, tensors_under
from bagformer_cli.models.scorers import (
    Scorer,
    fast_scores,
    late_temperature,
    own_scorer,
    vectors_of,
    vectors_per_item,
)
from bagformer_cli.training.encoded_batch import Context, EncodedBatch
from bagformer_cli.training.memory_estimate import matrix_bytes
from bagformer_cli.training.objectives.base import MatrixObjective, Objective
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors


class ContrastiveObjective(MatrixObjective):
    """The right image of a title, and the right title of an image, among those of the batch.

    ``objectives.loss`` chooses the function: InfoNCE (``nce``), the power-8 hinge or the hardest
    negative's hinge.

    Args:
        context: The model, the configuration and the processes.
        weight: Factor of the loss in the total.
        scorer: The fast scorer that is trained.
    """

    def __init__(self, context: Context, weight: float, scorer: Scorer) -> None:
        super().__init__(context, weight)
        self.scorer = scorer
        self.name = {"cls": "itc_loss", "late": "late_interaction_loss"}[scorer]
        self.settings = context.config.objectives
        self.uses_momentum = self.settings.momentum is not None
        self.queues: QueuePair | None = None

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return one objective for each fast scorer with a weight above 0.

        Distillation replaces the weight of the student's own scorer by ``hard_loss_weight``.
        """
        config, own = context.config, context.model.config
        weights: dict[Scorer, float] = {
            "cls": config.objectives.itc,
            "late": config.objectives.late_interaction if own.model.late is not None else 0.0,
        }
        if config.distill is not None and config.distill.weight:
            weights[own_scorer(own)] = config.distill.hard_loss_weight
        return [cls(context, weight, scorer) for scorer, weight in weights.items() if weight > 0]

    @property
    def _temperature(self) -> Tensor | float:
        """The divisor of the scores."""
        model = self.context.model
        return late_temperature(model) if self.scorer == "late" else model.temperature

    def loss(self, batch: EncodedBatch) -> Tensor:
        """Compute the configured loss; see :mod:`bagformer_cli.losses.contrastive`."""
        if batch.momentum is not None:
            both = self._soft_targets(batch)
            return momentum_contrastive_loss(*both, batch.soft_target_weight, self._temperature)
        settings = self.settings
        t2i, i2t = batch.scores(self.scorer).both
        if settings.loss == "power_hinge":
            return power_hinge_loss(
                t2i,
                i2t,
                batch.positives,
                settings.margin,
                include_diagonal=settings.include_diagonal,
            )
        if settings.loss == "triplet":
            return triplet_loss(t2i, i2t, batch.positives, settings.margin)
        return contrastive_loss(t2i, i2t, batch.positives_on_device, self._temperature)

    def random_guess_loss(self, batch_size: int) -> float:
        """Return ln of the number of candidates, or the hinge losses' value at equal scores."""
        titles = batch_size * self.context.model.config.data.titles_per_image
        margin, queued = self.settings.margin, self._queue_size
        if self.settings.loss == "triplet":
            return 2 * margin
        if self.settings.loss == "power_hinge":
            diagonal = int(self.settings.include_diagonal)
            rows = (EPSILON + (batch_size - 1 + diagonal) * margin**8) ** 0.125
            columns = (EPSILON + (titles - 1 + diagonal) * margin**8) ** 0.125
            return float(rows + columns)
        return (math.log(batch_size + queued) + math.log(titles + queued)) / 2

    def memory(self, batch_size: int) -> dict[str, int]:
        """Estimate the bytes of vectors, score matrices and queues."""
        needed = matrix_bytes(self.context, self.scorer, batch_size, self._queue_size)
        if self._queue_size:
            vectors = sum(vectors_per_item(self.context.model, self.scorer))
            dim = self.context.model.config.model.embed_dim
            # float32 vectors; an int64 length and an int64 group of each item, for both sides
            needed[f"queues ({self.scorer})"] = self._queue_size * (vectors * dim * 4 + 4 * 8)
        return needed

    def allocate(self) -> None:
        """Allocate the queues of both sides; every process holds the same ones."""
        if self._queue_size:
            model = self.context.model
            texts, images = (
                FeatureQueue(self._queue_size, length, model.config.model.embed_dim, model.device)
                for length in vectors_per_item(model, self.scorer)
            )
            self.queues = QueuePair(texts, images)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the queues, under the scorer's name."""
        if self.queues is None:
            return {}
        return {f"{self.scorer}.{name}": value for name, value in self.queues.state_dict().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the queues."""
        if self.queues is not None:
            self.queues.load_state_dict(tensors_under(tensors, self.scorer))

    @property
    def _queue_size(self) -> int:
        return 0 if self.settings.momentum is None else self.settings.momentum.queue

    def _soft_targets(self, batch: EncodedBatch) -> tuple[SoftTargets, SoftTargets]:
        """Score this process's items against momentum vectors of all processes and the queue.

        The rows are those of this process only. The loss is a mean over rows, which is averaged
        over the processes, and candidates carry no gradient: nothing else need be gathered.
        """
        assert batch.momentum is not None
        config, scorer, processes = self.context.model.config, self.scorer, self.context.processes
        texts, images = (vectors_of(side, scorer) for side in (batch.texts, batch.images))
        soft_texts, soft_images = (vectors_of(side, scorer) for side in batch.momentum)
        text_groups, image_groups = batch.batch.text_groups, batch.batch.image_groups
        new_texts = processes.all_gather_vectors(soft_texts)
        new_images = processes.all_gather_vectors(soft_images)
        new_text_groups = processes.all_gather(text_groups)
        new_image_groups = processes.all_gather(image_groups)
        all_texts, all_text_groups = new_texts, new_text_groups
        all_images, all_image_groups = new_images, new_image_groups
        if self.queues is not None:
            all_texts, all_text_groups = _append(new_texts, new_text_groups, self.queues.texts)
            all_images, all_image_groups = _append(new_images, new_image_groups, self.queues.images)
        with torch.no_grad():
            soft_t2i = fast_scores(config, scorer, soft_texts, all_images)[0]
            soft_i2t = fast_scores(config, scorer, all_texts, soft_images)[1]
        t2i = SoftTargets(
            fast_scores(config, scorer, texts, all_images)[0],
            soft_t2i,
            to_device(batch.match(text_groups, all_image_groups), texts.device),
        )
        i2t = SoftTargets(
            fast_scores(config, scorer, all_texts, images)[1],
            soft_i2t,
            to_device(batch.match(all_text_groups, image_groups), texts.device).T,
        )
        # Only now: an item must not be its own negative from the queue.
        if self.queues is not None:
            self.queues.texts.add(new_texts, new_text_groups)
            self.queues.images.add(new_images, new_image_groups)
        return t2i, i2t


def _append(
    items: MultiVectors, groups: Tensor, queue: FeatureQueue
) -> tuple[MultiVectors, Tensor]:
    """Append a queue's items and groups to a batch's."""
    if not len(queue):  # the first batch of a run
        return items, groups
    queued = torch.cat([groups, queue.groups[: len(queue)]])
    return MultiVectors.concatenate([items, queue.items()]), queued
