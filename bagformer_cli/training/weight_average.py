"""An exponential moving average of the weights (EMA), which is evaluated and saved as ``best/``.

After every optimizer step t, each trained weight w and each running statistic of batch
normalisation is averaged::

    average_t = ema * average_(t - 1) + (1 - ema) * w_t        average_0 = the start

The average moves less than the weights: single batches hardly change it, and after a fine-tuning
it often ranks better than the last weights. It takes the memory of the trained weights once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of one model's trained weights and running statistics.

    Args:
        model: The model; the average starts at its present weights.
        decay: The share of its value that the average keeps at each step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        saved = model.state_dict().keys()  # constants are not among them
        self._own: dict[str, Tensor] = {
            n: p for n, p in model.named_parameters() if p.requires_grad
        }
        for name, buffer in model.named_buffers():
            if name in saved and buffer.is_floating_point():
                self._own[name] = buffer
        self.values = {name: value.detach().clone() for name, value in self._own.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step of ``1 - decay`` towards the model's present weights."""
        present = [value.detach() for value in self._own.values()]
        torch._foreach_lerp_(list(self.values.values()), present, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the average inside the block, and its own weights back after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        return dict(self.values)

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state_dict`. Weights that it does not name keep their value."""
        for name, value in tensors.items():
            if name in self.values:  # a copy keeps the memory layout of the weight
                self.values[name].copy_(value)

    def _exchange(self) -> None:
        """Exchange the memory of the weights with that of the average; nothing is copied."""
        for name, value in self._own.items():
            value.data, self.values[name] = self.values[name], value.data
