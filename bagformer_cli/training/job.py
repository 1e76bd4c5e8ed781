"""A training job, as ``xmr train`` starts or resumes it: one run, or a chain of runs.

From Python::

    job = new_job("demo", ["training.max_steps=100"], mode="fast")
    store = ensure_store(resolve(job.config.data.dataset), titles(job))
    results = train(job, store)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.errors import InputError
from bagformer_cli.files import recover_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.checkpoint import saved_titles
from bagformer_cli.opening import require_text
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.chain import resume_chain, stage_configs, stage_files, start_chain
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.initial_model import check_start, new_model
from bagformer_cli.training.run import resume_config, resume_run, start_run
from bagformer_cli.training.run_folder import (
    RUNS,
    new_run,
    new_run_below,
    newest_runs,
    no_run_to_resume,
    require_no_run,
    unused_run_folder,
)
from bagformer_cli.training.train_result import TrainResult


@dataclass(frozen=True)
class Job:
    """One run or a chain of runs.

    Attributes:
        config: The configuration; ``config.chain`` makes it a chain.
        run: The folder of the run or of the chain.
        resume: Whether ``run`` exists and is continued.
        name: Name of a new run for which no folder was named. If another process takes ``run``
            before this job starts, the next number is used. None: ``run`` or nothing.
        template: Config file whose comments a new run copies.
        overrides: ``section.key=value`` items of the command line.
        stages: The configuration of each run of a new chain, by folder name.
    """

    config: RunConfig
    run: Path
    resume: bool
    name: str | None = None
    template: str | Path | None = None
    overrides: Sequence[str] = ()
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
    if output_dir is not None:
        require_text(output_dir)
    run = processes.broadcast_object(output_dir or unused_run_folder(RUNS, name))
    if processes.is_main:
        require_no_run(run)
    stages = stage_configs(config, run, source, overrides)
    if not stages:
        check_start(config)
    processes.require_world_size(config.training.processes)
    return Job(config, run, False, None if output_dir else name, source, overrides, stages)


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
    newest = [] if output_dir else newest_runs(RUNS)
    if output_dir is None and not newest:
        raise no_run_to_resume(RUNS)
    run = processes.broadcast_object(output_dir or newest[0])
    config = resume_config(run, overrides)
    processes.require_world_size(config.training.processes)
    return Job(config, run, True, overrides=overrides)


def titles(job: Job, progress: Progress = SILENT) -> TitleEncoder:
    """Build the title encoder that a job's dataset is preprocessed with.

    A job that is resumed keeps its own vocabulary and dictionaries: those of the configuration may
    have been edited, or come with another version of xmr.

    Args:
        job: From :func:`new_job` or :func:`resume_job`.
        progress: Receives remarks about the dictionaries.
    """
    saved = _saved_models(job.run) if job.resume else []
    if not saved:
        return build_titles(job.config, progress)
    own = saved_titles(saved[0])
    try:
        now = build_titles(job.config).fingerprint
    except InputError:  # a dictionary or the vocabulary is gone
        now = ""
    if now != own.fingerprint:
        progress.warn(
            tr(
                "The vocabulary or the dictionaries of the configuration have changed since this "
                "run was started. It continues with its own, those in {folder}.",
                folder=saved[0],
            )
        )
    return own


def _saved_models(run: Path) -> list[Path]:
    """List the folders ``last/`` of a run, or of the runs of a chain."""
    folders = [run, *(run / path.stem for path in stage_files(run))]
    for folder in folders:
        recover_folder(folder / "last")
    return [folder / "last" for folder in folders if (folder / "last").is_dir()]


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
        One result, or one for each run of a chain that was begun. Their ``run`` is the folder.
    """
    if job.resume and job.config.chain:
        return resume_chain(store, job.run, progress, processes, job.overrides)
    if job.resume:
        return [resume_run(job.config, store, job.run, progress, processes)]
    with _new_folder(job, processes) as run:
        if job.config.chain:
            stages = job.stages
            if run != job.run and job.template is not None:  # the teachers' folders are others
                stages = stage_configs(job.config, run, job.template, job.overrides)
            return start_chain(job.config, stages, store, run, progress, processes)
        return [
            start_run(
                job.config,
                store,
                run,
                new_model(job.config, None, progress),
                template=job.template,
                processes=processes,
                progress=progress,
            )
        ]


@contextmanager
def _new_folder(job: Job, processes: Processes) -> Iterator[Path]:
    """Make the folder of a new job, hold its lock, and tell all processes which it is."""
    with ExitStack() as stack:
        run = job.run
        if processes.is_main and job.name is not None:
            run = stack.enter_context(new_run_below(job.run.parent, job.name))
        elif processes.is_main:
            stack.enter_context(new_run(run))
        yield processes.broadcast_object(run)
