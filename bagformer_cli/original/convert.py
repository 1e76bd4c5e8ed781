"""Convert published BagFormer checkpoints to model folders.

A published checkpoint is a pickled dict. Its ``"model"`` holds the online model, a momentum copy
(``*_m.``) and four queue buffers; optimizer and schedule are next to it. Only the online model is
converted. Pickles are read with ``weights_only=True``, so nothing in them can run.

::

    read_pickle ─▶ online_model: tensors under the original's names
                     ─▶ Sizes.of: sizes from the shapes ─▶ config ─▶ build_model
                     ─▶ rename_tensors: this project's names ─▶ load_weights ─▶ save_model
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from bagformer_cli.config import Compat, CrossConfig, Interaction, RunConfig
from bagformer_cli.encoders.weight_files import read_pickle
from bagformer_cli.errors import CheckpointError, InputError, cannot_read, joined, nearest
from bagformer_cli.files import new_files
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import load_weights, save_model
from bagformer_cli.outputs import require_empty
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import Tokenizer

QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr")
HEAD_WIDTH = 64
"""Width of an attention head of BERT and ViT in all published sizes."""
_MOMENTUM = re.compile(r"^\w+_m\.")
_LAYER = re.compile(r"^text_encoder\.encoder\.layer\.(\d+)\.(.+)$")
_BLOCK = re.compile(r"^visual_encoder\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class CheckpointSources:
    """The files and settings of a published checkpoint that its tensors do not tell.

    Attributes:
        vocab: The WordPiece vocabulary.
        lexicon: The entity dictionary, one entry per line.
        interaction: The vectors that are compared.
        bag_fusion: Bags before (early) or after (late) the text encoder.
        add_sep: End titles with [SEP], as the original's README does and its training does not.
    """

    vocab: str | Path
    lexicon: str | Path
    interaction: Interaction = "bagwise"
    bag_fusion: Literal["early", "late"] = "late"
    add_sep: bool = False


def convert_bagformer(
    checkpoint: str | Path,
    out: str | Path,
    sources: CheckpointSources,
    *,
    image_size: int | None = None,
    compat: Compat = "bagformer",
) -> RetrievalModel:
    """Convert a published checkpoint to a model folder that reproduces the original's scores.

    Args:
        checkpoint: The ``.pth`` file.
        out: The model folder to write; it must not exist, or be empty.
        sources: The files and settings that the checkpoint was trained with.
        image_size: Pixels per side; position embeddings are interpolated. None: the checkpoint's.
        compat: ``bagformer``; or ``bagformer-readme`` for the unprojected features of the example
            in the original's README.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: The file is cut off, holds code, or has another architecture.
        InputError: A file is missing, the vocabulary does not fit, or ``out`` is not empty.
    """
    out = Path(out)
    require_empty(out)
    try:
        with open(sources.lexicon, "rb"):  # read last, but a wrong path is said first
            pass
    except OSError as error:
        raise cannot_read(sources.lexicon, error) from error
    tokenizer = Tokenizer.load(sources.vocab)
    state = online_model(read_pickle(checkpoint), checkpoint)
    sizes = Sizes.of(state)
    _check(state, sizes, checkpoint)
    if tokenizer.vocab_size != sizes.vocab:
        raise InputError(
            tr("The vocabulary is not the one of the checkpoint."),
            where=sources.vocab,
            found=tr("{n} entries", n=tokenizer.vocab_size),
            expected=tr("{n} entries", n=sizes.vocab),
        )
    try:
        config = sizes.config(image_size)
    except (ValidationError, ArithmeticError) as error:  # a size of 0, or far too large
        raise _not_bagformer(checkpoint, str(sizes)) from error
    config.compat = compat
    config.text.tokenizer, config.text.lexicons = str(sources.vocab), [str(sources.lexicon)]
    config.text.add_sep = sources.add_sep
    config.model.interaction = sources.interaction
    config.model.bag_fusion = sources.bag_fusion
    titles = title_encoder(config, tokenizer, [sources.lexicon])
    model = build_model(config, titles, pretrained=False)
    load_weights(model, rename_tensors(state, sizes, config.image.size), checkpoint)
    with new_files(out) as folder:
        save_model(model, folder)
    return model.eval()


# --------------------------------------------------------------------------------------- reading


def online_model(content: Any, where: str | Path) -> dict[str, Tensor]:
    """Select the tensors of the online model, under the names of the original's fine-tuning.

    Momentum copies, queues and integer buffers are left out. ``bert.`` is removed from names (a
    pretraining checkpoint has it). All tensors become float32.

    Args:
        content: The unpickled checkpoint.
        where: Its file, for the message.

    Raises:
        CheckpointError: It is not a dict of tensors.
    """
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise _not_bagformer(where, type(state).__name__)
    kept = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _not_bagformer(where, f"{name}: {type(value).__name__}")
        if value.is_quantized or value.layout != torch.strided or value.is_complex():
            raise _not_bagformer(where, f"{name}: {value.dtype}, {value.layout}")
        if name in QUEUES or _MOMENTUM.match(name) or name.endswith(".position_ids"):
            continue
        kept[name.replace("bert.", "")] = value.float()
    return kept


def _not_bagformer(where: str | Path, found: str) -> CheckpointError:
    return CheckpointError(
        tr("The checkpoint is not a BagFormer model."),
        where=where,
        found=found,
        expected=tr('a dict with "model": names and tensors'),
    )


# ----------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint; the defaults are those of the published base model."""

    vocab: int = 21128
    positions: int = 512
    types: int = 2
    width: int = 768
    feed_forward: int = 3072
    text_layers: int = 6
    fusion_layers: int = 6
    vision_width: int = 768
    vision_feed_forward: int = 3072
    blocks: int = 12
    patch: int = 16
    grid: int = 16
    embed_dim: int = 256

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Sizes:
        """Read the sizes from the shapes of a checkpoint's tensors."""
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        layers = {int(m[1]) for m in map(_LAYER.match, shapes) if m}
        crossed = {int(m[1]) for m in map(_LAYER.match, shapes) if m and "crossattention" in m[2]}
        blocks = {int(m[1]) for m in map(_BLOCK.match, shapes) if m}
        found: dict[str, int] = {}
        text, vision = "text_encoder.embeddings", "visual_encoder"
        for name, axes in {
            f"{text}.word_embeddings.weight": {"vocab": 0, "width": 1},
            f"{text}.position_embeddings.weight": {"positions": 0},
            f"{text}.token_type_embeddings.weight": {"types": 0},
            "text_encoder.encoder.layer.0.intermediate.dense.weight": {"feed_forward": 0},
            f"{vision}.patch_embed.proj.weight": {"vision_width": 0, "patch": 2},
            f"{vision}.blocks.0.mlp.fc1.weight": {"vision_feed_forward": 0},
            "vision_proj.weight": {"embed_dim": 0},
        }.items():
            shape = shapes.get(name, ())
            found |= {key: shape[axis] for key, axis in axes.items() if axis < len(shape)}
        positions = shapes.get(f"{vision}.pos_embed", ())
        if len(positions) == 3:
            found["grid"] = round((positions[1] - 1) ** 0.5)
        if layers and crossed:
            found["fusion_layers"] = len(crossed)
            found["text_layers"] = len(layers - crossed)
        if blocks:
            found["blocks"] = len(blocks)
        return cls(**found)

    def config(self, image_size: int | None) -> RunConfig:
        """Make the configuration of a model of these sizes, with the original's settings."""
        config = RunConfig()
        config.text.layers = self.text_layers
        config.text.width, config.text.feed_forward = self.width, self.feed_forward
        config.text.heads = max(1, self.width // HEAD_WIDTH)
        config.text.options = {
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.types,
        }
        config.image.size = image_size or self.grid * self.patch
        config.image.options = {
            "patch_size": self.patch,
            "embed_dim": self.vision_width,
            "depth": self.blocks,
            "num_heads": max(1, self.vision_width // HEAD_WIDTH),
            "mlp_ratio": self.vision_feed_forward / self.vision_width,
        }
        config.model.embed_dim = self.embed_dim
        config.model.cross = CrossConfig(layers=self.fusion_layers)
        return config

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """List the name and shape of every tensor that a checkpoint of these sizes has."""
        text, width = "text_encoder", self.width
        yield "temp", ()
        yield "visual_encoder.cls_token", (1, 1, self.vision_width)
        yield "visual_encoder.pos_embed", (1, 1 + self.grid**2, self.vision_width)
        yield from _weight_and_bias(
            "visual_encoder.patch_embed.proj", self.vision_width, 3, self.patch, self.patch
        )
        for i in range(self.blocks):
            block, inner = f"visual_encoder.blocks.{i}", self.vision_feed_forward
            for name, *shape in (
                ("norm1", self.vision_width),
                ("attn.qkv", 3 * self.vision_width, self.vision_width),
                ("attn.proj", self.vision_width, self.vision_width),
                ("norm2", self.vision_width),
                ("mlp.fc1", inner, self.vision_width),
                ("mlp.fc2", self.vision_width, inner),
            ):
                yield from _weight_and_bias(f"{block}.{name}", *shape)
        yield from _weight_and_bias("visual_encoder.norm", self.vision_width)
        for name, rows in (
            ("word", self.vocab), ("position", self.positions), ("token_type", self.types),
        ):  # fmt: skip
            yield f"{text}.embeddings.{name}_embeddings.weight", (rows, width)
        yield from _weight_and_bias(f"{text}.embeddings.LayerNorm", width)
        for i in range(self.text_layers + self.fusion_layers):
            kinds = ["attention", "crossattention"] if i >= self.text_layers else ["attention"]
            layer = f"{text}.encoder.layer.{i}"
            for kind in kinds:
                for name in ("query", "key", "value"):
                    across = self.vision_width if kind[0] == "c" and name != "query" else width
                    yield from _weight_and_bias(f"{layer}.{kind}.self.{name}", width, across)
                yield from _weight_and_bias(f"{layer}.{kind}.output.dense", width, width)
                yield from _weight_and_bias(f"{layer}.{kind}.output.LayerNorm", width)
            yield from _weight_and_bias(f"{layer}.intermediate.dense", self.feed_forward, width)
            yield from _weight_and_bias(f"{layer}.output.dense", width, self.feed_forward)
            yield from _weight_and_bias(f"{layer}.output.LayerNorm", width)
        yield from _weight_and_bias("vision_proj", self.embed_dim, self.vision_width)
        yield from _weight_and_bias("text_proj", self.embed_dim, width)
        yield from _weight_and_bias("itm_head", 2, width)


def _weight_and_bias(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _check(state: Mapping[str, Tensor], sizes: Sizes, where: str | Path) -> None:
    """Check that names and shapes are those of a BagFormer of these sizes."""
    expected = dict(sizes.shapes())
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {list(state[name].shape)} / {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if not (missing or unexpected or shapes):
        return
    labels = ((tr("missing"), missing), (tr("unexpected"), unexpected), (tr("shape"), shapes))
    found = [
        f"{label}: {names[0]}" + (f" (+{len(names) - 1})" if len(names) > 1 else "")
        for label, names in labels
        if names
    ]
    near = nearest(missing[0], unexpected) if missing else None
    if near is None and unexpected:
        near = nearest(unexpected[0], expected)
    raise CheckpointError(
        tr("The checkpoint is of another architecture than BagFormer."),
        where=where,
        found=joined(found),
        hint=tr("The nearest name is {name}.", name=near) if near else None,
    )


# ------------------------------------------------------------------------------------- renaming


def rename_tensors(state: Mapping[str, Tensor], sizes: Sizes, image_size: int) -> dict[str, Tensor]:
    """Rename the published tensors to this project's names.

    Args:
        state: All tensors of :func:`online_model`.
        sizes: Their sizes.
        image_size: Pixels per side; position embeddings are interpolated to it.
    """
    ours: dict[str, Tensor] = {"temperature": state["temp"]}
    for name, value in state.items():
        layer = _LAYER.match(name)
        if layer and int(layer[1]) >= sizes.text_layers:
            continue
        for theirs, mine in (
            ("visual_encoder.", "dual.vision_encoder.backbone."),
            ("text_encoder.", "dual.text_encoder.bert."),
            ("vision_proj.", "dual.vision_proj."),
            ("text_proj.", "dual.text_proj."),
            ("itm_head.", "cross.itm_head."),
        ):
            if name.startswith(theirs):
                ours[mine + name.removeprefix(theirs)] = value
    positions = "dual.vision_encoder.backbone.pos_embed"
    ours[positions] = interpolate_positions(ours[positions], image_size // sizes.patch)
    for i in range(sizes.fusion_layers):
        prefix = f"text_encoder.encoder.layer.{sizes.text_layers + i}."
        layer_state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        for name, value in _fusion_layer(layer_state):
            ours[f"cross.fusion.layers.{i}.{name}"] = value
    return ours


def _fusion_layer(layer: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Rename a BERT layer with cross-attention to torch's ``TransformerDecoderLayer``."""
    for part in ("weight", "bias"):
        for theirs, mine in (("attention", "self_attn"), ("crossattention", "multihead_attn")):
            three = [layer[f"{theirs}.self.{name}.{part}"] for name in ("query", "key", "value")]
            yield f"{mine}.in_proj_{part}", torch.cat(three)
            yield f"{mine}.out_proj.{part}", layer[f"{theirs}.output.dense.{part}"]
        for theirs, mine in (
            ("attention.output.LayerNorm", "norm1"),
            ("crossattention.output.LayerNorm", "norm2"),
            ("intermediate.dense", "linear1"),
            ("output.dense", "linear2"),
            ("output.LayerNorm", "norm3"),
        ):
            yield f"{mine}.{part}", layer[f"{theirs}.{part}"]


def interpolate_positions(positions: Tensor, grid: int) -> Tensor:
    """Interpolate position embeddings to another grid: bicubic, the class token's row unchanged.

    Args:
        positions: [1, 1 + g * g, W].
        grid: Patches per side of the new grid.
    """
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == grid:
        return positions
    cells = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], cells.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
