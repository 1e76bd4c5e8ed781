"""The contract between an objective and the training task.

An objective is one named loss. There are two kinds, which differ in what they need:

* A :class:`MatrixObjective` compares score matrices: every title of the batch against every image,
  of all processes. It needs the vectors of the whole batch, and nothing else. ITC, late
  interaction and distillation are of this kind.
* A :class:`PairObjective` sends chosen (title, image) pairs through the cross-encoder. It needs the
  encoder states of its pairs, and a few images at a time are enough. ITM, MLM, masked patches and
  captioning are of this kind.

``training.gradient_cache`` relies on that difference: it holds the vectors of a whole batch, but
the states of one chunk only.

How to add an objective:

1. Write the loss function, of tensors only, in ``bagformer_cli/losses/``.
2. Write a class in this folder::

       class AgreementObjective(MatrixObjective):
           name = "agreement_loss"

           @classmethod
           def build(cls, context):
               weight = context.config.objectives.agreement
               return [cls(context, weight)] if weight > 0 else []

           def loss(self, batch):
               scores = batch.scores("late")
               return agreement_loss(scores.t2i, scores.i2t, batch.positives_on_device)

3. Add the class to ``OBJECTIVES`` in ``objectives/__init__.py``.
4. Add its weight to ``config.ObjectivesConfig`` and write a mode (``configs/modes/``) that sets it.

The task, the loop, the gradient cache and the log need no change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from bagformer_cli.training.encoded_batch import Context, EncodedBatch


class Objective(ABC):
    """One named training loss.

    Args:
        context: The model, the configuration and the processes.
        weight: Factor of the loss in the total; above 0.

    Attributes:
        name: Key of the loss in ``metrics.jsonl``; ends in ``_loss``.
        uses_momentum: Whether ``loss`` reads ``EncodedBatch.momentum``, which costs one more
            forward pass of the model.
    """

    name: str
    uses_momentum: bool = False

    def __init__(self, context: Context, weight: float) -> None:
        self.context = context
        self.weight = weight

    @classmethod
    @abstractmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return the objectives of this class that the configuration trains; often 0 or 1."""

    def is_active(self, epoch: float) -> bool:
        """Say whether the objective takes part after ``epoch`` epochs."""
        return True

    def random_guess_loss(self, batch_size: int) -> float | None:
        """Return the loss of a model that guesses, to compare with; None: no fixed value.

        Args:
            batch_size: Images of a batch, of all processes.
        """
        return None

    def memory(self, batch_size: int) -> dict[str, int]:
        """Estimate the bytes that one process needs for this loss, apart from activations.

        Two objectives that use the same memory return it under the same name; it counts once.

        Args:
            batch_size: Images of a batch, of all processes.
        """
        return {}

    def allocate(self) -> None:  # noqa: B027  most objectives have nothing to allocate
        """Allocate large buffers such as queues; called once, after memory was checked."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors that ``last/`` keeps, so that a resumed run is the unbroken one."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restore :meth:`state_dict`; ``tensors`` may hold those of other objectives too."""


class MatrixObjective(Objective):
    """An objective on score matrices of the whole batch. It trains a fast scorer."""

    @abstractmethod
    def loss(self, batch: EncodedBatch) -> Tensor:
        """Compute the loss of the whole batch as a scalar.

        With several processes the returned values are averaged, and the average must be the loss
        of the whole batch. Either compute the whole loss in every process (``batch.scores`` and
        ``batch.positives`` cover all processes), or the mean over this process's own rows.
        """


class PairObjective(Objective):
    """An objective on pairs that go through the cross-encoder, a chunk of the batch at a time.

    Attributes:
        keeps_features: True if :meth:`prepare` reads ``images.features``. Gradient caching then
            keeps them for the whole batch.
    """

    keeps_features: ClassVar[bool] = False

    def prepare(self, batch: EncodedBatch) -> Any:
        """Compute what must be known of the whole batch before its first chunk, if anything.

        Called once a step, without gradients. ``batch`` holds vectors, no encoder states.
        """
        return None

    @abstractmethod
    def loss(self, chunk: EncodedBatch, prepared: Any) -> Tensor:
        """Compute the loss of a chunk so that the losses of all chunks add up to the batch's.

        Args:
            chunk: The chunk, or the whole batch.
            prepared: The result of :meth:`prepare`.
        """
