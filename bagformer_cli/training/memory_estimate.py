"""What a batch, its queues and its cached vectors will take, said before the first step."""

from __future__ import annotations

import torch

from bagformer_cli.config import RunConfig
from bagformer_cli.errors import ConfigError
from bagformer_cli.interaction.maxsim import BUDGET, KEEP
from bagformer_cli.machine import memory
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.scorers import Scorer
from bagformer_cli.training.distributed import ALONE, World
from bagformer_cli.training.objectives.momentum_targets import queue_bytes, queue_lengths

_MATRICES = 8  # of a score matrix's size: two directions, their logits, softmaxes, gradients


def needed_bytes(model: RetrievalModel, config: RunConfig, world: World = ALONE) -> dict[str, int]:
    """Bytes that one process will take beside activations, by what takes them.

    ``queues``, ``momentum model``, ``cached vectors`` (values and gradients of the whole batch) and
    ``score matrices``.
    """
    objectives, size = config.objectives, config.training.batch_size
    momentum = objectives.momentum
    scorers: list[Scorer] = []
    if objectives.itc:
        scorers.append("cls")
    if objectives.late_interaction and config.model.late is not None:
        scorers.append("late")
    queued = 0 if momentum is None else momentum.queue
    titles = size * config.data.titles_per_image
    needed = {"cached vectors": 0, "score matrices": 0}
    for scorer in scorers:
        of_title, of_image = queue_lengths(model, scorer)
        vectors = titles * of_title + size * of_image
        needed["cached vectors"] += 2 * 4 * vectors * config.model.embed_dim
        rows = titles * (size + queued) + size * (titles + queued)
        needed["score matrices"] += _MATRICES // 2 * 4 * rows // world.size
        if scorer == "late":
            places = 4 * (titles * of_title * size + titles * size * of_image) // world.size
            needed["score matrices"] += min(KEEP, places) + BUDGET
    if momentum is not None:
        needed["queues"] = queue_bytes(model, momentum, scorers)
        needed["momentum model"] = sum(p.numel() * p.element_size() for p in model.parameters())
    return needed


def check_memory(model: RetrievalModel, config: RunConfig, world: World = ALONE) -> None:
    """Refuse queues and batches that cannot fit, before they are made.

    Raises:
        ConfigError: What needs how much, and what there is.
    """
    if config.objectives.momentum is None and config.training.micro_batch_size is None:
        return
    needed = needed_bytes(model, config, world)
    there = torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else memory()
    if there is None or sum(needed.values()) <= there:
        return
    momentum = config.objectives.momentum
    queued = momentum is not None and momentum.queue > config.training.batch_size
    raise ConfigError(
        tr("This configuration needs more memory than there is."),
        where="objectives.momentum.queue" if queued else "training.batch_size",
        found=", ".join(f"{name} {_shown(value)}" for name, value in needed.items()),
        expected=tr("at most {size}", size=_shown(there)),
        hint=tr("Try a smaller queue or batch, or one-vector scores (--interaction cls)."),
    )


def _shown(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
