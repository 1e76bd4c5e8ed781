"""Every built-in configuration and mode, shrunk to a size that a test trains in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.config.builtin import CONFIGS, MODES
from bagformer_cli.config.modes import default_config
from bagformer_cli.data.regions import Regions, write_regions
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.initial_model import new_model
from tests.support.datasets import write_split

REGION_WIDTH = 12
BACKBONES = {
    "resnet10t": "{channels: [8, 12, 16, 24], output_stride: 8, stem_width: 8}",
    "resnet50": "{channels: [8, 12, 16, 24], layers: [1, 1, 1, 1]}",
    "vit_base_patch16_clip_quickgelu_224": "{patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    "vit_tiny_patch16_224": "{patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    "vit_base_patch16_224": "{patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}",
    "tf_efficientnet_lite2": "{}",
}
TEACHERS = {
    "shrinktobase": "inflate",
    "shrinktofast": "base",
    "slowtofast": "captioner",
    "matching_distill_finetune": "alignment_triplet",
    "matching_triplet_finetune": "alignment_triplet",
}
"""Modes that start from, or are taught by, a model of another mode."""


def architectures() -> list[tuple[str, str | None]]:
    """List pairs of config and mode: each config alone, each mode on its small and full config."""
    pairs: list[tuple[str, str | None]] = [(name, None) for name in CONFIGS]
    for mode in MODES:
        if mode != "chain":  # its stages are modes of this list
            bases = {default_config(data, mode=mode) for data in ("demo", "muge")}
            pairs += [(base, mode) for base in sorted(bases)]
    return pairs


def small_config(name: str, mode: str | None, folder: Path, *overrides: str) -> RunConfig:
    """Shrink a configuration; a teacher that it needs is made below ``folder``."""
    items = ["text.pretrained=null", "text.tokenizer=builtin", "image.pretrained=false",
             "text.chinese_clip=null", "image.chinese_clip=null"]  # fmt: skip
    full = load_config(name, items, mode)
    items += ["text.layers=1", "text.width=32", "text.heads=2", "text.feed_forward=48",
              "text.frozen_layers=0", "image.frozen_layers=0", "image.size=32",
              "training.encode_frozen_once=false",
              "model.embed_dim=16", "data.workers=0", "training.batch_size=8",
              "training.warmup_steps=0", "training.processes=null", "training.epochs=50",
              "training.schedule_steps=40", "training.evaluate_every=1000",
              "evaluation.candidates=2"]  # fmt: skip
    if full.image.regions is not None:
        items += [f"image.regions.width={REGION_WIDTH}", "image.regions.maximum=4"]
    else:
        items.append(f"image.options={BACKBONES[full.image.backbone]}")
    if full.model.cross is not None:
        items.append("model.cross.layers=1")
    if full.model.codes:
        items.append("model.codes=2")
    if full.model.head is not None:
        items += ["model.head.layers=1", "model.head.heads=2", "model.head.feed_forward=48"]
    if full.objectives.momentum is not None:
        items.append("objectives.momentum.queue=24")
    if full.distill is not None and full.distill.candidates is not None:
        items.append("distill.candidates=2")
    if full.training.micro_batch_size is not None:
        items.append("training.micro_batch_size=4")
    config = load_config(name, [*items, *overrides], mode)
    if mode in TEACHERS:
        teacher = folder / f"{name}-{TEACHERS[mode]}"
        if not teacher.exists():
            save_model(new_model(small_config(name, TEACHERS[mode], folder)), teacher)
        if config.distill is not None and config.model.alignment is None:
            config.distill.teacher = str(teacher)
        else:
            config.training.checkpoint = str(teacher)
    return config


def small_store(folder: Path) -> Store:
    """Write sixteen pairs with images and regions."""
    random = np.random.default_rng(0)
    queries = [(n, f"红色碎花连衣裙{n}号", (100 + n,)) for n in range(16)]
    for split in ("train", "valid"):
        found = write_split(folder, split, queries)
        regions = [
            (
                100 + n,
                Regions(
                    random.normal(size=(4, REGION_WIDTH)).astype(np.float32),
                    np.array([[0, 0, 0.5, 1]] * 4, np.float32),
                ),
            )
            for n in range(16)
        ]
        write_regions(folder / f"MR_{split}_regions.tsv", regions)
    return ensure_store(found, build_titles(load_config("demo")), workers=1)
