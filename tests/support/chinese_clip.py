"""A tiny ``ChineseCLIPModel`` that transformers saves, and the same weights in original names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertTokenizerFast,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
)

from bagformer_cli.text.tokenizer import Tokenizer

SIZE, DIM = 32, 24
TITLES = ["红色碎花连衣裙", "Nike 2023新款男鞋", "帽", "女士夏季宽松显瘦大码雪纺衫上衣短袖" * 5]
"""Titles of different lengths: the last one has more than 52 tokens."""


def tiny_config(**vision: Any) -> ChineseCLIPConfig:
    text = {"vocab_size": Tokenizer.load().vocab_size, "hidden_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 96}  # fmt: skip
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 512, "image_size": SIZE, "patch_size": 8}  # fmt: skip
    return ChineseCLIPConfig(
        text_config=text, vision_config={**sizes, **vision}, projection_dim=DIM,
        logit_scale_init_value=4.6052,
    )  # fmt: skip


def save_tiny(folder: Path, **vision: Any) -> ChineseCLIPModel:
    """Save a model of random weights with its processor, as on the hub."""
    torch.manual_seed(3)
    model = ChineseCLIPModel(tiny_config(**vision)).eval()
    for name, value in model.named_parameters():  # random weights of transformers are tiny
        if name != "logit_scale" and value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3 if "embedding" in name else 0.09)
        elif name != "logit_scale":
            value.data.add_(torch.randn_like(value) * 0.1)
    model.save_pretrained(folder)
    processor(folder).save_pretrained(folder)
    return model


def processor(folder: Path) -> ChineseCLIPProcessor:
    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer.load().save(folder / "vocab.txt")
    images = ChineseCLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, resample=3
    )
    return ChineseCLIPProcessor(images, BertTokenizerFast(vocab=str(folder / "vocab.txt")))


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


def original_names(model: ChineseCLIPModel) -> dict[str, Tensor]:
    """The tensors of a model under the names that the original repository saves."""
    state = model.state_dict()
    found = {}
    for name, value in state.items():
        if name.startswith("text_model."):
            found[name.replace("text_model.", "bert.")] = value
    vision = {k.removeprefix("vision_model."): v for k, v in state.items()}
    found["bert.pooler.dense.weight"] = torch.zeros(4, 4)
    found["visual.class_embedding"] = vision["embeddings.class_embedding"]
    found["visual.positional_embedding"] = vision["embeddings.position_embedding.weight"]
    found["visual.conv1.weight"] = vision["embeddings.patch_embedding.weight"]
    for ours, own in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for kind in ("weight", "bias"):
            found[f"visual.{ours}.{kind}"] = vision[f"{own}.{kind}"]
    for i in range(model.config.vision_config.num_hidden_layers):
        block, layer = f"visual.transformer.resblocks.{i}", f"encoder.layers.{i}"
        for kind in ("weight", "bias"):
            three = [vision[f"{layer}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(three)
            for mine, own in (
                ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
            ):  # fmt: skip
                found[f"{block}.{mine}.{kind}"] = vision[f"{layer}.{own}.{kind}"]
    found["visual.proj"] = state["visual_projection.weight"].t()
    found["text_projection"] = state["text_projection.weight"].t()
    found["logit_scale"] = state["logit_scale"]
    return {name: value.contiguous() for name, value in found.items()}


def save_original(tensors: dict[str, Tensor], file: Path) -> None:
    """Save a checkpoint as the original's training does."""
    content = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": content, "optimizer": {}}, file)
