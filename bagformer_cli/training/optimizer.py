"""The optimizer, the learning rate of each layer, and the learning-rate schedule.

With ``training.layer_decay`` c, a tower of three layers has these shares of the learning rate::

    projections, cross-encoder, code tokens   1
    layer 3 (top)                             c
    layer 2                                   c^2
    layer 1                                   c^3
    embeddings                                c^4
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW

from bagformer_cli.config import TrainingConfig
from bagformer_cli.models.build import RetrievalModel

TOWERS = ("text_encoder", "vision_encoder")


def build_optimizer(model: nn.Module, config: TrainingConfig) -> AdamW:
    """Build AdamW over the trained parameters, without weight decay for biases, norms and scalars.

    Args:
        model: Parameters with ``requires_grad`` are trained.
        config: ``learning_rate``, ``layer_decay`` and ``weight_decay``.

    Returns:
        The optimizer. Each of its groups has a ``share``: see :func:`set_learning_rate`.

    Raises:
        ConfigError: A backbone does not name its layers, and ``layer_decay`` is below 1.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    shares = dict.fromkeys(trained, 1.0)
    if config.layer_decay < 1 and isinstance(model, RetrievalModel):
        found = layer_shares(model, config.layer_decay)
        shares |= {name: share for name, share in found.items() if name in trained}
    groups: list[dict[str, Any]] = []
    for share in sorted(set(shares.values()), reverse=True):
        own = [parameter for name, parameter in trained.items() if shares[name] == share]
        matrices, vectors = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "share": share})
    return AdamW(groups, lr=config.learning_rate, fused=True)


def layer_shares(model: RetrievalModel, decay: float) -> dict[str, float]:
    """Return the share of the learning rate that each parameter of the towers' layers has.

    ``decay ** depth``, where depth is 1 for the top layer of a tower and one more for each layer
    below. Parameters that are not named have the full rate.

    Args:
        model: The model.
        decay: The rate of a layer as a share of that of the layer above it.
    """
    shares = {}
    for tower in TOWERS:
        encoder = getattr(model.dual, tower)
        depths = encoder.layer_depths() if hasattr(encoder, "layer_depths") else {}
        for name, depth in depths.items():
            shares[f"dual.{tower}.{name}"] = decay**depth
    return shares


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Set the learning rate of every group: ``rate`` times the group's share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


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
