"""Convert checkpoints of ALBEF and of BagFormer, whose code and names come from ALBEF.

A checkpoint is a pickled dict. Its ``"model"`` holds the online model, a momentum copy (``*_m.``)
and queues; optimizer and schedule are next to it. Only the online model is converted. Pickles are
read as data, so nothing in them can run.

::

    layer of text_encoder     0 … text_layers − 1          text_layers …
    ours                      dual.text_encoder.bert       cross.fusion (with cross-attention)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from torch import Tensor

from bagformer_cli.config import Compat, CrossConfig, Interaction, RunConfig
from bagformer_cli.errors import CheckpointError, cannot_read
from bagformer_cli.messages import tr
from bagformer_cli.models.convert.folder import Converted, build_converted, require_entries
from bagformer_cli.models.convert.report import Shape, TensorReport
from bagformer_cli.models.convert.tensors import Ignored, Weight, assemble, read_tensors
from bagformer_cli.outputs import require_empty
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import Tokenizer

HEAD_WIDTH = 64
"""Width of an attention head of BERT and ViT in all published sizes."""
MAX_TOKENS = 30
"""Tokens of a caption that ALBEF's retrieval reads, [CLS] and [SEP] included."""
MLM = "text_encoder.cls."
IGNORED = (
    Ignored(re.compile(r"\w+_m\."), tr("momentum copy")),
    Ignored(re.compile(r"(image|text|idx)_queue$|queue_ptr$"), tr("queues of the training")),
    Ignored(re.compile(r".*\.position_ids$"), tr("numbers of positions, not weights")),
    Ignored(re.compile(r"text_encoder\.pooler\."), tr("the pooled state is not used")),
    Ignored(
        re.compile(r"text_encoder\.cls\.predictions\.decoder\."),
        tr("copies of the word embeddings and of the bias"),
    ),
)
NO_MLM = Ignored(re.compile(r"text_encoder\.cls\."), tr("head of masked language modelling"))
_LAYER = re.compile(r"text_encoder\.encoder\.layer\.(\d+)\.(.+)$")
_BLOCK = re.compile(r"visual_encoder\.blocks\.(\d+)\.")
_FUSION = re.compile(r"cross\.fusion\.layers\.(\d+)\.(.+)$")
_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "multihead_attn.out_proj": "crossattention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "crossattention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm3": "output.LayerNorm",
}
_PREFIXES = {
    "dual.vision_encoder.backbone.": "visual_encoder.",
    "dual.text_encoder.bert.": "text_encoder.",
    "dual.vision_proj.": "vision_proj.",
    "dual.text_proj.": "text_proj.",
    "cross.itm_head.": "itm_head.",
    "cross.mlm_head.dense.": f"{MLM}predictions.transform.dense.",
    "cross.mlm_head.norm.": f"{MLM}predictions.transform.LayerNorm.",
    "cross.mlm_head.": f"{MLM}predictions.",
}


@dataclass(frozen=True)
class CheckpointSources:
    """The files and settings of a published BagFormer that its tensors do not show.

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
) -> Converted:
    """Convert a published BagFormer to a model folder that reproduces the original's scores.

    Args:
        checkpoint: The ``.pth`` file.
        out: The model folder to write; it must not exist, or be empty.
        sources: The files and settings that the checkpoint was trained with.
        image_size: Pixels per side; position embeddings are interpolated. None: the checkpoint's.
        compat: ``bagformer``; or ``bagformer-readme`` for the unprojected features of the example
            in the original's README.

    Raises:
        ConversionError: Tensors are missing, unknown or of another shape.
        CheckpointError: The file is cut off, or holds code or something else than tensors.
        InputError: A file is missing, the vocabulary does not fit, or ``out`` is not empty.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    require_empty(out)
    try:
        with open(sources.lexicon, "rb"):  # read last, but a wrong path is said first
            pass
    except OSError as error:
        raise cannot_read(sources.lexicon, error) from error
    tokenizer = Tokenizer.load(sources.vocab)
    tensors = checkpoint_tensors(checkpoint)
    sizes = Sizes.of(tensors)
    require_entries(tokenizer, sizes.vocab, sources.vocab)
    config = sizes.config(image_size, checkpoint)
    config.compat = compat
    config.text.tokenizer, config.text.lexicons = str(sources.vocab), [str(sources.lexicon)]
    config.text.add_sep = sources.add_sep
    config.model.interaction = sources.interaction
    config.model.bag_fusion = sources.bag_fusion
    titles = title_encoder(config, tokenizer, [sources.lexicon])

    def make(shapes: Mapping[str, Shape]) -> tuple[dict[str, Tensor], TensorReport]:
        return assemble(weights_of(shapes, sizes), shapes, tensors, (*IGNORED, NO_MLM))

    return build_converted(config, titles, make, checkpoint, out)


def convert_albef(
    checkpoint: str | Path,
    out: str | Path,
    vocab: str | Path,
    *,
    lexicons: tuple[str | Path, ...] = ("builtin",),
    interaction: Interaction = "cls",
    image_size: int | None = None,
) -> Converted:
    """Convert a published ALBEF (pretrained, or fine-tuned for retrieval) to a model folder.

    A pretrained one keeps its head of masked language modelling.

    Args:
        checkpoint: The ``.pth`` file.
        out: The model folder to write; it must not exist, or be empty.
        vocab: The vocabulary of ``bert-base-uncased``, or that of the checkpoint's training.
        lexicons: Entity dictionaries: ``builtin`` or files.
        interaction: The vectors that are compared.
        image_size: Pixels per side; position embeddings are interpolated. None: the checkpoint's.

    Raises:
        ConversionError: Tensors are missing, unknown or of another shape.
        CheckpointError: The file is cut off, or holds code or something else than tensors.
        InputError: A file is missing, the vocabulary does not fit, or ``out`` is not empty.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    require_empty(out)
    tokenizer = Tokenizer.load(vocab)
    tensors = checkpoint_tensors(checkpoint)
    sizes = Sizes.of(tensors)
    require_entries(tokenizer, sizes.vocab, vocab)
    config = sizes.config(image_size, checkpoint)
    text = config.text
    text.tokenizer, text.lexicons = str(vocab), [str(name) for name in lexicons]
    text.fold_width, text.max_tokens = False, min(MAX_TOKENS, sizes.positions)
    config.model.interaction = interaction
    if any(name.startswith(MLM) for name in tensors):
        config.objectives.mlm = 1.0
    titles = title_encoder(config, tokenizer, text.lexicons)

    def make(shapes: Mapping[str, Shape]) -> tuple[dict[str, Tensor], TensorReport]:
        return assemble(weights_of(shapes, sizes), shapes, tensors, IGNORED)

    return build_converted(config, titles, make, checkpoint, out)


def checkpoint_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint; ``bert.`` is removed, which only pretraining has.

    Raises:
        InputError: There is no such file.
        CheckpointError: It is damaged, holds code, or holds something else than tensors.
    """
    return {
        re.sub(r"^(text_encoder(_m)?)\.bert\.", r"\1.", name): value
        for name, value in read_tensors(path).items()
    }


def weights_of(ours: Iterable[str], sizes: Sizes) -> list[Weight]:
    """List what the weights of a model are made of.

    Args:
        ours: Our names.
        sizes: The sizes of the checkpoint.
    """
    return [_weight(name, sizes.text_layers) for name in ours]


def _weight(name: str, text_layers: int) -> Weight:
    if name == "temperature":
        return Weight(name, ("temp",))
    fusion = _FUSION.match(name)
    if fusion:
        prefix = f"text_encoder.encoder.layer.{text_layers + int(fusion[1])}."
        return _fusion_weight(name, prefix, fusion[2])
    ours = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    theirs = _PREFIXES[ours] + name.removeprefix(ours)
    return Weight(name, (theirs,), "positions" if theirs.endswith("pos_embed") else "same")


def _fusion_weight(name: str, prefix: str, part: str) -> Weight:
    """Name the tensors of a BERT layer with cross-attention: ours is a decoder layer of torch."""
    kind, _, tail = part.partition(".in_proj_")
    if tail:
        attention = "attention" if kind == "self_attn" else "crossattention"
        three = (f"{prefix}{attention}.self.{one}.{tail}" for one in ("query", "key", "value"))
        return Weight(name, tuple(three), "stacked")
    layer, _, tail = part.rpartition(".")
    return Weight(name, (f"{prefix}{_PARTS[layer]}.{tail}",))


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint; the defaults are those of the published base model.

    A ``vocab`` of 0 is not known: the word embedding is missing.
    """

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
    def of(cls, tensors: Mapping[str, Tensor]) -> Sizes:
        """Read the sizes from shapes: each is the one that most tensors of a kind agree on."""
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        layers = {int(m[1]) for m in map(_LAYER.match, shapes) if m}
        crossed = {int(m[1]) for m in map(_LAYER.match, shapes) if m and "crossattention" in m[2]}
        blocks = {int(m[1]) for m in map(_BLOCK.match, shapes) if m}
        found: dict[str, Counter[int]] = {}
        for key, length in _lengths(shapes):
            found.setdefault(key, Counter())[length] += 1
        sizes = {"vocab": 0} | {key: lengths.most_common(1)[0][0] for key, lengths in found.items()}
        if layers and crossed:
            sizes["text_layers"] = min(crossed)
            sizes["fusion_layers"] = max(layers) + 1 - min(crossed)
        if blocks:
            sizes["blocks"] = max(blocks) + 1
        return cls(**sizes)

    def config(self, image_size: int | None, where: Path) -> RunConfig:
        """Make the configuration of a model of these sizes.

        Args:
            image_size: Pixels per side; None: as in the training.
            where: The checkpoint, for the message.

        Raises:
            CheckpointError: A size is 0, or far too large.
        """
        config = RunConfig()
        text, image = config.text, config.image
        try:
            text.layers, text.width = self.text_layers, self.width
            text.feed_forward, text.heads = self.feed_forward, max(1, self.width // HEAD_WIDTH)
            text.options = {
                "max_position_embeddings": self.positions,
                "type_vocab_size": self.types,
            }
            image.size = image_size or self.grid * self.patch
            image.options = {
                "patch_size": self.patch,
                "embed_dim": self.vision_width,
                "depth": self.blocks,
                "num_heads": max(1, self.vision_width // HEAD_WIDTH),
                "mlp_ratio": self.vision_feed_forward / self.vision_width,
            }
            config.model.embed_dim = self.embed_dim
            config.model.cross = CrossConfig(layers=self.fusion_layers)
        except (ValidationError, ArithmeticError) as error:
            raise CheckpointError(
                tr("The checkpoint is not an ALBEF or BagFormer model."),
                where=where,
                found=str(self),
            ) from error
        return config


_AXES = {
    r"text_encoder\.embeddings\.word_embeddings": {"vocab": 0},
    r"text_encoder\.embeddings\.position_embeddings": {"positions": 0},
    r"text_encoder\.embeddings\.token_type_embeddings": {"types": 0},
    r"text_encoder\.encoder.*LayerNorm\.weight": {"width": 0},
    r"text_encoder\.encoder.*intermediate\.dense": {"feed_forward": 0},
    r"visual_encoder\.patch_embed\.proj\.weight": {"patch": -1},
    r"visual_encoder\.blocks.*norm[12]\.weight": {"vision_width": 0},
    r"visual_encoder\.blocks.*mlp\.fc1": {"vision_feed_forward": 0},
    r"(vision|text)_proj\.": {"embed_dim": 0},
}


def _lengths(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, int]]:
    """Yield the sizes that each tensor's shape shows."""
    for name, shape in shapes.items():
        for pattern, axes in _AXES.items():
            if re.match(pattern, name):
                yield from ((key, shape[axis]) for key, axis in axes.items() if shape)
        if name == "visual_encoder.pos_embed" and len(shape) == 3:
            yield "grid", isqrt(max(0, shape[1] - 1))
