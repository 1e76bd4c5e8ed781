"""Save and load model folders.

A model folder holds ``config.yaml``, ``model.safetensors``, ``vocab.txt`` and ``lexicon.txt`` (and
``boundaries.safetensors`` where they were learned): all that is needed to repeat a score on any
machine; and ``README.md``, its model card. Nothing in it is code. That of a LoRA run has its
adapters as well (``models.lora``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bagformer_cli.calibration import copy_calibration
from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.encoders.weight_files import damaged_weights, load_tensors, save_tensors, summary
from bagformer_cli.errors import CheckpointError, NotFiniteError, joined, listed, nearest
from bagformer_cli.files import new_files
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.card import write_card
from bagformer_cli.models.lora import add_adapters, merged, save_adapters, saved_name
from bagformer_cli.models.runs import WEIGHTS
from bagformer_cli.models.trained import trained_scorers
from bagformer_cli.outputs import require_empty
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import title_encoder
from bagformer_cli.text.lexicon import saved_lexicon
from bagformer_cli.text.tokenizer import Tokenizer

TRAINED = "trained"
"""Metadata key of the weight file: the trained scorers, separated by spaces."""
FILES = ("config.yaml", WEIGHTS, "vocab.txt", "lexicon.txt")


def save_model(
    model: RetrievalModel, folder: str | Path, figures: Mapping[str, Any] | None = None
) -> None:
    """Write a model to a folder; each file appears whole.

    Args:
        model: The model.
        folder: The folder. A model card that it has stays.
        figures: Recall for the model card; see :func:`~bagformer_cli.models.card.write_card`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.titles.tokenizer.save(folder / "vocab.txt")
    model.titles.segmenter.lexicon.save(folder / "lexicon.txt")
    save_config(model.config, folder / "config.yaml")
    trained = {TRAINED: " ".join(sorted(model.trained))}
    tensors = {saved_name(name): value for name, value in model.state_dict().items()}
    save_tensors(tensors, folder / WEIGHTS, trained)
    save_adapters(model, folder)
    write_card(folder, model.config, figures)


def load_model(
    folder: str | Path, device: str | torch.device = "cpu", *, adapters: bool = False
) -> RetrievalModel:
    """Load a model folder, in evaluation mode.

    Args:
        folder: The model folder.
        device: Where the weights go.
        adapters: Keep the LoRA adapters of a model apart, to train them further. False: they are
            merged into the weights, and the model is an ordinary one.

    Raises:
        CheckpointError: A file is missing or cut off, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    check_model_folder(folder)
    config = load_config(folder / "config.yaml", stored=True)
    titles = _saved_titles(folder, config)
    model = build_model(config, titles, pretrained=False, keep_cross=True)
    weights, lora = load_tensors(folder / WEIGHTS), config.training.lora
    if adapters and lora is not None:
        add_adapters(model, lora)
    else:
        weights = merged(weights, lora, folder / WEIGHTS)
        model.config.training.lora = None
    load_weights(model, weights, folder / WEIGHTS)
    model.trained = trained_in(folder, config)
    return model.to(device).eval()


def saved_titles(folder: Path) -> TitleEncoder:
    """Build the title encoder of a model folder, of its vocabulary and dictionaries.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    check_model_folder(folder)
    return _saved_titles(folder, load_config(folder / "config.yaml", stored=True))


def _saved_titles(folder: Path, config: RunConfig) -> TitleEncoder:
    tokenizer = Tokenizer.load(folder / "vocab.txt")
    return title_encoder(config, tokenizer, saved_lexicon(folder / "lexicon.txt"))


def merge_adapters(folder: Path, out: Path) -> RetrievalModel:
    """Write a model folder whose weights contain the LoRA adapters of another one.

    Args:
        folder: A model folder with adapters.
        out: The folder to write; it must not exist, or be empty.

    Raises:
        CheckpointError: The model has no adapters.
        InputError: ``out`` is not empty.
    """
    check_model_folder(folder)
    if load_config(folder / "config.yaml", stored=True).training.lora is None:
        raise CheckpointError(
            tr("This model has no LoRA adapters: its weights are whole already."),
            where=folder,
            hint=tr("Use this folder as it is."),
        )
    require_empty(out)
    model = load_model(folder)
    with new_files(out) as place:
        save_model(model, place)
        copy_calibration(folder, place)
    return model


def trained_in(folder: Path, config: RunConfig) -> frozenset[str]:
    """Read which scorers of a model folder were trained.

    ``model.safetensors`` says so in its metadata. In folders written before it did, the objectives
    of ``config`` decide.

    Args:
        folder: A model folder.
        config: Its configuration.

    Raises:
        CheckpointError: The weight file is missing, damaged or cut off.
    """
    try:
        with safe_open(folder / WEIGHTS, "pt") as weights:
            metadata: dict[str, str] = weights.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged_weights(folder / WEIGHTS) from error
    if TRAINED not in metadata:
        return trained_scorers(config)
    return frozenset(metadata[TRAINED].split())


def check_model_folder(folder: Path) -> None:
    """Check that a folder is a model folder.

    Raises:
        CheckpointError: It does not exist, or files are missing; the error names them.
    """
    if not folder.is_dir():
        raise CheckpointError(
            tr("There is no model folder here."),
            where=folder,
            hint=tr("Train one with: xmr train, or try: xmr demo"),
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        inner = [name for name in ("best", "last") if (folder / name / WEIGHTS).is_file()]
        raise CheckpointError(
            tr("The model folder is incomplete."),
            where=folder,
            found=tr("missing: {names}", names=listed(missing)),
            expected=listed(FILES),
            hint=tr("This is a run folder. Use {path}.", path=folder / inner[0]) if inner else None,
        )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str | Path) -> None:
    """Load weights into a model; all names and shapes must fit.

    Args:
        model: The model.
        weights: Its parameters and buffers by name.
        where: The weight file, for the message.

    Raises:
        CheckpointError: A name or shape does not fit; the first one is named and all are counted.
        NotFiniteError: A weight is NaN or infinite.
    """
    own = {saved_name(name): value for name, value in model.state_dict().items()}
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} {list(weights[name].shape)} / {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        found = [
            *summary(tr("missing"), missing),
            *summary(tr("unexpected"), unexpected),
            *summary(tr("another shape"), shapes),
        ]
        near = nearest(missing[0], unexpected) if missing and unexpected else None
        raise CheckpointError(
            tr("The weights do not fit the model of the configuration."),
            where=where,
            found=joined(found),
            hint=tr("The name most like {missing} is {near}.", missing=missing[0], near=near)
            if near
            else None,
        )
    trained = {saved_name(name) for name, _ in model.named_parameters()}
    broken = [name for name in own if name in trained and not weights[name].isfinite().all()]
    if broken:
        raise NotFiniteError(
            tr("Weights of this model are not finite numbers."),
            where=where,
            found=joined(summary("NaN", broken)),
            hint=tr("Its training diverged. Use another model."),
        )
    model.load_state_dict({name: weights[saved_name(name)] for name in model.state_dict()})
