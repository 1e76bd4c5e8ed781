"""Soft targets and queues for the contrastive objectives (ALBEF's ITA), and what they cost.

Shapes: B images of this process, Q titles, N and M candidates of a side: all processes' and the
queue's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bagformer_cli.config import MomentumConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.losses.contrastive import Believed
from bagformer_cli.models.build import RetrievalModel, any_image
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.momentum import FeatureQueue, MomentumModel, Queues, within
from bagformer_cli.models.scorers import Scorer, fast_scores, vectors_of
from bagformer_cli.training.distributed import ALONE, World
from bagformer_cli.vectors.multi_vectors import MultiVectors

Match = Callable[[Tensor, Tensor], Tensor]
"""Text groups [Q] and image groups [N] to positives [Q, N]: the one place that decides it."""


class MomentumTargets:
    """The momentum model, and one pair of queues for each fast scorer that is trained.

    Args:
        model: What the momentum model follows.
        config: Its settings.
        scorers: Which fast scorers have a contrastive objective.
        world: The processes; every one keeps the same queues.
    """

    def __init__(
        self,
        model: RetrievalModel,
        config: MomentumConfig,
        scorers: Sequence[Scorer],
        world: World = ALONE,
    ) -> None:
        self.config, self.settings, self.world = model.config, config, world
        self.copy = MomentumModel(model, config.rate)
        self.queues: dict[Scorer, Queues] = {}
        if config.queue:
            for scorer in scorers:
                texts, images = queue_lengths(model, scorer)
                dim = model.config.model.embed_dim
                self.queues[scorer] = Queues(
                    FeatureQueue(config.queue, texts, dim, model.device),
                    FeatureQueue(config.queue, images, dim, model.device),
                )

    def alpha(self, epoch: float) -> float:
        """α after so many epochs."""
        return self.settings.alpha * min(1.0, epoch)

    def compare(
        self,
        scorer: Scorer,
        batch: Batch,
        online: tuple[Encoded, Encoded],
        momentum: tuple[Encoded, Encoded],
        match: Match,
    ) -> tuple[Believed, Believed]:
        """This process's titles and images against everything that the momentum model encoded.

        What it encoded of this batch joins the queues afterwards.
        """
        texts, images = (vectors_of(side, scorer) for side in online)
        soft_texts, soft_images = (vectors_of(side, scorer) for side in momentum)
        every_text = self.world.gather_vectors(soft_texts)
        every_image = self.world.gather_vectors(soft_images)
        text_groups = self.world.gather(batch.text_groups)
        image_groups = self.world.gather(batch.image_groups)
        queues = self.queues.get(scorer)
        more_texts, more_text_groups = every_text, text_groups
        more_images, more_image_groups = every_image, image_groups
        if queues is not None:
            more_texts, more_text_groups = _behind(every_text, text_groups, queues.texts)
            more_images, more_image_groups = _behind(every_image, image_groups, queues.images)
        with torch.no_grad():
            soft_t2i = fast_scores(self.config, scorer, soft_texts, more_images)[0]
            soft_i2t = fast_scores(self.config, scorer, more_texts, soft_images)[1]
        t2i = Believed(
            fast_scores(self.config, scorer, texts, more_images)[0],
            soft_t2i,
            match(batch.text_groups, more_image_groups),
        )
        i2t = Believed(
            fast_scores(self.config, scorer, more_texts, images)[1],
            soft_i2t,
            match(more_text_groups, batch.image_groups).T,
        )
        if queues is not None:
            queues.texts.add(every_text, text_groups)
            queues.images.add(every_image, image_groups)
        return t2i, i2t

    def state(self) -> dict[str, Tensor]:
        """What ``last/`` keeps."""
        tensors = {f"model.{name}": value for name, value in self.copy.state().items()}
        for scorer, queues in self.queues.items():
            tensors |= {f"{scorer}.{name}": value for name, value in queues.state().items()}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.copy.load_state(within(tensors, "model"))
        for scorer, queues in self.queues.items():
            queues.load_state(within(tensors, scorer))


def queue_bytes(model: RetrievalModel, config: MomentumConfig, scorers: Sequence[Scorer]) -> int:
    """Bytes of all queues: float32 vectors, lengths and groups."""
    dim = model.config.model.embed_dim
    return sum(
        config.queue * (sum(queue_lengths(model, scorer)) * dim * 4 + 4 * 8) for scorer in scorers
    )


@torch.no_grad()
def queue_lengths(model: RetrievalModel, scorer: Scorer) -> tuple[int, int]:
    """The most vectors that a title and an image have for a scorer."""
    if scorer == "cls":
        return 1, 1
    was_training = model.training
    model.eval()
    image = model.dual.encode_images(any_image(model.config).to(model.device))
    model.train(was_training)
    return model.config.text.max_tokens + model.config.model.codes, len(
        vectors_of(image, scorer).values
    )


def _behind(
    items: MultiVectors, groups: Tensor, queue: FeatureQueue
) -> tuple[MultiVectors, Tensor]:
    """A batch's items and groups with those of a queue behind them."""
    if not len(queue):
        return items, groups
    kept = queue.groups[: len(queue)].to(groups.device)
    return MultiVectors.concatenate([items, queue.items()]), torch.cat([groups, kept])
