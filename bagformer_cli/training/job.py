"""A training job, as ``xmr train`` starts or resumes it: one run, or a chain of runs.

From Python::

    job = new_job("demo", ["training.max_steps=100"], mode="fast")
    store = ensure_store(resolve(job.config.data.dataset), build_titles(job.config))
    results = train(job, store)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.chain import resume_chain, stage_configs, start_chain
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.initial_model import check_start, new_model
from bagformer_cli.training.loop import TrainResult
from bagformer_cli.training.run import (
    no_run_to_resume,
    require_no_run,
    resume_config,
    resume_run,
    start_run,
)

RUNS = Path("runs")
"""The folder of runs for which no output folder is named."""


@dataclass(frozen=True)
class Job:
    """One run or a chain of runs.

    Attributes:
        config: The configuration; ``config.chain`` makes it a chain.
        run: The folder of the run or of the chain.
        resume: Whether ``run`` exists and is continued.
        template: Config file whose comments a new run copies.
        stages: The configuration of each run of a new chain, by folder name.
    """

    config: RunConfig
    run: Path
    resume: bool
    template: str | Path | None = None
    stages: Mapping[str, RunConfig] = field(default_factory=dict)


def new_job(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    mode: str | None = None,
    teacher: str | Path | None = None,
    output_dir: Path | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> Job:
    """Prepare a new run or chain; nothing is written yet.

    Args:
        source: Config file or built-in config.
        overrides: ``section.key=value`` items, applied after the mode.
        mode: Built-in mode or YAML file, applied on top of ``source``.
        teacher: Model or run folder of the teacher. If the configuration has no distillation from
            an outside teacher, its weights are the ones to start from.
        output_dir: The run folder; None: a new one under ``runs/``.
        processes: The processes that train together.

    Raises:
        ConfigError: An impossible setting, a missing teacher, or another number of processes than
            ``training.processes``.
        CheckpointError: Teacher or checkpoint is missing or unsuitable.
        InputError: The output folder already holds a run.
    """
    config = load_config(source, overrides, mode)
    if teacher is not None:
        if config.distill is not None and config.model.alignment is None:
            config.distill.teacher = str(teacher)
        else:
            config.training.checkpoint = str(teacher)
    name = f"{Path(config.data.dataset).name}-{mode or config.model.interaction}"
    run = processes.broadcast_object(output_dir or unused_run_folder(RUNS, name))
    if processes.is_main:
        require_no_run(run)
    stages = stage_configs(config, run, source, overrides)
    if not stages:
        check_start(config)
    processes.require_world_size(config.training.processes)
    return Job(config, run, False, source, stages)


def resume_job(
    output_dir: Path | None = None,
    overrides: Sequence[str] = (),
    processes: Processes = SINGLE_PROCESS,
) -> Job:
    """Prepare to continue a run or a chain.

    Args:
        output_dir: Its folder; None: the run under ``runs/`` that was saved last.
        overrides: ``section.key=value`` items to change.
        processes: The processes that train together; their number may differ from before.

    Raises:
        InputError: There is no run.
        ConfigError: An impossible setting.
    """
    run = processes.broadcast_object(output_dir or newest_run(RUNS))
    config = resume_config(run, overrides)
    processes.require_world_size(config.training.processes)
    return Job(config, run, True)


def train(
    job: Job,
    store: Store,
    processes: Processes = SINGLE_PROCESS,
    progress: Progress = SILENT,
) -> list[TrainResult]:
    """Carry out a job.

    Args:
        job: From :func:`new_job` or :func:`resume_job`.
        store: The preprocessed dataset.
        processes: The processes that train together.
        progress: Where to report.

    Returns:
        One result, or one for each run of a chain that was begun.
    """
    config, run = job.config, job.run
    if config.chain and job.resume:
        return resume_chain(store, run, progress, processes)
    if config.chain:
        return start_chain(config, job.stages, store, run, progress, processes)
    if job.resume:
        return [resume_run(config, store, run, progress, processes)]
    model = new_model(config, None, progress)
    return [
        start_run(
            config,
            store,
            run,
            model,
            template=job.template,
            processes=processes,
            progress=progress,
        )
    ]


def newest_run(runs: Path) -> Path:
    """Find the run or chain in a folder of runs that was saved last.

    Raises:
        InputError: The folder holds no run.
    """
    found = sorted(runs.glob("*/config.yaml"), key=lambda path: path.parent.stat().st_mtime_ns)
    if not found:
        raise no_run_to_resume(runs)
    return found[-1].parent


def unused_run_folder(runs: Path, name: str) -> Path:
    """Return ``runs/name``, or ``runs/name-2`` and so on if it exists."""
    folder, number = runs / name, 2
    while folder.exists():
        folder, number = runs / f"{name}-{number}", number + 1
    return folder
