"""Settings of runs that are small enough for a test, and what such a run wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from bagformer_cli.training.metrics_log import read_metrics

TINY = [
    "text.width=32",
    "text.heads=2",
    "text.feed_forward=48",
    "text.layers=1",
    "image.backbone=vit_tiny_patch16_224",
    "image.options={patch_size: 8, embed_dim: 32, depth: 1, num_heads: 2}",
    "image.size=16",
    "model.embed_dim=16",
    "data.augment=null",
    "data.workers=0",
    "data.titles_per_image=1",
    "training.batch_size=8",
    "training.learning_rate=3e-3",
    "training.warmup_steps=2",
    "training.epochs=400",
    "training.evaluate_every=1000",
    "training.log_every=1",
    "objectives.itm_share=1",
]
"""Overrides of the demo config: one layer, 16 x 16 pixels, batches of eight."""


def weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a model folder."""
    return load_file(path / "model.safetensors")


def losses(path: Path) -> list[dict[str, Any]]:
    """Read the training lines of the log, without times and memory."""
    lines = read_metrics(path, "train")
    times = {"seconds", "samples_per_second", "pairs_per_second", "data_wait_share", "memory_mb"}
    return [{k: v for k, v in line.items() if k not in times} for line in lines]
