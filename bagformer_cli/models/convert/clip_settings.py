"""Settings of our towers for a Chinese-CLIP: from its ``config.json``, or from its shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from bagformer_cli.config import ImageConfig, TextConfig
from bagformer_cli.encoders.pretrained_bert import text_settings
from bagformer_cli.errors import CheckpointError, listed
from bagformer_cli.messages import tr
from bagformer_cli.models.convert.report import Shape

MAX_TOKENS = 52
"""Tokens of a title that Chinese-CLIP reads, [CLS] and [SEP] included."""
HEAD_WIDTHS = {1280: 80}
"""Width of an attention head by the width of the image tower; 64 in all others and in BERT."""
NORM_EPS = 1e-5  # of every layer normalisation in CLIP's image tower, and in timm's
RESNETS = {(3, 4, 6, 3): "resnet50_clip", (3, 4, 23, 3): "resnet101_clip"}
RESNET_WIDTH, RESNET_STRIDE = 64, 32  # channels of the first stage of RN50; pixels per cell
_NAMED = {
    (16, 768, 12, 12): "vit_base_patch16_clip_quickgelu_224",
    (32, 768, 12, 12): "vit_base_patch32_clip_quickgelu_224",
    (14, 1024, 24, 16): "vit_large_patch14_clip_quickgelu_224",
    (14, 1280, 32, 16): "vit_huge_patch14_clip_quickgelu_224",
}
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu",
}  # fmt: skip


@dataclass(frozen=True)
class ClipSettings:
    """The settings of a model that a Chinese-CLIP's weights fit.

    Attributes:
        text: The text tower; its tokenizer is not set.
        image: The image tower.
        embed_dim: Dimension of a vector.
        vocab_size: Rows of the word embedding. 0: the checkpoint does not tell.
        projection_bias: Whether a projection has a bias.
    """

    text: TextConfig
    image: ImageConfig
    embed_dim: int
    vocab_size: int
    projection_bias: bool = False


def settings_from_config(about: Mapping[str, Any], where: Path) -> ClipSettings:
    """Read the settings out of the ``config.json`` of transformers' ``ChineseCLIPModel``.

    Args:
        about: Its content.
        where: The file, for messages.

    Raises:
        CheckpointError: It is another kind of model, or has a part that cannot be expressed.
    """
    from transformers import ChineseCLIPTextConfig, ChineseCLIPVisionConfig

    if about.get("model_type") != "chinese_clip":
        raise CheckpointError(
            tr("This is another kind of model."),
            where=where,
            found=about.get("model_type"),
            expected="chinese_clip",
        )
    # A saved configuration lists only what differs from the defaults of transformers.
    text = {**ChineseCLIPTextConfig().to_dict(), **_part(about, "text_config")}
    vision = {**ChineseCLIPVisionConfig().to_dict(), **_part(about, "vision_config")}
    sizes = text_settings(text, where, "chinese_clip_text_model")
    try:
        tower = _VisionSizes(
            patch=_one_number(vision["patch_size"]),
            width=int(vision["hidden_size"]),
            layers=int(vision["num_hidden_layers"]),
            heads=int(vision["num_attention_heads"]),
            feed_forward=int(vision["intermediate_size"]),
            size=_one_number(vision["image_size"]),
        )
        image = tower.config()
        _add_details(image, vision, where)
        dropout = float(text["hidden_dropout_prob"])
        sizes = sizes.model_copy(update={"dropout": dropout, **_text_rules(sizes)})
        return ClipSettings(
            sizes, image, int(about.get("projection_dim", 512)), int(text["vocab_size"])
        )
    except (ValidationError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            tr("The configuration of this model is not usable."),
            where=where,
            found=str(error).splitlines()[0],
        ) from error


def settings_from_shapes(tensors: Mapping[str, Tensor], where: Path) -> ClipSettings:
    """Read the settings out of the shapes of a checkpoint of the original repository.

    Each size is the one that most tensors agree on, so that a single tensor of another shape is
    found and named later.

    Raises:
        CheckpointError: The tensors are not those of a Chinese-CLIP.
    """
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    resnet = any(name.startswith("visual.layer1.") for name in shapes)
    known = resnet or any(name.startswith("visual.transformer.") for name in shapes)
    if not known or not any(name.startswith("bert.") for name in shapes):
        raise CheckpointError(
            tr("The checkpoint is not a Chinese-CLIP."),
            where=where,
            found=listed(list(shapes)[:3]),
            expected="visual.*, bert.*, text_projection",
            hint=tr("Weights of transformers are read from their folder, with config.json."),
        )
    layer = r"bert\.encoder\.layer\.\d+\."
    width = _agreed(shapes, layer + r"(attention\.)?output\.LayerNorm\.(weight|gamma)", 0, 768)
    embed = _agreed(shapes, r"text_projection|visual\.proj|visual\.attnpool\.c_proj\.bias", -1, 512)
    try:
        text = TextConfig(
            layers=_count(shapes, r"bert\.encoder\.layer\.(\d+)\."),
            width=width,
            heads=max(1, width // 64),
            feed_forward=_agreed(shapes, layer + r"intermediate\.dense\.", 0, 4 * width),
            options={
                "max_position_embeddings": _agreed(shapes, r"bert.*position_embeddings", 0, 512),
                "type_vocab_size": _agreed(shapes, r"bert.*token_type_embeddings", 0, 2),
            },
        )
        text = text.model_copy(update=_text_rules(text))
        image = _resnet_config(shapes, where) if resnet else _vision_sizes(shapes).config()
        vocab_size = _agreed(shapes, r"bert.*word_embeddings", 0, 0)
        return ClipSettings(text, image, embed, vocab_size, projection_bias=resnet)
    except (ValidationError, ArithmeticError) as error:
        raise CheckpointError(
            tr("The checkpoint is not a Chinese-CLIP."),
            where=where,
            found=str(error).splitlines()[0],
        ) from error


@dataclass(frozen=True)
class _VisionSizes:
    """The sizes of CLIP's vision transformer."""

    patch: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    size: int

    def config(self) -> ImageConfig:
        """Choose timm's model: the one of these sizes, or the base model with options."""
        name = _NAMED.get((self.patch, self.width, self.layers, self.heads))
        if name is not None and self.feed_forward == 4 * self.width:
            if name.endswith("patch14_clip_quickgelu_224") and "large" in name and self.size == 336:
                name = name.replace("224", "336")
            return ImageConfig(backbone=name, size=self.size)
        options: dict[str, Any] = {
            "patch_size": self.patch,
            "embed_dim": self.width,
            "depth": self.layers,
            "num_heads": self.heads,
            "mlp_ratio": self.feed_forward / self.width,
        }
        base = _NAMED[16, 768, 12, 12]
        return ImageConfig.model_validate({"backbone": base, "size": self.size, "options": options})


def _vision_sizes(shapes: Mapping[str, Shape]) -> _VisionSizes:
    block = r"visual\.transformer\.resblocks\.\d+\."
    width = _agreed(shapes, block + r"ln_[12]\.weight", 0, 768)
    patch = _agreed(shapes, r"visual\.conv1\.weight", -1, 16)
    positions = _agreed(shapes, r"visual\.positional_embedding", 0, 197)
    return _VisionSizes(
        patch=patch,
        width=width,
        layers=_count(shapes, r"visual\.transformer\.resblocks\.(\d+)\."),
        heads=max(1, width // HEAD_WIDTHS.get(width, 64)),
        feed_forward=_agreed(shapes, block + r"mlp\.c_fc\.", 0, 4 * width),
        size=isqrt(max(1, positions - 1)) * patch,
    )


def _resnet_config(shapes: Mapping[str, Shape], where: Path) -> ImageConfig:
    blocks = tuple(_count(shapes, rf"visual\.layer{n}\.(\d+)\.") for n in (1, 2, 3, 4))
    if blocks not in RESNETS:
        raise CheckpointError(
            tr("timm has no CLIP ResNet of these blocks."),
            where=where,
            found=str(blocks),
            expected=" / ".join(map(str, RESNETS)),
        )
    width = _agreed(shapes, r"visual\.layer1\.\d+\.conv[12]\.weight", 0, RESNET_WIDTH)
    positions = _agreed(shapes, r"visual\.attnpool\.positional_embedding", 0, 50)
    options = {} if width == RESNET_WIDTH else {"width_factor": width / RESNET_WIDTH}
    size = isqrt(max(1, positions - 1)) * RESNET_STRIDE
    return ImageConfig.model_validate(
        {"backbone": RESNETS[blocks], "size": size, "options": options, "attention_pool": True}
    )


def _text_rules(text: TextConfig) -> dict[str, Any]:
    """Return the settings of Chinese-CLIP's tokenizer."""
    longest = int(text.options.get("max_position_embeddings", 512))
    return {"max_tokens": min(MAX_TOKENS, longest), "add_sep": True, "fold_width": False}


def _add_details(image: ImageConfig, vision: Mapping[str, Any], where: Path) -> None:
    """Set what a vision configuration changes besides sizes; refuse what we cannot express."""
    activation = str(vision["hidden_act"])
    wrong = []
    if activation not in _ACTIVATIONS:
        wrong.append(f"hidden_act: {activation}")
    elif activation != "quick_gelu":
        image.options = {**image.options, "act_layer": _ACTIVATIONS[activation]}  # type: ignore[typeddict-item]
    if float(vision["layer_norm_eps"]) != NORM_EPS:
        wrong.append(f"layer_norm_eps: {vision['layer_norm_eps']}")
    if vision["num_channels"] != 3:
        wrong.append(f"num_channels: {vision['num_channels']}")
    if wrong:
        raise CheckpointError(
            tr("The image tower of this model has a part that xmr cannot express."),
            where=where,
            found=listed(wrong),
            expected=f"hidden_act: {', '.join(_ACTIVATIONS)}; layer_norm_eps: {NORM_EPS}; "
            "num_channels: 3",
        )
    dropout = float(vision.get("attention_dropout") or 0)
    if dropout:
        image.options = {**image.options, "attn_drop_rate": dropout}


def _part(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a configuration; old files repeat it under ``…_dict``."""
    parts = [about.get(name), about.get(f"{name}_dict")]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _one_number(value: Any) -> int:
    """Return a side of a square that is one number, or two equal ones."""
    if isinstance(value, list | tuple):
        if len(set(value)) != 1:
            raise ValueError(f"{value}")
        return int(value[0])
    return int(value)


def _agreed(shapes: Mapping[str, Shape], pattern: str, axis: int, usual: int) -> int:
    """Return the length that most tensors of a name have along an axis; ``usual`` if none is."""
    found = Counter(
        shape[axis]
        for name, shape in shapes.items()
        if re.match(pattern, name) and -len(shape) <= axis < len(shape)
    )
    return found.most_common(1)[0][0] if found else usual


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """Return the number of layers, of which the pattern's group is the index."""
    return max(
        (int(m[1]) + 1 for m in (re.match(pattern, name) for name in shapes) if m), default=0
    )
