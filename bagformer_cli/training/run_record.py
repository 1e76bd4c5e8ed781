"""``run.json``: when, where, how and with which settings a run was trained.

::

    {"started": {"date": "2026-05-04T10:20:30+08:00", "command": "xmr train …", "commit": "1a2b…",
                 "versions": {"xmr": …, "torch": …}, "machine": {"cpu": …, "memory_gb": …, …},
                 "config": {"seed": 0, "data": {…}, …},
                 "files": {"data.hard_negatives": "9f86d081…"},
                 "data": {"images": "5ec587aa…", "queries": "0a15fd0d…"}},
     "resumed": [{…, "step": 240, "data": {…}}],
     "ended": {"date": …, "step": 480, "seconds": 310.5, "pairs_per_second": 402.1,
               "data_wait_share": 0.02}}

``ended`` is that of the last time that training returned: at its end, or interrupted. ``files`` are
the SHA-256 of files outside the run that decide its batches or losses, ``data`` digests of the
training split.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import bagformer_cli
from bagformer_cli.config import RunConfig
from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.files import sha256_of, write_text
from bagformer_cli.machine import cpu, memory
from bagformer_cli.messages import tr
from bagformer_cli.models.runs import WEIGHTS, find_checkpoint
from bagformer_cli.training.run_folder import RECORD

Digests = Mapping[str, str | None]
PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy", "safetensors")


def record_start(run: Path, config: RunConfig, data: Digests, world_size: int = 1) -> None:
    """Write ``run.json`` of a new run."""
    place, settings = str(run.resolve()), config.model_dump(mode="json")
    started = {**_now(world_size), "run": place, "config": settings, "files": digests(config)}
    _write(run, {"started": {**started, "data": dict(data)}, "resumed": []})


def record_resume(
    run: Path, config: RunConfig, data: Digests, step: int, world_size: int = 1
) -> None:
    """Add a resume to ``run.json``.

    Args:
        run: The run folder. Its record is started again if it is missing or damaged.
        config: The configuration that the run continues with.
        data: Digests of the training split.
        step: The step that training continues from.
        world_size: Number of processes.
    """
    now = {**_now(world_size), "step": step, "data": dict(data)}
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
        record["resumed"].append(now)
        if not step:  # the run begins again, with the files of today
            record["started"]["files"] = digests(config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        record = {"started": None, "resumed": [now]}
    _write(run, record)


def record_end(run: Path, step: int, speed: Mapping[str, float | None]) -> None:
    """Write to ``run.json`` how far training came and how fast it was.

    Args:
        run: The run folder. A missing or damaged record is left as it is.
        step: Optimizer steps done.
        speed: ``seconds``, ``pairs_per_second`` and ``data_wait_share`` of the whole run.
    """
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
        record["ended"] = {"date": _date(), "step": step, **speed}
    except (OSError, ValueError, TypeError):
        return
    _write(run, record)


def digests(config: RunConfig) -> dict[str, str]:
    """Return the SHA-256 of each file outside a run that decides its batches or its losses.

    Raises:
        InputError: One cannot be read.
    """
    found = {}
    for setting, path in _files(config).items():
        try:
            found[setting] = sha256_of(path)
        except OSError as error:
            missing = cannot_read(path, error)
            missing.where = f"{setting}: {path}"
            missing.hint = tr("If it was moved: --set {setting}=PATH", setting=setting)
            raise missing from error
    return found


def require_same_files(run: Path, config: RunConfig) -> None:
    """Check that the files which a run was started with have not changed.

    Raises:
        DataError: One has: the run would continue with other batches or another teacher.
        InputError: One cannot be read.
    """
    before = _started(run).get("files")
    if not isinstance(before, dict):  # a run of an earlier version
        return
    now = digests(config)
    for setting, path in _files(config).items():
        if setting in before and before[setting] != now[setting]:
            raise DataError(
                tr("This file has changed since the run was started with it."),
                where=f"{setting}: {path}",
                found=f"SHA-256 {now[setting][:16]}",
                expected=f"SHA-256 {str(before[setting])[:16]}",
                hint=tr(
                    "Restore the file, or start a new run from the weights: --checkpoint {run}",
                    run=run / "last",
                ),
            )


def has_same_data(run: Path, data: Digests) -> bool:
    """Tell whether a run's training split is as it was when the run was trained last.

    True for a run whose record does not say.
    """
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
        times = [record["started"], *record["resumed"]]
        before = [one["data"] for one in times if isinstance(one, dict) and "data" in one]
    except (OSError, ValueError, TypeError, KeyError):
        return True
    return not before or before[-1] == data


def _files(config: RunConfig) -> dict[str, Path]:
    """Name the setting and the path of each such file."""
    files: dict[str, Path] = {}
    if config.data.hard_negatives is not None:
        files["data.hard_negatives"] = Path(config.data.hard_negatives)
    distill = config.distill
    if distill is not None and distill.teacher is not None:
        files["distill.teacher"] = find_checkpoint(distill.teacher) / WEIGHTS
    return files


def started_in(run: Path) -> Path | None:
    """Return the folder in which a run was started; None: not recorded."""
    folder = _started(run).get("directory")
    return Path(folder) if isinstance(folder, str) else None


def is_where_it_was_started(run: Path) -> bool:
    """Tell whether a run folder lies where its record says that it was started.

    A run that was copied, downloaded or unpacked does not: its configuration is somebody else's.
    """
    started = _started(run)
    place, directory = started.get("run"), started.get("directory")
    if isinstance(place, str):
        return Path(place) == run.resolve()
    # Records of older versions lack the place of the run, which is mostly below the directory.
    return isinstance(directory, str) and run.resolve().is_relative_to(directory)


def settings_at_start(run: Path) -> dict[str, Any] | None:
    """Return the configuration that a run was started with; None: not recorded."""
    config = _started(run).get("config")
    return config if isinstance(config, dict) else None


def _started(run: Path) -> dict[str, Any]:
    try:
        started = json.loads((run / RECORD).read_text(encoding="utf-8"))["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return started if isinstance(started, dict) else {}


def _write(run: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, ensure_ascii=False, indent=1)
    write_text(run / RECORD, text.encode("utf-8", "backslashreplace").decode() + "\n")


def _now(world_size: int) -> dict[str, Any]:
    package = Path(bagformer_cli.__file__).parents[1]
    total = memory()
    return {
        "date": _date(),
        "command": shlex.join(["xmr", *sys.argv[1:]]),
        "directory": str(Path.cwd()),
        "commit": commit_of(Path.cwd()),
        "xmr_commit": commit_of(package) if (package / ".git").exists() else None,
        "processes": world_size,
        "versions": {
            "xmr": bagformer_cli.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "machine": {
            "system": platform.platform(),
            "cpu": cpu().name,
            "cores": cpu().cores,
            "memory_gb": None if total is None else round(total / 1e9, 1),
            "gpus": [
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            ],
        },
    }


def _date() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def commit_of(folder: Path) -> str | None:
    """Return the git commit of a folder, ``+`` added if files differ; None: no repository.

    Git locks nothing for it: a run that is killed here would leave ``.git/index.lock``, and git
    would refuse to work until somebody removes it.
    """
    try:
        found = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain=v2",
             "--branch", "--untracked-files=no"],
            capture_output=True, text=True, errors="replace", timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    commit = re.search(r"^# branch\.oid ([0-9a-f]{40,64})$", found.stdout, re.MULTILINE)
    if commit is None:
        return None
    changed = any(not line.startswith("#") for line in found.stdout.splitlines())
    return commit[1] + ("+" if changed else "")
