"""The names of CLIP's image tower: ours (timm's) to those of transformers and of the original.

Both image towers end in an output of the projection's width. CLIP normalises only its class token
after the last block (``ln_post``) before it projects it. Here every patch passes the same
normalisation and projection, as in OWL-ViT, because the projection was trained on normalised
states.

Shapes: W width, D embedding dimension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bagformer_cli.models.convert.tensors import Weight

BACKBONE = "dual.vision_encoder.backbone."
BERT = "dual.text_encoder.bert."


@dataclass(frozen=True)
class VisionNames:
    """The names of a vision transformer's parts; ``{i}`` stands for the number of a block.

    Attributes:
        first: Name of each part outside of the blocks.
        block: Prefix of a block.
        inner: Name of each part of a block.
        qkv: Names of the tensors of queries, keys and values, before ``weight`` or ``bias``.
    """

    first: dict[str, str]
    block: str
    inner: dict[str, str]
    qkv: tuple[str, ...]


TRANSFORMERS = VisionNames(
    first={
        "cls_token": "vision_model.embeddings.class_embedding",
        "pos_embed": "vision_model.embeddings.position_embedding.weight",
        "patch_embed.proj": "vision_model.embeddings.patch_embedding",
        "norm_pre": "vision_model.pre_layrnorm",  # spelled so in transformers
        "norm": "vision_model.post_layernorm",
    },
    block="vision_model.encoder.layers.{i}.",
    inner={
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    qkv=("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
)
ORIGINAL = VisionNames(
    first={
        "cls_token": "visual.class_embedding",
        "pos_embed": "visual.positional_embedding",
        "patch_embed.proj": "visual.conv1",
        "norm_pre": "visual.ln_pre",
        "norm": "visual.ln_post",
    },
    block="visual.transformer.resblocks.{i}.",
    inner={
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    },
    qkv=("attn.in_proj_",),
)
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)$")
_STAGE = re.compile(r"stages\.(\d+)\.(\d+)\.(?:conv(\d)_\w+\.(conv|bn)|shortcut\.conv\.(conv|bn))")
_STEM = re.compile(r"stem\.conv(\d)\.(conv|bn)")
_POOL = re.compile(r"head\.([qkv])\.")


def transformer_weights(ours: Iterable[str], names: VisionNames) -> Iterator[Weight]:
    """List what the weights of a vision transformer are made of.

    Args:
        ours: timm's names of the weights.
        names: The checkpoint's names.
    """
    for name in ours:
        block = _BLOCK.match(name)
        part, _, kind = (block[2] if block else name).rpartition(".")
        if block and part == "attn.qkv":
            prefix = names.block.format(i=block[1])
            sources = tuple(f"{prefix}{one}{kind}" for one in names.qkv)
            form = "stacked" if len(sources) > 1 else "same"
            yield Weight(BACKBONE + name, sources, form)  # type: ignore[arg-type]
        elif block:
            theirs = f"{names.block.format(i=block[1])}{names.inner[part]}.{kind}"
            yield Weight(BACKBONE + name, (theirs,))
        elif name == "cls_token":
            yield Weight(BACKBONE + name, (names.first[name],), "unsqueezed")
        elif name == "pos_embed":
            yield Weight(BACKBONE + name, (names.first[name],), "flat_positions")
        else:
            yield Weight(BACKBONE + name, (f"{names.first[part]}.{kind}",))


def resnet_weights(ours: Iterable[str]) -> Iterator[Weight]:
    """List what the weights of CLIP's ResNet are made of, with its attention pooling.

    Args:
        ours: timm's names of the weights of ``resnet50_clip``.
    """
    for name in ours:
        theirs = _STAGE.sub(_in_layer, name)
        theirs = _STEM.sub(lambda m: f"{m[2]}{m[1]}", theirs)
        theirs = _POOL.sub(lambda m: f"attnpool.{m[1]}_proj.", theirs)
        theirs = theirs.replace("head.pos_embed", "attnpool.positional_embedding")
        form = "positions" if name == "head.pos_embed" else "same"
        counter = name.endswith("num_batches_tracked")
        yield Weight(BACKBONE + name, (f"visual.{theirs}",),
                     form, optional=counter)  # type: ignore[arg-type]  # fmt: skip


def _in_layer(match: re.Match[str]) -> str:
    prefix = f"layer{int(match[1]) + 1}.{match[2]}."
    if match[3]:
        return f"{prefix}{match[4]}{match[3]}"
    return f"{prefix}downsample.{0 if match[5] == 'conv' else 1}"
