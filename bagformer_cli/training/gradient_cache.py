"""Losses and gradients of one batch: at once, or encoded in parts with the same result.

In parts (gradient caching; Gao et al. 2021): encode every part without a graph and keep the
vectors; take the losses on score matrices of the whole batch and back-propagate to the vectors;
then encode every part again, with a graph and the same chance, and send the vectors' gradients on.
Memory for activations is that of one part, and gradients are those of the whole batch to rounding.

Objectives that look at pairs are taken part by part on the way; of ITM, negatives come from the
part. Batch normalisation takes the statistics of a part, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bagformer_cli.data.batches import Batch
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.momentum import joined
from bagformer_cli.training.task import RetrievalTask, StepOutput, Views
from bagformer_cli.vectors.multi_vectors import MultiVectors


def learn(
    task: RetrievalTask,
    batch: Batch,
    *,
    epoch: float = 0.0,
    number: int = 0,
    chunk: int | None = None,
    scale: float = 1.0,
    bf16: bool = False,
) -> StepOutput:
    """Add a batch's gradients to those of the parameters.

    Args:
        task: The objectives.
        batch: This process's part of the batch.
        epoch: How many epochs were done.
        number: The batch's.
        chunk: Images encoded at a time; None: all.
        scale: What the loss is multiplied by before it is back-propagated.
        bf16: Whether operations are cast to bfloat16 where that is safe.
    """
    scale = scale / task.world.size
    cast = torch.autocast(batch.raw.device.type, dtype=torch.bfloat16, enabled=bf16)
    if chunk is None or chunk >= len(batch):
        with cast:
            output: StepOutput = task(batch, epoch, number)
        torch.autograd.backward(output.total * scale)
        return output
    return _in_parts(task, batch, epoch, number, chunk, scale, cast)


def _in_parts(
    task: RetrievalTask,
    batch: Batch,
    epoch: float,
    number: int,
    chunk: int,
    scale: float,
    cast: torch.autocast,
) -> StepOutput:
    weights = task.drawn(number, epoch)
    parts = [(a, min(a + chunk, len(batch))) for a in range(0, len(batch), chunk)]
    chances: list[list[Tensor]] = []
    encoded: list[Views] = []
    with torch.no_grad(), cast, _statistics_kept(task):
        for a, b in parts:
            chances.append(_chance())
            views = task.encode(batch.part(a, b))
            kept = joined([views.images], features_too="mfm_loss" in weights)
            encoded.append(Views(joined([views.texts]), kept))
    texts = _leaves(joined(views.texts for views in encoded))
    images = _leaves(joined((views.images for views in encoded), features_too=True))
    with cast:
        soft = task.soft_views(batch, weights, chunk)
        hidden = task.hidden(batch, images, weights)
        compared = task.compare(batch, Views(texts, images, soft), weights, epoch)
    if compared.losses:
        torch.autograd.backward(compared.total * scale)
    sums: dict[str, Tensor] = dict(compared.losses)
    report = dict(compared.report)
    after = _chance()
    for (a, b), chance in zip(parts, chances, strict=True):
        part = batch.part(a, b)
        _set_chance(chance)
        with cast:
            views = task.encode(part)
            _set_chance(after)
            if "mlm_loss" in weights:
                views.momentum = task.soft_views(part, weights)
            paired = task.pair(
                part,
                views,
                weights,
                epoch,
                None if hidden is None else hidden.part(a, b),
                (b - a) / len(batch),
            )
        after = _chance()
        each = len(batch.own) // len(batch)
        loss = _towards(views.texts, texts, a * each) + _towards(views.images, images, a)
        if paired.losses:
            loss = loss + paired.total * scale
        if loss.requires_grad:
            torch.autograd.backward(loss)
        for name, value in paired.losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
        for name, figure in paired.report.items():
            report[name] = report.get(name, 0.0) + figure
    losses = {name: sums[name].detach() for name in weights if name in sums}
    return StepOutput(losses, weights, report)


def _leaves(side: Encoded) -> Encoded:
    """Vectors that gather gradients and have no past."""
    cls = side.cls.detach().requires_grad_()
    late = side.late
    if late is not None:
        late = MultiVectors(late.values.detach().requires_grad_(), late.offsets)
    return Encoded(side.vectors, cls, side.states, side.mask, late, features=side.features)


def _towards(part: Encoded, whole: Encoded, first: int) -> Tensor:
    """A number whose gradient in the part's vectors is what the whole batch's losses sent back."""
    total = part.cls.new_zeros(())
    if whole.cls.grad is not None:
        total = total + (part.cls * whole.cls.grad[first : first + len(part.cls)]).sum()
    if whole.late is not None and whole.late.values.grad is not None:
        assert part.late is not None
        begin = int(whole.late.offsets[first])
        rows = slice(begin, begin + len(part.late.values))
        total = total + (part.late.values * whole.late.values.grad[rows]).sum()
    return total


def _chance() -> list[Tensor]:
    """The state of everything random in the model."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states


def _set_chance(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


@contextmanager
def _statistics_kept(task: RetrievalTask) -> Iterator[None]:
    """What a forward pass changes in the model (moving statistics) is as before at the end."""
    buffers = list(task.model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
