"""Run folders: choose a new one, find the newest, and let one process write it.

A process that writes a run folder holds ``.lock`` in it. The system releases the lock when the
process ends, killed or not, so that no stale lock keeps a run from being resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from bagformer_cli.errors import InputError
from bagformer_cli.files import disk_errors
from bagformer_cli.messages import tr

RUNS = Path("runs")
"""The folder of runs for which no output folder is named."""

LOCK = ".lock"
RECORD = "run.json"


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder; nested calls of one process share it.

    Raises:
        InputError: Another process writes the folder.
    """
    lock = _try_lock(run)
    if lock is None:
        raise InputError(
            tr("Another process is training in this run folder."),
            where=run,
            hint=tr("Wait until it has ended, or choose another folder with --output-dir."),
        )
    try:
        with disk_errors(run):
            yield
    finally:
        lock.release()


@contextmanager
def new_run(run: Path) -> Iterator[None]:
    """Make a run folder and hold its lock.

    If the block fails before ``last/`` was written, there is nothing to resume from: all that was
    written is removed again, the folder included.

    Raises:
        InputError: The folder already holds a run, or another process writes it.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    before = set(run.iterdir()) if run.is_dir() else set()
    with writing(run):
        require_no_run(run)
        try:
            yield
        except BaseException:
            if not _can_be_resumed(run):
                _remove(set(run.iterdir()) - before)
                for folder in made:
                    with suppress(OSError):  # another process has made something in it meanwhile
                        folder.rmdir()
            raise


@contextmanager
def new_run_below(runs: Path, name: str) -> Iterator[Path]:
    """Make the run folder ``runs/name``, or ``runs/name-2`` and so on; yield its path.

    A folder is skipped if it holds a run or another process has just chosen it.
    """
    with ExitStack() as stack:
        for folder in _unused(runs, name):
            with suppress(InputError):
                stack.enter_context(new_run(folder))
                break
        yield folder


def unused_run_folder(runs: Path, name: str) -> Path:
    """Return ``runs/name``, or ``runs/name-2`` and so on if it exists."""
    return next(_unused(runs, name))


def newest_runs(runs: Path) -> list[Path]:
    """List the runs and chains in a folder of runs, the one that was saved last first."""
    found = sorted(runs.glob("*/config.yaml"), key=lambda path: path.parent.stat().st_mtime_ns)
    return [path.parent for path in reversed(found)]


def require_no_run(run: Path) -> None:
    """Raise if a folder already holds a run.

    Raises:
        InputError: It does.
    """
    if (run / "config.yaml").exists() or (run / "last").exists():
        raise InputError(
            tr("The output folder already holds a run."),
            where=run,
            hint=tr(
                "Resume it: xmr train --resume --output-dir {run}; or choose another folder.",
                run=run,
            ),
        )


def no_run_to_resume(where: Path) -> InputError:
    """Return the error for a folder without a run."""
    return InputError(
        tr("There is no run to resume."),
        where=where,
        hint=tr("Name a run folder with --output-dir, or start a new run without --resume."),
    )


def _unused(runs: Path, name: str) -> Iterator[Path]:
    for number in count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        # Only a lock is left where a process was killed before it wrote anything.
        left = [entry.name for entry in folder.iterdir()] if folder.is_dir() else None
        if not folder.exists() or left == [LOCK]:
            yield folder


def _can_be_resumed(run: Path) -> bool:
    """Tell whether a run, or a run of a chain, was saved."""
    return any(run.glob("last")) or any(run.glob("*/last"))


def _try_lock(run: Path) -> FileLock | None:
    """Take the lock of a folder, which is made if it is missing; None: another process has it."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _remove(paths: set[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
