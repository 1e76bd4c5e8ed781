"""From a configuration to a finished run folder, or from a stopped one onwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.data.epochs import TrainBatches
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.store import Store
from bagformer_cli.errors import CheckpointError, ConfigError, InputError
from bagformer_cli.files import recover_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import (
    WEIGHTS,
    check_model_folder,
    find_checkpoint,
    load_model,
    load_tensors,
    trained_in,
)
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.loop import Trainer, TrainResult
from bagformer_cli.training.teacher import check_teacher


def new_model(
    config: RunConfig, checkpoint: str | Path | None = None, progress: Progress = SILENT
) -> RetrievalModel:
    """A model of the configuration, its random weights drawn from the seed.

    Args:
        config: What to build.
        checkpoint: A model folder whose weights are taken where names and shapes fit; None: the
            one that the configuration names (``training.checkpoint``), or its teacher's.
        progress: Told what did not fit.

    Raises:
        CheckpointError: Nothing of ``checkpoint`` fits, or it speaks another vocabulary.
    """
    if checkpoint is None:
        checkpoint = starting_point(config)
    folder = None if checkpoint is None else find_checkpoint(checkpoint)
    if folder is not None:
        config = _normalised_like(config, folder)
    torch.manual_seed(config.seed)
    inherits = folder is not None and _inherits_cross_encoder(config, folder)
    model = build_model(config, pretrained=folder is None, keep_cross=inherits)
    fresh = [] if folder is None else start_from(model, folder, progress)
    if inherits and all(name.startswith("dual.head.") for name in fresh):
        model.trained |= {"slow"}
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _inherits_cross_encoder(config: RunConfig, folder: Path) -> bool:
    """Tell whether a run that does not train its cross-encoder takes the one of ``folder`` over.

    It does if the towers are frozen: the cross-encoder still reads the states it was trained on.
    """
    check_model_folder(folder)
    theirs = load_config(folder / "config.yaml")
    return (
        config.model.freeze_towers
        and theirs.model.cross is not None
        and config.model.cross == theirs.model.cross
        and "slow" in trained_in(folder, theirs)
    )


def _normalised_like(config: RunConfig, folder: Path) -> RunConfig:
    """Take the pixel normalisation of a checkpoint over with the weights of its backbone."""
    check_model_folder(folder)
    theirs, image = load_config(folder / "config.yaml").image, config.image
    if image.mean or image.std or image.regions or image.backbone != theirs.backbone:
        return config
    normalised = image.model_copy(update={"mean": theirs.mean, "std": theirs.std})
    return config.model_copy(update={"image": normalised})


def check_start(config: RunConfig) -> None:
    """Refuse a missing or unsuitable teacher or checkpoint before anything is loaded."""
    check_teacher(config)
    start = starting_point(config)
    if start is not None:
        check_model_folder(find_checkpoint(start))


def starting_point(config: RunConfig) -> str | None:
    """The model folder that a run begins with; None: random or pretrained towers."""
    distill = config.distill
    if config.training.checkpoint is None and distill is not None and distill.start_from_teacher:
        return distill.teacher
    return config.training.checkpoint


def start_from(model: RetrievalModel, folder: Path, progress: Progress = SILENT) -> list[str]:
    """Take over the weights of a model folder that fit by name and shape.

    Returns:
        The names of the weights that did not fit and keep their initial values.

    Raises:
        CheckpointError: None fits, or the vocabularies differ.
    """
    check_model_folder(folder)
    weights = load_tensors(folder / WEIGHTS)
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
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    if vocabulary != list(model.titles.tokenizer.vocabulary):
        raise CheckpointError(
            tr("The checkpoint was trained with another vocabulary."),
            where=folder / "vocab.txt",
            hint=tr("Use it here too: --set text.tokenizer={path}", path=folder / "vocab.txt"),
        )
    model.load_state_dict(fitting, strict=False)
    fresh = [name for name in own if name not in fitting]
    if fresh:
        progress.warn(
            tr(
                "{n} of {total} weights are not in the checkpoint and start fresh: {names}",
                n=len(fresh),
                total=len(own),
                names=", ".join(sorted({name.rsplit(".", 1)[0] for name in fresh})[:5]),
            )
        )
    return fresh


def start_run(
    config: RunConfig,
    store: Store,
    run: Path,
    model: RetrievalModel,
    *,
    template: str | Path | None = None,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress = SILENT,
) -> TrainResult:
    """Train a new run.

    Args:
        config: The run's configuration.
        store: The preprocessed dataset.
        run: The folder to make; it must not hold a run.
        model: From :func:`new_model`.
        template: The config file that the settings came from, for its comments.
        processes: The processes that train it together.
        progress: Where to report.

    Raises:
        InputError: The folder already holds a run, or the dataset has no training split.
    """
    if processes.is_main:
        require_free(run)
        run.mkdir(parents=True, exist_ok=True)
        save_config(config, run / "config.yaml", template)
    processes.barrier()
    return make_trainer(model, config, store, run, False, processes, progress).train()


def require_free(run: Path) -> None:
    """Refuse a folder that already holds a run."""
    if (run / "config.yaml").exists() or (run / "last").exists():
        raise InputError(
            tr("The output folder already holds a run."),
            where=run,
            hint=tr(
                "Go on with it: xmr train --resume --output-dir {run}; or choose another folder.",
                run=run,
            ),
        )


def resume_config(run: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run that is to go on.

    Raises:
        InputError: The folder holds no run.
    """
    if not (run / "config.yaml").exists():
        raise InputError(
            tr("There is no run to go on with."),
            where=run,
            hint=tr("Name one with --output-dir, or start one without --resume."),
        )
    return load_config(run / "config.yaml", overrides)


def resume_run(
    config: RunConfig,
    store: Store,
    run: Path,
    progress: Progress = SILENT,
    processes: Processes = SINGLE_PROCESS,
) -> TrainResult:
    """Go on with a run exactly where its ``last/`` was saved, with as many processes as there are.

    A run that was killed before its first save starts anew, with the same seed.
    """
    if processes.is_main:
        recover_folder(run / "last")
        recover_folder(run / "best")
        save_config(config, run / "config.yaml", run / "config.yaml")
    processes.barrier()
    if not (run / "last").is_dir():
        return make_trainer(
            new_model(config), config, store, run, False, processes, progress
        ).train()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(run / "last", device)
    return make_trainer(model, config, store, run, True, processes, progress).train()


def newest_run(runs: Path) -> Path:
    """The run under ``runs`` that was saved last.

    Raises:
        InputError: There is none.
    """
    found = sorted(runs.glob("*/config.yaml"), key=lambda path: path.parent.stat().st_mtime_ns)
    if not found:
        raise InputError(
            tr("There is no run to go on with."),
            where=runs,
            hint=tr("Name one with --output-dir, or start one without --resume."),
        )
    return found[-1].parent


def free_run_folder(runs: Path, name: str) -> Path:
    """``runs/name``, or with a number behind if that is taken."""
    folder, number = runs / name, 2
    while folder.exists():
        folder, number = runs / f"{name}-{number}", number + 1
    return folder


def train_split(store: Store) -> Split:
    """The training split.

    Raises:
        InputError: The dataset has none.
    """
    if "train" not in store.splits:
        raise InputError(
            tr("The dataset has no training split."),
            where=store.path,
            found=", ".join(store.splits),
            expected="train",
        )
    return store.split("train")


def make_trainer(
    model: RetrievalModel,
    config: RunConfig,
    store: Store,
    run: Path,
    resume: bool,
    processes: Processes,
    progress: Progress,
) -> Trainer:
    """What trains a model on a store's training split, from the start or from ``run/last``."""
    split, regions = train_split(store), config.image.regions
    objectives, words = config.objectives, model.titles.tokenizer
    hides = objectives.masking if objectives.mlm or objectives.mfm else None
    batches = TrainBatches(
        split,
        config.data,
        image_size=config.image.size,
        batch_size=share_of(config.training.batch_size, processes),
        pad_id=words.pad_id,
        seed=config.seed,
        rank=processes.rank,
        world_size=processes.world_size,
        regions=None if regions is None else RegionFile.of(split, regions),
        masking=None
        if hides is None
        else TokenMasking.of(words, hides.tokens, whole_bags=hides.whole_bags),
    )
    valid = store.split("valid") if "valid" in store.splits else None
    return Trainer(
        model, config, batches, valid, run, resume=resume, processes=processes, progress=progress
    )


def share_of(batch_size: int, processes: Processes) -> int:
    """Images of each batch that one process takes.

    Raises:
        ConfigError: The batch cannot be shared equally.
    """
    if batch_size % processes.world_size:
        raise ConfigError(
            tr("A batch must be shared equally among the processes."),
            where="training.batch_size",
            found=batch_size,
            expected=tr("a multiple of {n}", n=processes.world_size),
        )
    return batch_size // processes.world_size
