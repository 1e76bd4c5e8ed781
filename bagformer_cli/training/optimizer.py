"""The optimizer and the learning-rate schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from bagformer_cli.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> AdamW:
    """Build AdamW over the trained parameters, without weight decay for biases, norms and scalars.

    Args:
        model: Parameters with ``requires_grad`` are trained.
        config: ``learning_rate`` and ``weight_decay``.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(step: int, schedule_steps: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step: a linear warm-up, then half a cosine or one drop.

    Args:
        step: Number of the step, from 0.
        schedule_steps: Steps of the whole schedule. The cosine ends there, later steps keep its
            last value; ``decay_at`` is a share of them.
        config: The rates, the warm-up and the form of the schedule.

    >>> config = TrainingConfig(learning_rate=1.0, warmup_steps=2)
    >>> [round(learning_rate(step, 10, config), 2) for step in (0, 1, 2, 6, 10, 99)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "step":
        decayed = step >= config.decay_at * schedule_steps
        return config.learning_rate * (config.decay_factor if decayed else 1.0)
    span = max(1, schedule_steps - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    lowest = config.min_learning_rate
    return lowest + (config.learning_rate - lowest) * (1 + math.cos(math.pi * done)) / 2
