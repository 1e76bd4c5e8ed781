"""The training task: a model and its objectives. It turns a batch into named losses.

The task knows no objective by name: it loops over those that ``objectives.build_objectives`` made
from the configuration. A step in four calls, as :meth:`RetrievalTask.forward` makes them and
``training.gradient_cache`` repeats them chunk by chunk::

    active    = task.active_objectives(number, epoch)    all, or one drawn at random
    encoded   = task.encode(batch, epoch, active)        titles, images → vectors and states
    prepared  = task.prepare(encoded, active)            e.g. which patches are hidden
    losses    = task.matrix_losses(encoded, active)      from score matrices: the whole batch
              | task.pair_losses(encoded, active, prepared)   from pairs: any chunk of it

For example, ``itc: 1.0, itm: 0.5`` gives the losses ``{"itc_loss": …, "itm_loss": …}`` with weights
``{"itc_loss": 1.0, "itm_loss": 0.5}``; their weighted sum is back-propagated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.positives import Positives
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.momentum import tensors_under
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.encoded_batch import Context, EncodedBatch, Figure
from bagformer_cli.training.frozen_towers import images_of, titles_of
from bagformer_cli.training.memory_estimate import check_memory
from bagformer_cli.training.objectives import (
    MatrixObjective,
    Objective,
    PairObjective,
    build_objectives,
)
from bagformer_cli.training.teacher import Teacher

Losses = dict[str, Tensor]


@dataclass
class StepOutput:
    """The losses of one batch.

    Attributes:
        losses: Name ending in ``_loss`` to scalar, not yet weighted.
        weights: Name to factor in the total.
        report: Further figures for the log: the temperature, accuracies.
    """

    losses: Losses
    weights: dict[str, float]
    report: dict[str, Figure] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum of the losses."""
        return weighted_sum(self.losses, self.weights)


def weighted_sum(losses: Losses, weights: Mapping[str, float]) -> Tensor:
    """Return the sum of losses times weights, a scalar."""
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


class RetrievalTask(nn.Module):
    """A model and the objectives that its configuration trains.

    Args:
        model: The model.
        config: Objectives with their weights, distillation, the seed.
        teacher: Frozen model whose scores are distilled; None: the model's own late interaction.
        positives: Which titles and images match, for pairs beyond one process's batch.
        processes: The processes that share each batch.

    Raises:
        ConfigError: The batch or a queue cannot fit into memory.
    """

    def __init__(
        self,
        model: RetrievalModel,
        config: RunConfig,
        teacher: Teacher | None = None,
        *,
        positives: Positives | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.processes = processes
        self.context = Context(model, config, teacher, positives, processes)
        self.objectives = build_objectives(self.context)
        if config.objectives.momentum is not None or config.training.micro_batch_size is not None:
            check_memory(self.needed_bytes(), config, model.device)
        self.momentum = self.context.momentum
        for objective in self.objectives:
            objective.allocate()

    @property
    def trains_fast_scorer(self) -> bool:
        """True if a fast scorer is trained, so that recall shows how training goes."""
        return any(isinstance(objective, MatrixObjective) for objective in self.objectives)

    def needed_bytes(self) -> dict[str, int]:
        """Estimate the bytes of one process without activations, by the name of the consumer."""
        needed: dict[str, int] = {}
        for objective in self.objectives:
            for name, size in objective.memory(self.config.training.batch_size).items():
                needed[name] = max(size, needed.get(name, 0))
        if self.config.objectives.momentum is not None:
            parameters = self.model.parameters()
            needed["momentum encoder"] = sum(p.numel() * p.element_size() for p in parameters)
        return needed

    def random_guess_losses(self, batch_size: int) -> dict[str, float]:
        """Return the loss of a model that guesses, for each objective that has a fixed one."""
        found = {o.name: o.random_guess_loss(batch_size) for o in self.objectives}
        return {name: value for name, value in found.items() if value is not None}

    def forward(self, batch: Batch, epoch: float = 0.0, number: int = 0) -> StepOutput:
        """Compute the losses of one batch, encoded at once.

        Args:
            batch: Titles and images of this process.
            epoch: Epochs done; some objectives begin later, soft targets gain weight.
            number: Number of the batch, which seeds the draw of an objective.
        """
        active = self.active_objectives(number, epoch)
        encoded = self.encode(batch, epoch, active)
        prepared = self.prepare(encoded, active)
        losses = self.matrix_losses(encoded, active)
        losses |= self.pair_losses(encoded, active, prepared)
        return self.output(losses, active, encoded.report)

    def active_objectives(self, number: int, epoch: float) -> list[Objective]:
        """Return the objectives of a step: all that are active, or one of them drawn at random.

        The draw depends on the seed and the batch's number only: a resumed run repeats it, and
        all processes draw the same.
        """
        active = [objective for objective in self.objectives if objective.is_active(epoch)]
        if self.config.objectives.task_sampling == "all":
            return active
        # Not torch's generator: each process has its own RNG state.
        random = np.random.default_rng([self.config.seed % 2**64, number])
        return [active[int(random.integers(len(active)))]]

    def encode(
        self, batch: Batch, epoch: float, objectives: Sequence[Objective] = ()
    ) -> EncodedBatch:
        """Encode titles and images; by the momentum encoder as well if an objective uses it."""
        texts = self.model.encode_texts(titles_of(batch))
        images = self.model.encode_images(images_of(batch))
        momentum = self.encode_momentum(batch, objectives)
        return EncodedBatch(self.context, batch, texts, images, epoch, momentum)

    def encode_momentum(
        self, batch: Batch, objectives: Sequence[Objective], chunk: int | None = None
    ) -> tuple[Encoded, Encoded] | None:
        """Encode titles and images by the momentum encoder; None if no objective uses it."""
        if self.momentum is None or not any(o.uses_momentum for o in objectives):
            return None
        return self.momentum.encode(batch, chunk)

    def prepare(self, batch: EncodedBatch, objectives: Sequence[Objective]) -> dict[str, Any]:
        """Let each pair objective look at the whole batch once; returns its results by name."""
        return {o.name: o.prepare(batch) for o in objectives if isinstance(o, PairObjective)}

    def matrix_losses(self, batch: EncodedBatch, objectives: Sequence[Objective]) -> Losses:
        """Compute the losses on score matrices, of all processes' batches together."""
        return {o.name: o.loss(batch) for o in objectives if isinstance(o, MatrixObjective)}

    def pair_losses(
        self, chunk: EncodedBatch, objectives: Sequence[Objective], prepared: Mapping[str, Any]
    ) -> Losses:
        """Compute the losses on pairs, of a chunk or of a whole batch of this process."""
        return {
            o.name: o.loss(chunk, prepared[o.name])
            for o in objectives
            if isinstance(o, PairObjective)
        }

    def output(
        self, losses: Losses, objectives: Sequence[Objective], report: Mapping[str, Figure]
    ) -> StepOutput:
        """Put losses and weights into the order of the objectives."""
        # Converted, so a copy: the optimizer changes the temperature before the log reads it.
        temperature: dict[str, Figure] = {"temperature": self.model.temperature.detach().double()}
        return StepOutput(
            {o.name: losses[o.name] for o in objectives},
            {o.name: o.weight for o in objectives},
            temperature | dict(report),
        )

    def state_dict_of_objectives(self) -> dict[str, Tensor]:
        """Return the momentum encoder and what objectives keep, for ``last/``."""
        tensors: dict[str, Tensor] = {}
        if self.momentum is not None:
            tensors = {f"model.{name}": v for name, v in self.momentum.model.state_dict().items()}
        for objective in self.objectives:
            tensors |= objective.state_dict()
        return tensors

    def load_state_dict_of_objectives(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict_of_objectives` returned."""
        if self.momentum is not None:
            self.momentum.model.load_state_dict(tensors_under(tensors, "model"))
        for objective in self.objectives:
            objective.load_state_dict(tensors)
