"""Write random weights of tiny models in the layouts of published checkpoints.

``muge_protocol.py --dry-run`` runs the whole protocol with them in minutes; their recall means
nothing. The tests compare converted models with those of transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
)

from bagformer_cli.models.build import build_model
from bagformer_cli.models.convert.albef import Sizes, weights_of
from bagformer_cli.models.convert.report import Shape
from bagformer_cli.models.convert.tensors import source_shapes
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import Tokenizer

SIZE, DIM = 32, 24
STAGES = (3, 4, 6, 3)  # blocks of a ResNet-50
RESNET_SIZE = 64

# ------------------------------------------------------------------------------------ Chinese-CLIP


def tiny_config(**vision: Any) -> ChineseCLIPConfig:
    """Return the configuration of a tiny Chinese-CLIP.

    Args:
        vision: Sizes of the image tower that differ from the usual ones.
    """
    text = {"vocab_size": Tokenizer.load().vocab_size, "hidden_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 96}  # fmt: skip
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 512, "image_size": SIZE, "patch_size": 8}  # fmt: skip
    return ChineseCLIPConfig(
        text_config=text, vision_config={**sizes, **vision}, projection_dim=DIM,
        logit_scale_init_value=4.6052,
    )  # fmt: skip


def tiny_model(**vision: Any) -> ChineseCLIPModel:
    """Return a Chinese-CLIP with random weights, large enough that titles get different vectors."""
    torch.manual_seed(3)
    model = ChineseCLIPModel(tiny_config(**vision))
    model.train(False)
    for name, value in model.named_parameters():  # random weights of transformers are tiny
        if name != "logit_scale" and value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3 if "embedding" in name else 0.09)
        elif name != "logit_scale":
            value.data.add_(torch.randn_like(value) * 0.1)
    return model


def save_tiny(folder: Path, **vision: Any) -> ChineseCLIPModel:
    """Save a tiny Chinese-CLIP with its processor, as on the hub."""
    model = tiny_model(**vision)
    library: Any = transformers  # these functions have no types
    library.logging.disable_progress_bar()
    model.save_pretrained(folder)
    processor(folder, vision.get("image_size", SIZE)).save_pretrained(folder)
    return model


def processor(folder: Path, size: int = SIZE) -> ChineseCLIPProcessor:
    """Write a vocabulary and return the processor that reads titles with it.

    Args:
        folder: The folder of the model.
        size: Pixels per side of an image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer.load().save(folder / "vocab.txt")
    images = ChineseCLIPImageProcessorPil(
        size={"height": size, "width": size}, do_center_crop=False, resample=3
    )
    library: Any = transformers  # these functions have no types
    words = library.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    made: ChineseCLIPProcessor = library.ChineseCLIPProcessor(images, words)
    return made


def original_names(model: ChineseCLIPModel) -> dict[str, Tensor]:
    """Return the tensors of a model under the names that the original repository saves."""
    found = original_text(model)
    state = model.state_dict()
    vision = {k.removeprefix("vision_model."): v for k, v in state.items()}
    found["visual.class_embedding"] = vision["embeddings.class_embedding"]
    found["visual.positional_embedding"] = vision["embeddings.position_embedding.weight"]
    found["visual.conv1.weight"] = vision["embeddings.patch_embedding.weight"]
    for ours, own in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for kind in ("weight", "bias"):
            found[f"visual.{ours}.{kind}"] = vision[f"{own}.{kind}"]
    layers = len({name.split(".")[2] for name in vision if name.startswith("encoder.layers.")})
    for i in range(layers):
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
    # After visual.proj: if the two differ in width, the converter takes the width of the first.
    found["text_projection"] = found.pop("text_projection")
    return {name: value.contiguous() for name, value in found.items()}


def original_text(model: ChineseCLIPModel) -> dict[str, Tensor]:
    """Return the text tower, its projection and the temperature under the original's names."""
    state = model.state_dict()
    prefix = "text_model."
    found = {k.replace(prefix, "bert."): v for k, v in state.items() if k.startswith(prefix)}
    found["bert.pooler.dense.weight"] = torch.zeros(4, 4)
    found["text_projection"] = state["text_projection.weight"].t().contiguous()
    found["logit_scale"] = state["logit_scale"]
    return found


def resnet_tensors(width: int = 8) -> dict[str, Tensor]:
    """Return random tensors of CLIP's ResNet-50, a fraction of its width, under its own names.

    Args:
        width: Channels of the stem; 64 in the real one.
    """
    torch.manual_seed(4)
    half, out = width // 2, 32 * width
    convolutions = {"conv1": (half, 3, 3, 3), "conv2": (half, half, 3, 3),
                    "conv3": (width, half, 3, 3)}  # fmt: skip
    norms = {"bn1": half, "bn2": half, "bn3": width}
    inputs = width
    for stage, blocks in enumerate(STAGES, 1):
        inner = width * 2 ** (stage - 1)
        for block in range(blocks):
            prefix = f"layer{stage}.{block}."
            convolutions |= {f"{prefix}conv1": (inner, inputs, 1, 1),
                             f"{prefix}conv2": (inner, inner, 3, 3),
                             f"{prefix}conv3": (4 * inner, inner, 1, 1)}  # fmt: skip
            norms |= {f"{prefix}bn1": inner, f"{prefix}bn2": inner, f"{prefix}bn3": 4 * inner}
            if block == 0:
                convolutions[f"{prefix}downsample.0"] = (4 * inner, inputs, 1, 1)
                norms[f"{prefix}downsample.1"] = 4 * inner
            inputs = 4 * inner
    found = {f"{name}.weight": torch.randn(shape) * (shape[1] * shape[2] * shape[3]) ** -0.5
             for name, shape in convolutions.items()}  # fmt: skip
    for name, channels in norms.items():
        found[f"{name}.weight"] = found[f"{name}.running_var"] = torch.ones(channels)
        found[f"{name}.bias"] = found[f"{name}.running_mean"] = torch.zeros(channels)
        found[f"{name}.num_batches_tracked"] = torch.tensor(1)
    found["attnpool.positional_embedding"] = torch.randn((RESNET_SIZE // 32) ** 2 + 1, out) * 0.1
    for kind, rows in (("q", out), ("k", out), ("v", out), ("c", DIM)):
        found[f"attnpool.{kind}_proj.weight"] = torch.randn(rows, out) * out**-0.5
        found[f"attnpool.{kind}_proj.bias"] = torch.zeros(rows)
    return {f"visual.{name}": value.clone() for name, value in found.items()}


def save_original(tensors: dict[str, Tensor], file: Path) -> None:
    """Save a checkpoint as the original's training does."""
    content = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": content, "optimizer": {}}, file)


# --------------------------------------------------------------------------------------- BagFormer


def save_bagformer(file: Path, seed: int = 0) -> None:
    """Save random weights of a tiny BagFormer in the form of the published checkpoints."""
    sizes = Sizes(
        vocab=Tokenizer.load().vocab_size, positions=32, width=64, feed_forward=96, text_layers=2,
        fusion_layers=1, vision_width=64, vision_feed_forward=128, blocks=2, patch=8, grid=4,
        embed_dim=16,
    )  # fmt: skip
    torch.manual_seed(seed)
    tensors = {name: torch.randn(shape) * 0.1 for name, shape in bagformer_shapes(sizes).items()}
    tensors["temp"] = torch.tensor(0.07)
    queues = {"image_queue": torch.zeros(16, 8), "text_queue": torch.zeros(16, 8)}
    torch.save({"model": tensors | queues, "optimizer": {}, "epoch": 5}, file)


def bagformer_shapes(sizes: Sizes) -> dict[str, Shape]:
    """Return the shape of each tensor of a BagFormer, by the original's names.

    Args:
        sizes: The sizes of its parts; ``vocab`` is that of the built-in vocabulary.
    """
    config = sizes.config(None, Path("generated"))
    with torch.device("meta"):
        titles = title_encoder(config, Tokenizer.load(), [])
        model = build_model(config, titles, pretrained=False, keep_cross=True)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return source_shapes(weights_of(shapes, sizes), shapes)
