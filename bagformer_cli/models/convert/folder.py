"""Write model folders of checkpoints of other projects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bagformer_cli.config import Interaction, RunConfig
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.files import new_files
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model, shapes_of
from bagformer_cli.models.checkpoint import load_weights, save_model
from bagformer_cli.models.convert.chinese_clip import open_chinese_clip
from bagformer_cli.models.convert.report import ConversionError, Shape, TensorReport
from bagformer_cli.outputs import require_empty
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.tokenizer import Tokenizer

Assemble = Callable[[Mapping[str, Shape]], tuple[dict[str, Tensor], TensorReport]]


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint.

    Attributes:
        model: The model, in evaluation mode.
        report: The account of every tensor.
    """

    model: RetrievalModel
    report: TensorReport


def build_converted(
    config: RunConfig, titles: TitleEncoder, assemble: Assemble, where: Path, out: Path
) -> Converted:
    """Build a model of a checkpoint's tensors and write its folder.

    Args:
        config: The settings that the checkpoint's weights fit.
        titles: Its tokenizer and dictionaries.
        assemble: Makes weights by our names, given the shape of each.
        where: The checkpoint, for messages.
        out: The folder to write.

    Raises:
        ConversionError: Tensors are missing, unknown or of another shape.
        CheckpointError: The model of these sizes cannot be built, or weights are not finite.
    """
    config.data.dataset = "muge"  # not the drawn images of the demo, the default
    with torch.device("meta"):  # no memory for sizes that the checkpoint does not have
        empty = build_model(config, titles, pretrained=False, keep_cross=True)
    weights, report = assemble(shapes_of(empty))
    if not report.complete:
        raise ConversionError(
            tr("The tensors of the checkpoint are not those of the model."), report, where
        )
    model = build_model(config, titles, pretrained=False, keep_cross=True)
    load_weights(model, weights, where)
    with new_files(out) as folder:
        save_model(model, folder)
    return Converted(model.eval(), report)


def convert_chinese_clip(
    source: str,
    out: str | Path,
    *,
    vocab: str | Path | None = None,
    lexicons: tuple[str | Path, ...] = ("builtin",),
    interaction: Interaction = "cls",
    progress: Progress = SILENT,
) -> Converted:
    """Convert a Chinese-CLIP to a model folder.

    With ``cls`` the scores are its own. With ``tokenwise`` and ``bagwise`` every token or bag and
    every patch passes the projection that was trained for the single vectors: a start for
    fine-tuning.

    Args:
        source: A folder of transformers, a ``.pt`` of the original repository, or a hub name.
        out: The model folder to write; it must not exist, or be empty.
        vocab: Its vocabulary; None: that of the folder. A ``.pt`` has none.
        lexicons: Entity dictionaries: ``builtin`` or files.
        interaction: The vectors that are compared.
        progress: Receives remarks about its preprocessing.

    Raises:
        ConversionError: Tensors are missing, unknown or of another shape.
        CheckpointError: It is another model or cannot be read.
        InputError: ``out`` is not empty, or the vocabulary does not fit.
    """
    out = Path(out)
    require_empty(out)
    clip = open_chinese_clip(source, "chinese-clip")
    tokenizer = _tokenizer(clip.vocabulary, vocab, clip.file)
    settings = clip.settings
    require_entries(tokenizer, settings.vocab_size, vocab or clip.file)
    config = RunConfig(text=settings.text, image=settings.image)
    config.text.tokenizer = str(vocab or source)
    config.text.lexicons = [str(name) for name in lexicons]
    model, objectives = config.model, config.objectives
    objectives.itm = 0.0
    objectives.late_scale = "mean"  # cosines: the temperature was trained on them
    model.cross = None
    model.embed_dim, model.interaction = settings.embed_dim, interaction
    model.projection_bias = settings.projection_bias
    config.evaluation.candidates = 0
    objectives.temperature = config.objectives.temperature.model_copy(
        update={"initial": 0.01, "minimum": 0.01, "maximum": 1.0}
    )
    titles = title_encoder(config, tokenizer, config.text.lexicons)
    for remark in (*clip.remarks, *titles.segmenter.lexicon.remarks):
        progress.warn(remark)
    return build_converted(config, titles, clip.assemble, clip.file, out)


def require_entries(tokenizer: Tokenizer, expected: int, where: str | Path) -> None:
    """Raise unless a vocabulary has as many entries as a word embedding has rows.

    Args:
        tokenizer: The tokenizer with the vocabulary.
        expected: The rows; 0: not known, because the word embedding is missing.
        where: The vocabulary, for the message.

    Raises:
        InputError: It has not.
    """
    if expected and tokenizer.vocab_size != expected:
        raise InputError(
            tr("The vocabulary is not the one of the checkpoint."),
            where=where,
            found=tr("{n} entries", n=tokenizer.vocab_size),
            expected=tr("{n} entries", n=expected),
        )


def _tokenizer(
    own: tuple[str, ...] | None, given: str | Path | None, checkpoint: Path
) -> Tokenizer:
    """Make the tokenizer of a checkpoint that may not come with a vocabulary."""
    if given is not None:
        return Tokenizer.load(given)
    if own is not None:
        return Tokenizer(own)
    beside = checkpoint.parent / "vocab.txt"
    if beside.is_file():
        return Tokenizer.load(beside)
    raise CheckpointError(
        tr("This checkpoint comes without a vocabulary."),
        where=checkpoint,
        hint=tr("Name it with --vocab: the vocab.txt of bert-base-chinese."),
    )
