"""The figures of training steps, read from the GPU only when somebody needs them.

A loss is on the GPU. Reading it makes the host wait until the step is finished, and the GPU is then
idle until the host has queued the next step. So a step only keeps its figures; the log, an
evaluation and a save read those of all steps since the last reading with one copy::

    step          1   2   3   …  10             11  …
    host          queue, keep      │ read 10 ×  │ queue, keep
    GPU           ··compute········│            │··compute····

That is also when a step that diverged is found: always before ``last/`` or ``best/`` is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from bagformer_cli.errors import TrainingError, listed
from bagformer_cli.messages import tr
from bagformer_cli.training.distributed import Processes
from bagformer_cli.training.encoded_batch import Figure
from bagformer_cli.training.resume import TrainState


class StepFigures:
    """The figures of the steps since they were read last.

    Args:
        state: Receives each step's figures.
        processes: The processes whose figures are averaged; all read at the same steps.
    """

    def __init__(self, state: TrainState, processes: Processes) -> None:
        self._state, self._processes = state, processes
        self._steps: list[tuple[int, dict[str, Figure]]] = []

    def keep(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Keep the figures of a step without reading them.

        Args:
            step: Number of the step, from 1.
            figures: Numbers, and scalar tensors that nobody changes later.
        """
        on_device = {name: value for name, value in figures.items() if isinstance(value, Tensor)}
        kept = dict(figures)
        if on_device:  # one small tensor, so that nothing else of the step is kept
            rows = torch.stack([value.detach().double() for value in on_device.values()])
            kept |= dict(zip(on_device, rows.unbind(), strict=True))
        self._steps.append((step, kept))

    def read(self) -> None:
        """Read the kept figures, average them over the processes and add them to the state.

        Raises:
            TrainingError: A figure is not finite. The first such step is named.
        """
        if not self._steps:
            return
        start = time.perf_counter()
        flat = [value for _, figures in self._steps for value in figures.values()]
        tensors = [value for value in flat if isinstance(value, Tensor)]
        read = iter(torch.stack(tensors).tolist() if tensors else [])
        numbers = [next(read) if isinstance(value, Tensor) else value for value in flat]
        means = iter(self._processes.all_reduce_mean(numbers))
        waited = time.perf_counter() - start
        steps, self._steps = self._steps, []
        for step, figures in steps:
            values = {name: next(means) for name in figures}
            broken = {name: value for name, value in values.items() if not math.isfinite(value)}
            if broken:
                raise diverged(step, listed(f"{name} = {value}" for name, value in broken.items()))
            self._state.add_figures(values)
        self._state.add_seconds(waited)


def diverged(step: int, found: str) -> TrainingError:
    """Return the error of a training that diverged at a step."""
    return TrainingError(
        tr("The training diverged: a number is not finite."),
        where=tr("step {step}", step=step),
        found=found,
        hint=tr(
            "Try a lower training.learning_rate, training.clip=1, more "
            "training.warmup_steps, or training.precision=fp32; then continue from the "
            "last good state with --resume."
        ),
    )
