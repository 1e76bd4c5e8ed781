"""The optimizer and its learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from bagformer_cli.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> AdamW:
    """AdamW over what is trained; biases, norms and scalars are not decayed."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(step: int, schedule_steps: int, config: TrainingConfig) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine down to the least, or a step.

    Args:
        step: From 0.
        schedule_steps: Where the cosine ends (later steps keep the least rate), and what
            ``decay_at`` is a share of.
        config: Highest and least rate, the warm-up, and which of the two.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "step":
        decayed = step >= config.decay_at * schedule_steps
        return config.learning_rate * (config.decay_factor if decayed else 1.0)
    span = max(1, schedule_steps - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    least = config.min_learning_rate
    return least + (config.learning_rate - least) * (1 + math.cos(math.pi * done)) / 2
