"""Modes trained one after the other, each taught by the one before, as one job.

A chain's folder holds the configuration of every stage (``1-inflate.yaml`` ...), written before the
first begins, an ordinary run folder for each (``1-inflate/`` ...), and ``summary.json`` at the end.
Killed anywhere, it goes on where it was: a stage that is done is left alone, one that was begun is
resumed, the next is started.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bagformer_cli.config import RunConfig, load_config, save_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.files import write_text
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.loop import TrainResult
from bagformer_cli.training.run import (
    new_model,
    require_free,
    resume_run,
    start_run,
    train_split,
)
from bagformer_cli.training.teacher import check_teacher

SUMMARY = "summary.json"


@dataclass
class Stage:
    """One stage of a chain when it is over.

    Attributes:
        name: Its mode.
        run: Its run folder.
        steps: Optimizer steps.
        best: Best validation mean recall, text to image, in [0, 1].
        seconds: Of training.
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
    """The configuration of every stage: ``source``, the stage's mode, then the overrides.

    Args:
        chain: The chain's own configuration; its ``distill.teacher`` teaches the first stage.
        run: The chain's folder.
        source: The config file that all stages start from.
        overrides: What the command line says, for every stage.

    Returns:
        Folder name (``2-shrinktobase``) to configuration; each stage's teacher is the ``best/`` of
        the one before.

    Raises:
        ConfigError: A stage is no mode, or its configuration is impossible.
    """
    configs: dict[str, RunConfig] = {}
    teacher = chain.training.checkpoint
    if chain.distill is not None and chain.distill.teacher is not None:
        teacher = chain.distill.teacher
    for number, mode in enumerate(chain.chain, 1):
        config = load_config(source, overrides, mode)
        config.chain = []
        if config.distill is not None:
            config.distill.teacher = teacher
            if number == 1:
                check_teacher(config)
        elif teacher is not None:
            config.training.checkpoint = teacher
        name = f"{number}-{Path(mode).stem}"
        configs[name] = config
        teacher = str(run / name / "best")
    return configs


def start_chain(
    chain: RunConfig,
    configs: dict[str, RunConfig],
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
        processes: The processes that train it together.

    Raises:
        InputError: The folder already holds a run.
    """
    if processes.is_main:
        require_free(run)
        run.mkdir(parents=True, exist_ok=True)
        for name, config in configs.items():
            save_config(config, run / f"{name}.yaml")
        save_config(chain, run / "config.yaml")  # last: a chain that has it has all its stages
    processes.barrier()
    return resume_chain(store, run, progress, processes)


def resume_chain(
    store: Store, run: Path, progress: Progress = SILENT, processes: Processes = SINGLE_PROCESS
) -> list[TrainResult]:
    """Go on with a chain; one result a stage, the last of them interrupted or not."""
    train_split(store)
    results: list[TrainResult] = []
    for path in stage_files(run):
        config = load_config(path)
        folder = run / path.stem
        if processes.broadcast_object((folder / "config.yaml").exists()):
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


def stage_files(run: Path) -> list[Path]:
    """The stages' configurations, in order."""
    return sorted(run.glob("[0-9]*-*.yaml"), key=lambda path: int(path.name.partition("-")[0]))
