"""A small checkpoint in the form of BagFormer's published ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bagformer_cli.models.build import build_model
from bagformer_cli.models.convert.albef import Sizes
from bagformer_cli.models.convert.albef import weights_of as sources_of
from bagformer_cli.models.convert.report import Shape
from bagformer_cli.models.convert.tensors import source_shapes
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import Tokenizer
from tests.support.original_weights import VOCABULARY

SMALL = Sizes(
    vocab=len(VOCABULARY), positions=32, width=64, feed_forward=96, text_layers=2,
    fusion_layers=1, vision_width=64, vision_feed_forward=128, blocks=2, patch=8, grid=4,
    embed_dim=16,
)  # fmt: skip


def weights(sizes: Sizes = SMALL) -> dict[str, Tensor]:
    torch.manual_seed(0)
    named = source_shapes(sources_of(our_shapes(sizes), sizes), our_shapes(sizes))
    return {name: torch.randn(shape) * 0.02 for name, shape in named.items()} | {
        "temp": torch.tensor(0.07)
    }


@cache
def our_shapes(sizes: Sizes) -> dict[str, Shape]:
    """The weights of a model of these sizes, by our names."""
    config = sizes.config(None, Path("x"))
    titles = title_encoder(
        config, Tokenizer([*VOCABULARY, *map(str, range(sizes.vocab - len(VOCABULARY)))]), []
    )
    with torch.device("meta"):
        model = build_model(config, titles, pretrained=False, keep_cross=True)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def published(state: dict[str, Tensor]) -> dict[str, Any]:
    """The form in which the original saves: momentum copies, queues and all."""
    ids = {"text_encoder.embeddings.position_ids": torch.arange(32)[None]}
    copies = {}
    for name, value in {**state, **ids}.items():
        part, dot, rest = name.partition(".")
        if part != "itm_head" and dot:
            copies[f"{part}_m.{rest}"] = torch.zeros_like(value)
    buffers = {
        "image_queue": torch.zeros(16, 8),
        "text_queue": torch.zeros(16, 8),
        "idx_queue": torch.zeros(1, 8, dtype=torch.long),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    model = {**state, **ids, **copies, **buffers}
    return {"model": model, "optimizer": {"state": {}}, "config": {"temp": 0.07}, "epoch": 5}
