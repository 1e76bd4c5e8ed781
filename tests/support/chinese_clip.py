"""Scores of a Chinese-CLIP by transformers and by us; tiny ones are made by ``small_weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ChineseCLIPModel

from bagformer_cli.api import Retriever
from bagformer_cli.models.build import RetrievalModel
from small_weights import DIM, SIZE, original_names, processor, save_original, save_tiny

__all__ = [
    "DIM",
    "SIZE",
    "TITLES",
    "original_names",
    "ours",
    "save_original",
    "save_tiny",
    "theirs",
]

TITLES = ["红色碎花连衣裙", "Nike 2023新款男鞋", "帽", "女士夏季宽松显瘦大码雪纺衫上衣短袖" * 5]
"""Titles of different lengths: the last one has more than 52 tokens."""


@torch.no_grad()
def theirs(model: ChineseCLIPModel, folder: Path, images: list[Any]) -> Tensor:
    """The cosines of all titles with all images, [titles, images], by transformers."""
    inputs = processor(folder)(
        text=TITLES, images=images, padding=True, truncation=True, max_length=52,
        return_tensors="pt",
    )  # fmt: skip
    found = model(**inputs)
    similarity: Tensor = found.logits_per_text / model.logit_scale.exp()
    return similarity


def ours(model: RetrievalModel, images: list[Image.Image]) -> Tensor:
    """The scores of all titles with all images, [titles, images], by one of our models."""
    retriever = Retriever(model)
    scores = retriever.score(retriever.encode_images(images), retriever.encode_texts(TITLES))
    return scores.t2i
