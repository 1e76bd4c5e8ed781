"""The model that a new run starts from: random weights, pretrained encoders, or a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.encoders.weight_files import load_tensors
from bagformer_cli.errors import CheckpointError, listed
from bagformer_cli.messages import tr
from bagformer_cli.models.build import (
    RetrievalModel,
    build_model,
    check_pretrained,
    require_memory,
    start_copies,
    takes_sizes,
)
from bagformer_cli.models.checkpoint import check_model_folder
from bagformer_cli.models.lora import add_adapters, check_adapters, merged, require_peft
from bagformer_cli.models.runs import WEIGHTS, find_checkpoint
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.training.teacher import ModelFacts, check_teacher, inherited_scorers


def new_model(
    config: RunConfig, checkpoint: str | Path | None = None, progress: Progress = SILENT
) -> RetrievalModel:
    """Build the model of a configuration, with the weights that a run starts from.

    Args:
        config: The run's configuration. Its seed draws the random weights.
        checkpoint: Model or run folder. Its weights are used where name and shape fit, the others
            stay random. None: the folder that the configuration names (see
            :func:`initial_checkpoint`), else pretrained encoders.
        progress: Reports weights that the checkpoint does not have.

    Raises:
        CheckpointError: No weight of the checkpoint fits, or its vocabulary is another.
    """
    if checkpoint is None:
        checkpoint = initial_checkpoint(config)
    folder = None if checkpoint is None else find_checkpoint(checkpoint)
    if folder is not None:
        config = _normalised_like(config, folder)
    torch.manual_seed(config.seed)  # the random weights, and later the dropout of rank 0
    inherited: frozenset[str] = frozenset()
    if folder is not None:
        theirs = ModelFacts.of(folder)
        inherited = inherited_scorers(config, theirs.config, theirs.trained)
    model = build_model(config, pretrained=folder is None, keep_cross="slow" in inherited)
    missing = [] if folder is None else load_fitting_weights(model, folder, progress)
    if all(name.startswith(("dual.head.", "cross.")) for name in missing):
        if any(name.startswith("cross.") for name in missing):
            inherited -= {"slow"}
        model.trained |= inherited
    if config.training.lora is not None:
        check_adapters(model.config)
        add_adapters(model, config.training.lora)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def initial_checkpoint(config: RunConfig) -> str | None:
    """Return the model folder that the configuration names to start from, or None.

    ``training.checkpoint``, else with ``distill.start_from_teacher`` the teacher.
    """
    distill = config.distill
    if config.training.checkpoint is None and distill is not None and distill.start_from_teacher:
        return distill.teacher
    return config.training.checkpoint


def check_start(config: RunConfig, origin: ModelFacts | None = None) -> ModelFacts:
    """Check all that a training needs before a dataset is opened or drawn.

    Pretrained weights are downloaded and tried.

    Args:
        config: The run's configuration.
        origin: The model that teacher and checkpoint name, if it is trained before this run, as
            in a chain; None: they are there now.

    Returns:
        The facts of the model that the run will train.

    Raises:
        ConfigError: A teacher is needed and none is named, or the model cannot be built.
        CheckpointError: A folder is missing or unsuitable, pretrained weights do not fit, or the
            hub cannot be reached.
    """
    check_teacher(config, origin)
    require_memory(config)
    checkpoint = initial_checkpoint(config)
    late = checkpoint is None and takes_sizes(config)  # these sizes decide which layers there are
    if config.training.lora is not None:
        require_peft()
    if not late:
        check_adapters(config)
    if checkpoint is None:
        completed = check_pretrained(config)
        if late:
            check_adapters(completed)
        return ModelFacts.after(config, None)
    folder = find_checkpoint(checkpoint)
    before = ModelFacts.of(folder) if origin is None or (folder / WEIGHTS).exists() else origin
    after = ModelFacts.after(config, before)
    _require_same_vocabulary(after.vocabulary, before.vocabulary, folder)
    return after


def load_fitting_weights(
    model: RetrievalModel, folder: Path, progress: Progress = SILENT
) -> list[str]:
    """Load those weights of a model folder that the model has, by name and shape.

    Returns:
        The names of the model's weights that the folder does not have; they keep their values.

    Raises:
        CheckpointError: No weight of the dual encoder fits, or the vocabularies differ.
    """
    check_model_folder(folder)
    lora = load_config(folder / "config.yaml", stored=True).training.lora
    weights = merged(load_tensors(folder / WEIGHTS), lora, folder / WEIGHTS)
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    if not any(name.startswith("dual.") for name in fitting):
        raise CheckpointError(
            tr("No weight of the checkpoint fits the configuration."),
            where=folder,
            hint=tr(
                "Train with the checkpoint's own config: --config {path}",
                path=folder / "config.yaml",
            ),
        )
    theirs = list(Tokenizer.load(folder / "vocab.txt").vocabulary)
    _require_same_vocabulary(model.titles.tokenizer.vocabulary, theirs, folder)
    model.load_state_dict(fitting, strict=False)
    # The factor and offset of a distillation start from fixed values, not from random ones.
    missing = [name for name in own if name not in fitting and name != "distill_line"]
    random = start_copies(model, missing)
    if random:
        progress.warn(
            tr(
                "{n} of {total} weights are not in the checkpoint and start from random values: "
                "{names}",
                n=len(random),
                total=len(own),
                names=listed(sorted({name.rsplit(".", 1)[0] for name in random})[:5]),
            )
        )
    return missing


def _require_same_vocabulary(own: Sequence[str], theirs: Sequence[str], folder: Path) -> None:
    if list(own) != list(theirs):
        raise CheckpointError(
            tr("The checkpoint was trained with another vocabulary."),
            where=folder / "vocab.txt",
            hint=tr("Use the same one: --set text.tokenizer={path}", path=folder / "vocab.txt"),
        )


def _normalised_like(config: RunConfig, folder: Path) -> RunConfig:
    """Take over pixel normalisation and own size of a checkpoint with its backbone's weights."""
    check_model_folder(folder)
    theirs, image = load_config(folder / "config.yaml").image, config.image
    if image.regions or image.backbone != theirs.backbone:
        return config
    taken: dict[str, Any] = {"size": image.size or theirs.size}
    if not image.mean and not image.std:
        taken |= {"mean": theirs.mean, "std": theirs.std}
    normalised = image.model_copy(update=taken)
    return config.model_copy(update={"image": normalised})
