"""Gradients of one batch: encoded at once, or chunk by chunk with the same result.

A contrastive loss needs the vectors of the whole batch, but the activations of a whole batch may
not fit into memory. Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup") splits the backward pass at the vectors. A batch of 6 in chunks
of 2::

    1  encode chunks without a graph            x0x1 → v0v1   x2x3 → v2v3   x4x5 → v4v5
    2  loss of the 6 × 6 score matrix, back-propagated to the vectors only
                                                g0 … g5 = ∂loss/∂v0 … ∂loss/∂v5
    3  encode each chunk again, with a graph and the RNG state of step 1, and back-propagate
                                                Σ v_i · g_i,  whose gradient in v_i is g_i

Step 3 holds the activations of one chunk. The RNG state makes dropout masks of step 3 those of
step 1, so that ``g_i`` is the gradient of the very vectors that are encoded again. Gradients are
those of the whole batch up to rounding.

Pair objectives (ITM, MLM, …) need encoder states, not only vectors: they are computed in step 3,
chunk by chunk, and their losses add up. Two results do depend on the chunk size: ITM draws its
negatives within a chunk, and batch normalisation uses a chunk's statistics (its running statistics
are updated in step 3 only).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bagformer_cli.data.batches import Batch
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.momentum import concatenate_vectors
from bagformer_cli.training.encoded_batch import EncodedBatch
from bagformer_cli.training.objectives import MatrixObjective, Objective, PairObjective
from bagformer_cli.training.task import RetrievalTask, StepOutput, weighted_sum
from bagformer_cli.vectors.multi_vectors import MultiVectors


def accumulate_gradients(
    task: RetrievalTask,
    batch: Batch,
    *,
    epoch: float = 0.0,
    number: int = 0,
    chunk: int | None = None,
    scale: float = 1.0,
    bf16: bool = False,
) -> StepOutput:
    """Add a batch's gradients to ``grad`` of the model's parameters.

    Args:
        task: The model and its objectives.
        batch: This process's part of the batch.
        epoch: Epochs done.
        number: Number of the batch; seeds the draw of an objective.
        chunk: Images encoded per forward pass. Smaller values use less memory and do not change
            gradients, but every image is encoded twice. None: encode the whole batch once.
        scale: Factor of the gradients, for example ``1 / accumulate``.
        bf16: Compute in bfloat16 where torch's autocast allows it.

    Returns:
        The losses of the batch.
    """
    scale = scale / task.processes.world_size
    autocast = torch.autocast(batch.raw.device.type, dtype=torch.bfloat16, enabled=bf16)
    if chunk is None or chunk >= len(batch):
        with autocast:
            output: StepOutput = task(batch, epoch, number)
        torch.autograd.backward(output.total * scale)
        return output
    active = task.active_objectives(number, epoch)
    return _ChunkedStep(task, batch, epoch, active, chunk, scale, autocast).run()


@dataclass
class _ChunkedStep:
    """One batch in chunks; the step numbers are those at the top of this file."""

    task: RetrievalTask
    batch: Batch
    epoch: float
    active: Sequence[Objective]
    chunk: int
    scale: float
    autocast: torch.autocast

    def run(self) -> StepOutput:
        task, batch, active = self.task, self.batch, self.active
        weights = {objective.name: objective.weight for objective in active}
        pair_objectives = [o for o in active if isinstance(o, PairObjective)]
        # Step 1: vectors of the whole batch
        whole, rng_states = self._encode_without_graph()
        # Step 2: losses on score matrices; their gradients end in whole.texts and whole.images
        with self.autocast:
            prepared = task.prepare(whole, active)
            losses = task.matrix_losses(whole, active)
        if losses:
            torch.autograd.backward(weighted_sum(losses, weights) * self.scale)
        losses = {name: loss.detach() for name, loss in losses.items()}
        report = whole.report
        # Step 3: the chunks again. All other randomness (dropout of the cross-encoder, hard
        # negatives) continues from one RNG state, untouched by the repeated states of step 1.
        rng_state = _rng_state()
        titles_per_image = len(batch.own) // len(batch)
        for (start, end), encoder_state in zip(self._bounds(), rng_states, strict=True):
            _set_rng_state(encoder_state)
            with self.autocast:
                chunk = task.encode(batch.part(start, end), self.epoch, pair_objectives)
                chunk.start, chunk.batch_size = start, len(batch)
                _set_rng_state(rng_state)
                chunk_losses = task.pair_losses(chunk, active, prepared)
            rng_state = _rng_state()
            total = _carry_gradients(chunk.texts, whole.texts, start * titles_per_image)
            total = total + _carry_gradients(chunk.images, whole.images, start)
            if chunk_losses:
                total = total + weighted_sum(chunk_losses, weights) * self.scale
            if total.requires_grad:
                torch.autograd.backward(total)
            for name, loss in chunk_losses.items():
                losses[name] = losses.get(name, 0.0) + loss.detach()
            for name, figure in chunk.report.items():
                report[name] = report.get(name, 0.0) + figure
        return task.output(losses, active, report)

    def _bounds(self) -> list[tuple[int, int]]:
        """First and end image of each chunk."""
        size = len(self.batch)
        return [(start, min(start + self.chunk, size)) for start in range(0, size, self.chunk)]

    def _encode_without_graph(self) -> tuple[EncodedBatch, list[list[Tensor]]]:
        """Encode the batch to vectors that collect gradients, and the RNG state of each chunk."""
        task, batch = self.task, self.batch
        features = any(isinstance(o, PairObjective) and o.keeps_features for o in self.active)
        rng_states: list[list[Tensor]] = []
        texts: list[Encoded] = []
        images: list[Encoded] = []
        with torch.no_grad(), self.autocast, _running_statistics_unchanged(task):
            for start, end in self._bounds():
                rng_states.append(_rng_state())
                chunk = task.encode(batch.part(start, end), self.epoch)
                texts.append(concatenate_vectors([chunk.texts]))  # drops the encoder states
                images.append(concatenate_vectors([chunk.images], features=features))
        whole = EncodedBatch(
            task.context,
            batch,
            _leaves(concatenate_vectors(texts)),
            _leaves(concatenate_vectors(images, features=True)),
            self.epoch,
        )
        matrix = [o for o in self.active if isinstance(o, MatrixObjective)]
        with self.autocast:
            whole.momentum = task.encode_momentum(batch, matrix, self.chunk)
        return whole, rng_states


def _leaves(side: Encoded) -> Encoded:
    """Detach vectors from their graph and let them collect gradients."""
    cls = side.cls.detach().requires_grad_()
    late = side.late
    if late is not None:
        late = MultiVectors(late.values.detach().requires_grad_(), late.offsets)
    return replace(side, cls=cls, late=late, maps=[])


def _carry_gradients(chunk: Encoded, whole: Encoded, start: int) -> Tensor:
    """Return a scalar whose gradient in the chunk's vectors is the one found for the whole batch.

    Args:
        chunk: Vectors with a graph.
        whole: The leaves of the whole batch, with gradients.
        start: Position of the chunk's first item in the batch.
    """
    total = chunk.cls.new_zeros(())
    if whole.cls.grad is not None:
        total = total + (chunk.cls * whole.cls.grad[start : start + len(chunk.cls)]).sum()
    if whole.late is not None and whole.late.values.grad is not None:
        assert chunk.late is not None
        begin = int(whole.late.offsets[start])
        rows = slice(begin, begin + len(chunk.late.values))
        total = total + (chunk.late.values * whole.late.values.grad[rows]).sum()
    return total


def _rng_state() -> list[Tensor]:
    """Return the RNG states of the CPU and of the current GPU, if there is one."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states


def _set_rng_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


@contextmanager
def _running_statistics_unchanged(task: RetrievalTask) -> Iterator[None]:
    """Undo what forward passes change in the model's buffers (batch normalisation)."""
    buffers = list(task.model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
