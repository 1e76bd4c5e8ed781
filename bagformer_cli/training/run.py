"""Start and resume one run: a configuration, a dataset and a model become a run folder.

From Python::

    config = load_config("demo", ["training.max_steps=100"])
    model = new_model(config)
    store = ensure_store(resolve("demo"), model.titles)
    start_run(config, store, Path("runs/first"), model)

``training.job`` does the same for the command line, and for chains of runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.data.hard_negatives import read_negatives
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.sampler import PairSampler, Sampling
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.errors import ConfigError, InputError, listed
from bagformer_cli.files import recover_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.frozen_towers import keep_outputs, needs_pixels, report_kept
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.loop import TrainData, Trainer
from bagformer_cli.training.run_folder import new_run, no_run_to_resume, writing
from bagformer_cli.training.run_record import (
    has_same_data,
    record_resume,
    record_start,
    require_same_files,
    settings_at_start,
)
from bagformer_cli.training.train_result import TrainResult

CHANGEABLE = ("training.", "evaluation.", "data.workers", "data.cache_mb", "data.dataset")
"""Settings that a resumed run may change (a dataset may have moved); and weights of objectives, but
not to or from 0."""
MOVABLE = ("data.hard_negatives", "distill.teacher")
"""Paths of files that may have moved; ``require_same_files`` compares their contents."""
_FIXED = ("training.checkpoint", "training.lora")


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
            record_start(run, config, train_split(store).digests, processes.world_size)
        processes.barrier()
        return trainer.train()


def resume_config(run: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read the configuration of a run that is to be resumed.

    Args:
        run: The run folder.
        overrides: ``section.key=value`` items to change, for example ``training.max_steps=200``.

    Raises:
        InputError: The folder holds no run.
        ConfigError: An override, or an edit of the run's ``config.yaml``, changes what the saved
            model or its data already determine.
    """
    if not (run / "config.yaml").exists():
        raise no_run_to_resume(run)
    config = load_config(run / "config.yaml", overrides, stored=True)
    refuse_other_model(run, config, run / "config.yaml", overrides)
    return config


def refuse_other_model(
    run: Path, config: RunConfig, file: Path, overrides: Sequence[str] = ()
) -> None:
    """Raise if a setting would be ignored or would not fit: the saved model and batches decide.

    The settings are compared with those the run was started with, not with those of its model:
    a model's own have been completed from pretrained weights, and its unused parts left out.

    Args:
        run: The run folder. If it does not record its settings, ``file`` is compared.
        config: The settings to continue with.
        file: The file that ``config`` was read from; the user may have edited it.
        overrides: ``section.key=value`` items that were applied to it.

    Raises:
        ConfigError: A setting differs that a resumed run cannot change.
    """
    before = load_config(settings_at_start(run) or file, stored=True)
    for path, was, wanted in _changes(before.model_dump(), config.model_dump()):
        if path.startswith(CHANGEABLE) and not path.startswith(_FIXED):
            continue
        if path in MOVABLE and was and wanted:
            continue
        weight = path.startswith("objectives.") and bool(was) and bool(wanted)
        if weight and isinstance(wanted, float):
            continue
        items = [item for item in overrides if f"{path}.".startswith(f"{_key(item)}.")]
        raise ConfigError(
            tr("This setting cannot change when a run is resumed."),
            where=f"--set {items[-1]}" if items else f"{file}: {path}",
            found="null" if wanted is None else wanted,
            expected="null" if was is None else was,
            hint=tr("Start a new run from its weights: --checkpoint {run}", run="RUN/last"),
        )


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path and both values of each setting that differs."""
    for key in {**before, **after}:
        path, was, now = f"{prefix}{key}", before.get(key), after.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _changes(was, now, f"{path}.")
        elif was != now:
            yield path, was, now


def _key(item: str) -> str:
    return item.partition("=")[0].strip()


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

    Raises:
        DataError: The hard negatives or the teacher have changed since the run was started.
    """
    with writing(run) if processes.is_main else nullcontext():
        if processes.is_main:
            recover_folder(run / "last")
            recover_folder(run / "best")
        processes.barrier()
        saved = (run / "last").is_dir()
        if saved and processes.is_main:
            require_same_files(run, config)
        images = _images_per_step(config)
        if saved:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            model = load_model(run / "last", device, adapters=True)
            images = _images_per_step(model.config)
            _take_changeable(model.config, config)
        else:
            model = new_model(config)
        trainer = make_trainer(model, config, store, run, saved, processes, progress)
        if processes.is_main:
            data, step = train_split(store).digests, trainer.state.step
            if step and not has_same_data(run, data):
                progress.warn(
                    tr(
                        "The titles or images of the training split have changed since this run "
                        "was trained last. The rest of the run is trained on what is there now."
                    )
                )
            save_config(config, run / "config.yaml", run / "config.yaml")
            record_resume(run, config, data, step, processes.world_size)
            if images != _images_per_step(config):
                _warn_of_steps(trainer, images, progress)
        return trainer.train()


def _take_changeable(stored: RunConfig, config: RunConfig) -> None:
    """Write what a resume may change into a model's configuration, which ``last/`` then records.

    The other sections stay as stored: the model completed them from its pretrained weights.
    """
    stored.training, stored.evaluation = config.training, config.evaluation
    stored.data, stored.objectives = config.data, config.objectives
    stored.distill = config.distill


def _images_per_step(config: RunConfig) -> int:
    return config.training.batch_size * config.training.accumulate


def _warn_of_steps(trainer: Trainer, before: int, progress: Progress) -> None:
    """Say where a run continues whose steps had another number of images."""
    step = trainer.state.step
    progress.warn(
        tr(
            "A step now has {now} images, before it had {before}. The {step} steps done count as "
            "steps of {now}: the run continues in epoch {epoch} of {epochs}.",
            now=_images_per_step(trainer.config),
            before=before,
            step=step,
            epoch=f"{step / trainer.steps_per_epoch:.2f}",
            epochs=trainer.config.training.epochs,
        )
    )


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
    if store.encoder not in (None, model.titles.fingerprint):
        raise InputError(
            tr("The titles of the dataset were cut with another vocabulary or other dictionaries."),
            where=store.path,
            found=store.encoder,
            expected=tr("{fingerprint}: those of the model", fingerprint=model.titles.fingerprint),
            hint=tr("Restore the vocabulary and the dictionaries that the run was started with."),
        )
    objectives, words = config.objectives, model.titles.tokenizer
    masking = None
    if objectives.mlm or objectives.mfm:
        settings = objectives.masking
        masking = TokenMasking.of(words, settings.tokens, whole_bags=settings.whole_bags)
    batches = TrainBatches(
        split,
        config.data,
        _sampling(config, processes),
        image_size=model.config.image.size,
        pad_id=words.pad_id,
        regions=None if regions is None else RegionFile.of(split, regions),
        masking=masking,
    )
    batches.pixels.decoded.as_original = model.as_original
    if config.data.hard_negatives is not None:
        batches.neighbours = read_negatives(Path(config.data.hard_negatives), split)
        batches.drawn = config.data.negatives_per_title
        _report_negatives(batches, progress)
    batches.outputs = keep_outputs(model, config, split, progress)
    batches.reads_pixels = needs_pixels(config, batches.outputs)
    if batches.outputs is not None:
        report_kept(model, config, batches.outputs, progress)
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


def check_data(config: RunConfig, store: Store, processes: Processes = SINGLE_PROCESS) -> None:
    """Check that a dataset has what a run needs, before an earlier stage of a chain is trained.

    Raises:
        ConfigError: The batch cannot be divided among the processes.
        InputError: There is no training split, it has fewer pairs than one batch, or a file of
            regions or hard negatives is missing.
        DataError: The hard negatives are of another dataset.
    """
    split = train_split(store)
    PairSampler(split, _sampling(config, processes), config.data.titles_per_image)
    if config.image.regions is not None:
        RegionFile.of(split, config.image.regions)
    if config.data.hard_negatives is not None:
        read_negatives(Path(config.data.hard_negatives), split)


def _sampling(config: RunConfig, processes: Processes) -> Sampling:
    size = images_per_process(config.training.batch_size, processes)
    return Sampling(size, config.seed, processes.rank, processes.world_size)


def _report_negatives(batches: TrainBatches, progress: Progress) -> None:
    """Say how many titles have hard negatives; warn if some have too few for a group."""
    assert batches.neighbours is not None
    counts = (batches.neighbours >= 0).sum(axis=1)
    wanted = batches.drawn or 1
    few = int((counts < wanted).sum())
    progress.info(
        tr(
            "Hard negatives: {n} of {total} titles have some.",
            n=f"{int((counts > 0).sum()):,}",
            total=f"{len(counts):,}",
        )
    )
    if few:
        progress.warn(
            tr(
                "{n} titles have fewer than {wanted} hard negatives (data.negatives_per_title): "
                "random pairs fill their groups.",
                n=f"{few:,}",
                wanted=wanted,
            )
        )


def train_split(store: Store) -> Split:
    """Open the training split.

    Raises:
        InputError: The dataset has none.
    """
    if "train" not in store.splits:
        raise InputError(
            tr("The dataset has no training split."),
            where=store.dataset,
            found=listed(store.splits),
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
