"""Estimate the memory of a large batch and of momentum queues, and refuse what cannot fit.

:func:`check_memory` does not count activations: ``training.micro_batch_size`` bounds them. The rest
grows with the batch: its cached vectors and their gradients, score matrices, queues. Each objective
estimates its bytes (``Objective.memory``); :func:`matrix_bytes` is the part that all objectives on
score matrices share: vectors and matrices. :func:`training_bytes` estimates weights, gradients,
moments and activations, to plan a training on a card.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from timm.models import VisionTransformer
from torch import nn

from bagformer_cli.config import RunConfig
from bagformer_cli.errors import ConfigError, listed
from bagformer_cli.interaction.maxsim import BUDGET, MAX_SAVED_ARGMAX_BYTES, argmax_index_bytes
from bagformer_cli.machine import memory
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.scorers import Scorer, vectors_per_item
from bagformer_cli.training.encoded_batch import Context

_FLOAT = 4  # bytes of a float32
_LAYER = 44  # bytes that a transformer layer keeps per number of its input
_COPIES = 4  # per direction: scores, logits, softmax and gradient of a score matrix


def peak_memory_mb(device: torch.device) -> int:
    """Return the most memory that this process has used so far: a GPU's if the model is on one."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts kilobytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def matrix_bytes(
    context: Context, scorer: Scorer, batch_size: int, queued: int = 0
) -> dict[str, int]:
    """Estimate the bytes of one scorer's vectors and score matrices in one process.

    Args:
        context: The model and the configuration.
        scorer: ``cls`` or ``late``.
        batch_size: Images of the whole batch, of all processes.
        queued: Further candidates of each side.
    """
    config, processes = context.config, context.processes
    titles = batch_size * config.data.titles_per_image
    per_title, per_image = vectors_per_item(context.model, scorer)
    vectors = titles * per_title + batch_size * per_image
    pairs = titles * (batch_size + queued) + batch_size * (titles + queued)
    matrices = _COPIES * _FLOAT * pairs // processes.world_size
    if scorer == "late":  # MaxSim keeps argmax indices and works in blocks
        patch, bag = argmax_index_bytes(context.model.device)
        indices = titles * batch_size * (patch * per_title + bag * per_image)
        argmax_bytes = indices // processes.world_size
        matrices += min(MAX_SAVED_ARGMAX_BYTES, argmax_bytes) + BUDGET
    return {
        f"cached vectors ({scorer})": 2 * _FLOAT * vectors * config.model.embed_dim,
        f"score matrices ({scorer})": matrices,
    }


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the numbers of a model that are trained, and all of them."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def training_bytes(model: RetrievalModel, config: RunConfig, images: int) -> dict[str, int]:
    """Estimate the bytes of a training step of transformer towers on a GPU, in bfloat16.

    Weights, their gradients and AdamW's two moments are float32: 4 + 4 + 8 bytes for a trained
    number, 4 for a frozen one. Adapters (``training.lora``) make almost all of them frozen.

    Args:
        model: The model, perhaps with adapters; values are not read (the meta device will do).
        config: ``training.ema``, ``model.gradient_checkpointing``, sizes.
        images: Images encoded at once, each with one title: ``training.micro_batch_size``.

    Returns:
        Bytes by consumer, without CUDA's own memory (about 1 GB) and the buffers of the optimizer
        step.
    """
    trained, total = count_parameters(model)
    recompute = config.model.gradient_checkpointing
    text, backbone = config.text, getattr(model.dual.vision_encoder, "backbone", None)
    activations = transformer_bytes(text.max_tokens, text.width, text.layers, recompute)
    if isinstance(backbone, VisionTransformer):
        tokens = backbone.patch_embed.num_patches + backbone.num_prefix_tokens
        width, layers = backbone.embed_dim, len(backbone.blocks)
        activations += transformer_bytes(tokens, width, layers, recompute)
    return {
        "weights": _FLOAT * total,
        "gradients": _FLOAT * trained,
        "moments": 2 * _FLOAT * trained,
        "average": 0 if config.training.ema is None else _FLOAT * trained,
        "activations": images * activations,
    }


def transformer_bytes(tokens: int, width: int, layers: int, recompute: bool) -> int:
    """Estimate the activations of one item in a transformer whose products are bfloat16.

    A layer keeps 44 bytes per number of its input: norms 2 x (4 + 2), query, key and value 6,
    attention 2 + 2, sum 4, feed-forward of four times the width 8 + 8 + 2. With gradient
    checkpointing a layer keeps its input alone, 4 bytes, and one layer at a time has the rest,
    with gradients of the same size.

    >>> transformer_bytes(tokens=257, width=1280, layers=32, recompute=True) / 1e6
    71.05536
    """
    kept = 4 * layers + 2 * _LAYER if recompute else layers * _LAYER
    return tokens * width * kept


def check_memory(needed: Mapping[str, int], config: RunConfig, device: torch.device) -> None:
    """Refuse a batch or a queue that cannot fit into memory, before it is allocated.

    Args:
        needed: Name of each consumer to its bytes.
        config: The run's configuration.
        device: Its free memory is the limit; for the CPU, the machine's memory.

    Raises:
        ConfigError: The sum is larger than the memory.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory()
    if free is None or sum(needed.values()) <= free:
        return
    momentum = config.objectives.momentum
    queued = momentum is not None and momentum.queue > config.training.batch_size
    raise ConfigError(
        tr("This configuration needs more memory than is available."),
        where="objectives.momentum.queue" if queued else "training.batch_size",
        found=listed(f"{name} {_gib(value)}" for name, value in needed.items()),
        expected=tr("at most {size}", size=_gib(free)),
        hint=tr("Try a smaller queue or batch, or single-vector scores (--interaction cls)."),
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
