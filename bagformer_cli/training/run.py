"""Start and resume one run: a configuration, a dataset and a model become a run folder.

From Python::

    config = load_config("demo", ["training.max_steps=100"])
    model = new_model(config)
    store = ensure_store(resolve("demo"), model.titles)
    start_run(config, store, Path("runs/first"), model)

``training.job`` does the same for the command line, and for chains of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.errors import ConfigError, InputError
from bagformer_cli.files import recover_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.loop import TrainData, Trainer, TrainResult
from bagformer_cli.training.run_folder import new_run, no_run_to_resume, writing
from bagformer_cli.training.run_record import record_resume, record_start

CHANGEABLE = ("training.", "evaluation.", "data.workers", "data.cache_mb", "data.dataset")
"""Settings that a resumed run may change (a dataset may have moved); and weights of objectives, but
not to or from 0."""
_FIXED = ("training.checkpoint",)


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
        config: The run's configuration; written to the run folder.
        store: The preprocessed dataset.
        run: The folder to make; it must not hold a run.
        model: From :func:`~bagformer_cli.training.initial_model.new_model`.
        template: Config file whose comments are copied; None: no comments.
        processes: The processes that train together.
        progress: Where to report.

    Raises:
        InputError: The folder already holds a run, or the dataset has no training split.
    """
    trainer = make_trainer(model, config, store, run, False, processes, progress)
    with new_run(run) if processes.is_main else nullcontext():
        if processes.is_main:
            save_config(config, run / "config.yaml", template)
            record_start(run, processes.world_size)
        processes.barrier()
        return trainer.train()


def resume_config(run: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a run that is to be resumed.

    Args:
        run: The run folder.
        overrides: ``section.key=value`` items to change, for example ``training.max_steps=200``.

    Raises:
        InputError: The folder holds no run.
        ConfigError: An override changes what the saved model or its data already determine.
    """
    if not (run / "config.yaml").exists():
        raise no_run_to_resume(run)
    config = load_config(run / "config.yaml", overrides, stored=True)
    _refuse_other_model(load_config(run / "config.yaml", stored=True), config, overrides)
    return config


def _refuse_other_model(before: RunConfig, after: RunConfig, overrides: Sequence[str]) -> None:
    """Raise if an override would be ignored: the saved model and batches decide."""
    for item in overrides:
        path = item.partition("=")[0].strip()
        if path.startswith(CHANGEABLE) and path not in _FIXED:
            continue
        was, wanted = (_setting(config, path) for config in (before, after))
        weight = path.startswith("objectives.") and bool(was) and bool(wanted)
        if was != wanted and not (weight and isinstance(wanted, float)):
            raise ConfigError(
                tr("This setting cannot change when a run is resumed."),
                where=f"--set {item}",
                found=wanted,
                expected=was if was is not None else "null",
                hint=tr("Start a new run from its weights: --checkpoint {run}", run="RUN/last"),
            )


def _setting(config: RunConfig, path: str) -> object:
    """Return the value at a dotted path."""
    value: object = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
    return value


def resume_run(
    config: RunConfig,
    store: Store,
    run: Path,
    progress: Progress = SILENT,
    processes: Processes = SINGLE_PROCESS,
) -> TrainResult:
    """Continue a run exactly where its ``last/`` was saved; see ``training.resume``.

    The number of processes may differ from before. A run that was killed before its first save
    starts from the beginning, with the same seed.

    Args:
        config: From :func:`resume_config`.
        store: The preprocessed dataset.
        run: The run folder.
        progress: Where to report.
        processes: The processes that train together.
    """
    with writing(run) if processes.is_main else nullcontext():
        if processes.is_main:
            recover_folder(run / "last")
            recover_folder(run / "best")
        processes.barrier()
        saved = (run / "last").is_dir()
        if saved:
            model = load_model(run / "last", "cuda" if torch.cuda.is_available() else "cpu")
            model.config.training, model.config.evaluation = config.training, config.evaluation
        else:
            model = new_model(config)
        trainer = make_trainer(model, config, store, run, saved, processes, progress)
        if processes.is_main:
            save_config(config, run / "config.yaml", run / "config.yaml")
            record_resume(run, trainer.state.step, processes.world_size)
        return trainer.train()


def make_trainer(
    model: RetrievalModel,
    config: RunConfig,
    store: Store,
    run: Path,
    resume: bool,
    processes: Processes,
    progress: Progress,
) -> Trainer:
    """Build the trainer of a run, without training yet.

    Args:
        model: The model to train.
        config: The run's configuration.
        store: The preprocessed dataset.
        run: The run folder.
        resume: Restore the state in ``run/last``.
        processes: The processes that train together.
        progress: Where to report.
    """
    split, regions = train_split(store), config.image.regions
    objectives, words = config.objectives, model.titles.tokenizer
    masking = None
    if objectives.mlm or objectives.mfm:
        settings = objectives.masking
        masking = TokenMasking.of(words, settings.tokens, whole_bags=settings.whole_bags)
    size = images_per_process(config.training.batch_size, processes)
    batches = TrainBatches(
        split,
        config.data,
        Sampling(size, config.seed, processes.rank, processes.world_size),
        image_size=config.image.size,
        pad_id=words.pad_id,
        regions=None if regions is None else RegionFile.of(split, regions),
        masking=masking,
    )
    batches.decoded.as_original = model.as_original
    valid = store.split("valid") if "valid" in store.splits else None
    return Trainer(
        model,
        config,
        TrainData(batches, valid),
        run,
        resume=resume,
        processes=processes,
        progress=progress,
    )


def train_split(store: Store) -> Split:
    """Open the training split.

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


def images_per_process(batch_size: int, processes: Processes) -> int:
    """Divide a batch equally among the processes.

    Raises:
        ConfigError: ``batch_size`` is not a multiple of the world size.

    >>> images_per_process(64, Processes(rank=0, world_size=4))
    16
    """
    if batch_size % processes.world_size:
        raise ConfigError(
            tr("A batch must be divided equally among the processes."),
            where="training.batch_size",
            found=batch_size,
            expected=tr("a multiple of {n}", n=processes.world_size),
        )
    return batch_size // processes.world_size
