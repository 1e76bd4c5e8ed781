"""Chains: several modes trained one after the other, each taught by the model before it.

A mode with ``chain: [inflate, shrinktobase, shrinktofast]`` makes this folder::

    chain/
      1-inflate.yaml  2-shrinktobase.yaml  3-shrinktofast.yaml   configurations, written first
      config.yaml                                                written last: the chain is complete
      1-inflate/        a run folder; its best/ is the teacher of
      2-shrinktobase/   whose best/ is the teacher of
      3-shrinktofast/
      summary.json      written at the end

A chain that was killed at any time continues: a finished run is left as it is, a begun one is
resumed, the next one is started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.files import write_text
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.initial_model import check_start, new_model
from bagformer_cli.training.run import (
    check_data,
    refuse_other_model,
    resume_run,
    start_run,
    train_split,
)
from bagformer_cli.training.run_folder import new_run, writing
from bagformer_cli.training.teacher import ModelFacts
from bagformer_cli.training.train_result import TrainResult

SUMMARY = "summary.json"


@dataclass
class Stage:
    """One finished run of a chain, as ``summary.json`` has it.

    Attributes:
        name: Its mode.
        run: Its run folder.
        steps: Optimizer steps.
        best: Best validation mean recall, text to image, in [0, 1].
        seconds: Time spent in training steps.
    """

    name: str
    run: str
    steps: int
    best: float | None
    seconds: float


def stage_configs(
    chain: RunConfig,
    run: Path,
    source: str | Path,
    overrides: Sequence[str] = (),
) -> dict[str, RunConfig]:
    """Build the configuration of every run of a chain: ``source``, its mode, the overrides.

    Args:
        chain: The chain's configuration. Its ``distill.teacher`` or ``training.checkpoint`` is the
            teacher of the first run.
        run: The chain's folder.
        source: Config file or built-in config that all runs share.
        overrides: ``section.key=value`` items, for every run.

    Returns:
        Folder name (``2-shrinktobase``) to configuration, in order; empty if ``chain.chain`` is.

    Raises:
        ConfigError: A mode does not exist, or its configuration is impossible.
        CheckpointError: The first teacher is missing, or a stage cannot learn from its teacher.
    """
    configs: dict[str, RunConfig] = {}
    trained: ModelFacts | None = None  # by the stage before
    teacher = chain.training.checkpoint
    if chain.distill is not None and chain.distill.teacher is not None:
        teacher = chain.distill.teacher
    for number, mode in enumerate(chain.chain, 1):
        config = load_config(source, overrides, mode)
        config.chain = []
        config.training.checkpoint = None  # an override of it is for the first stage: ``teacher``
        if config.distill is not None:
            config.distill.teacher = teacher
        elif teacher is not None:
            config.training.checkpoint = teacher
        name = f"{number}-{Path(mode).stem}"
        trained = check_start(config, trained)  # all of them before the first one starts
        configs[name] = config
        teacher = str(run / name / "best")
    return configs


def start_chain(
    chain: RunConfig,
    configs: Mapping[str, RunConfig],
    store: Store,
    run: Path,
    progress: Progress = SILENT,
    processes: Processes = SINGLE_PROCESS,
) -> list[TrainResult]:
    """Train a new chain.

    Args:
        chain: Its configuration.
        configs: From :func:`stage_configs`.
        store: The preprocessed dataset.
        run: The folder to make; it must not hold a run.
        progress: Where to report.
        processes: The processes that train together.

    Raises:
        InputError: The folder already holds a run.
    """
    for config in configs.values():
        check_data(config, store, processes)
    with new_run(run) if processes.is_main else nullcontext():
        if processes.is_main:
            for name, config in configs.items():
                save_config(config, run / f"{name}.yaml")
            save_config(chain, run / "config.yaml")  # last: its presence says that all are there
        processes.barrier()
        return _train_stages(store, run, progress, processes)


def resume_chain(
    store: Store,
    run: Path,
    progress: Progress = SILENT,
    processes: Processes = SINGLE_PROCESS,
    overrides: Sequence[str] = (),
) -> list[TrainResult]:
    """Continue a chain.

    Args:
        store: The preprocessed dataset.
        run: The chain's folder.
        progress: Where to report.
        processes: The processes that train together.
        overrides: ``section.key=value`` items to change, in every run.

    Returns:
        A result for each run, up to the one that Ctrl-C interrupted.
    """
    with writing(run) if processes.is_main else nullcontext():
        return _train_stages(store, run, progress, processes, overrides)


def _train_stages(
    store: Store,
    run: Path,
    progress: Progress,
    processes: Processes,
    overrides: Sequence[str] = (),
) -> list[TrainResult]:
    """Start or continue each run of a chain whose configurations are written."""
    train_split(store)
    results: list[TrainResult] = []
    for path in stage_files(run):
        config = load_config(path, overrides, stored=True)
        folder = run / path.stem
        started = processes.broadcast_object((folder / "config.yaml").exists())
        if started:
            refuse_other_model(folder, config, path, overrides)
        if results:  # the folder of the chain may have been moved since its settings were written
            _learn_from(config, results[-1].run / "best")
        if started:
            result = resume_run(config, store, folder, progress, processes)
        else:
            model = new_model(config, None, progress)
            result = start_run(config, store, folder, model, processes=processes, progress=progress)
        results.append(result)
        if result.interrupted:
            return results
    stages = [
        Stage(path.stem.partition("-")[2], str(r.run), r.steps, r.best, round(r.seconds, 3))
        for path, r in zip(stage_files(run), results, strict=True)
    ]
    if processes.is_main:
        write_text(run / SUMMARY, json.dumps([asdict(stage) for stage in stages], indent=1) + "\n")
    return results


def _learn_from(config: RunConfig, teacher: Path) -> None:
    """Name the model that a run of a chain is taught by, or starts from."""
    if config.distill is not None:
        config.distill.teacher = str(teacher)
    else:
        config.training.checkpoint = str(teacher)


def stage_files(run: Path) -> list[Path]:
    """List the configurations of a chain's runs, in order."""
    return sorted(run.glob("[0-9]*-*.yaml"), key=lambda path: int(path.name.partition("-")[0]))
