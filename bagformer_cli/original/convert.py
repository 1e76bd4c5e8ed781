"""Published BagFormer checkpoints to model folders.

The published form is a pickled dict with ``"model"``: the online model, its momentum copy
(``*_m.``) and four queue buffers, beside optimizer and schedule. The online model alone is kept.
Pickles are read with ``weights_only=True``, so nothing in them can run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.config import Compat, CrossConfig, Interaction, RunConfig
from bagformer_cli.errors import CheckpointError, InputError, nearest
from bagformer_cli.files import atomic_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import load_weights, read_pickle, save_model
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import Tokenizer

QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr")
HEAD_WIDTH = 64  # of every attention head of BERT and ViT, in all published sizes
_MOMENTUM = re.compile(r"^\w+_m\.")
_LAYER = re.compile(r"^text_encoder\.encoder\.layer\.(\d+)\.(.+)$")
_BLOCK = re.compile(r"^visual_encoder\.blocks\.(\d+)\.")


def convert_bagformer(
    checkpoint: str | Path,
    out: str | Path,
    *,
    vocab: str | Path,
    lexicon: str | Path,
    interaction: Interaction = "bagwise",
    bag_fusion: Literal["early", "late"] = "late",
    add_sep: bool = False,
    image_size: int | None = None,
    compat: Compat = "bagformer",
) -> RetrievalModel:
    """Turn a published checkpoint into a model folder whose numbers are the original's.

    Args:
        checkpoint: The ``.pth`` file.
        out: The model folder to write; must not exist, or be empty.
        vocab: The WordPiece vocabulary it was trained with.
        lexicon: The entity dictionary it was trained with, a word a line.
        interaction: Which vectors are compared.
        bag_fusion: Bags before or after the text encoder, as the checkpoint was trained.
        add_sep: End titles with [SEP], as the original's README does and its training does not.
        image_size: Pixels a side; position embeddings are interpolated. None: the checkpoint's.
        compat: ``bagformer``, or ``bagformer-readme`` for the unprojected features of the
            original's example.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: The file is cut off, holds code, or is of another architecture.
        InputError: A file is missing, the vocabulary is another one, or ``out`` is taken.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            tr("The output folder is not empty."),
            where=out,
            hint=tr("Give a folder that does not exist yet."),
        )
    tokenizer = Tokenizer.load(vocab)
    state = online_model(read_pickle(checkpoint), checkpoint)
    sizes = Sizes.of(state)
    _check(state, sizes, checkpoint)
    if tokenizer.vocab_size != sizes.vocab:
        raise InputError(
            tr("The vocabulary is not the one of the checkpoint."),
            where=vocab,
            found=tr("{n} entries", n=tokenizer.vocab_size),
            expected=tr("{n} entries", n=sizes.vocab),
        )
    config = sizes.config(image_size)
    config.compat = compat
    config.text.tokenizer, config.text.lexicons = str(vocab), [str(lexicon)]
    config.text.add_sep = add_sep
    config.model.interaction, config.model.bag_fusion = interaction, bag_fusion
    titles = title_encoder(config, tokenizer, [lexicon])
    model = build_model(config, titles, pretrained=False)
    load_weights(model, to_ours(state, sizes, config.image.size), checkpoint)
    with atomic_folder(out) as folder:
        save_model(model, folder)
    return model.eval()


# --------------------------------------------------------------------------------------- reading


def online_model(content: Any, where: str | Path) -> dict[str, Tensor]:
    """The tensors of the online model, under the names of the original's fine-tuning.

    Momentum copies, queues and integer buffers are left out, ``bert.`` inside a name as well (a
    pretraining checkpoint has it), and what is not float32 becomes it.
    """
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise _not_bagformer(where, type(state).__name__)
    kept = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise _not_bagformer(where, f"{name}: {type(value).__name__}")
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
    """The sizes of a checkpoint, read off its tensors; what is missing has the published size."""

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
        """The sizes of the published form's tensors."""
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
        places = shapes.get(f"{vision}.pos_embed", ())
        if len(places) == 3:
            found["grid"] = round((places[1] - 1) ** 0.5)
        if layers and crossed:
            found["fusion_layers"] = len(crossed)
            found["text_layers"] = len(layers - crossed)
        if blocks:
            found["blocks"] = len(blocks)
        return cls(**found)

    def config(self, image_size: int | None) -> RunConfig:
        """The configuration of a model of these sizes, the original's settings otherwise."""
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
        """Every tensor of the published form with its shape."""
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
    """Names and shapes must be those of a BagFormer of these sizes."""
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
        found="; ".join(found),
        hint=tr("The nearest name is {name}.", name=near) if near else None,
    )


# ------------------------------------------------------------------------------------- renaming


def to_ours(state: Mapping[str, Tensor], sizes: Sizes, image_size: int) -> dict[str, Tensor]:
    """The published tensors under this project's names.

    Args:
        state: As :func:`online_model` gives them, complete.
        sizes: Their sizes.
        image_size: Pixels a side that the position embeddings shall serve.
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
    places = "dual.vision_encoder.backbone.pos_embed"
    ours[places] = interpolate_positions(ours[places], image_size // sizes.patch)
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
    """A BERT layer with cross-attention as torch's ``TransformerDecoderLayer``."""
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
    """Position embeddings for another image size: bicubic over the grid, the class row kept.

    Args:
        positions: [1, 1 + g * g, W].
        grid: Patches a side that are wanted.
    """
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == grid:
        return positions
    cells = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], cells.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
