"""Find the model folder that a command uses: a given one, or the newest among run folders.

A run folder has ``best/``; the folder of a chain has one run folder for each stage::

    runs/demo/best/model.safetensors
    runs/demo-chain/2-shrinktobase/best/model.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.config import load_config
from bagformer_cli.errors import CheckpointError, InputError, XmrError, listed
from bagformer_cli.hub import is_hub_name, snapshot
from bagformer_cli.messages import tr
from bagformer_cli.models.trained import trained_scorers
from bagformer_cli.opening import open_regular
from bagformer_cli.progress import SILENT, Progress

WEIGHTS = "model.safetensors"
METRICS = "metrics.jsonl"
_STAGE = "[0-9]*-*"  # folders of a chain's stages
_MOST_STEPS = 2**53  # a larger number is no step
_SHOWN = 5  # other runs that a message names


@dataclass(frozen=True)
class BestModel:
    """Step and recall of a run's ``best/``.

    Attributes:
        step: Optimizer steps that the model was trained for; None: unknown.
        recall: Its validation mean recall, text to image, in percent; None: not measured.
    """

    step: int | None = None
    recall: float | None = None

    def __str__(self) -> str:
        if self.step is None:
            return tr("step and recall unknown")
        if self.recall is None:
            return tr("step {step}, recall not measured", step=self.step)
        return tr(
            "step {step}, validation mean recall {recall} %",
            step=self.step,
            recall=f"{self.recall:.2f}",
        )


def find_checkpoint(
    given: str | Path | None = None, runs: str | Path = "runs", progress: Progress = SILENT
) -> Path:
    """Find a model folder.

    Args:
        given: A model folder, a run folder with a ``best/``, or the folder of a chain, whose last
            trained stage is taken; or the name of a model on the hub, ``owner/name``. None: the
            newest ``best/`` under ``runs``. Any other path is returned unchanged.
        runs: Folder of the runs.
        progress: Receives the name, step and recall of the newest run if ``given`` is None.

    Raises:
        CheckpointError: ``given`` is None and no run has a model; or it is a name on the hub,
            which cannot be reached or has no such model.
    """
    if given is not None:
        folder = Path(given)
        if _is_on_hub(given):
            folder = snapshot(str(given), "--checkpoint")
        if (folder / WEIGHTS).exists():
            return folder
        if (folder / "best" / WEIGHTS).exists():
            return folder / "best"
        return last_stage(folder) or folder
    found = models_in(Path(runs))
    if not found:
        raise CheckpointError(
            tr("There is no trained model yet."),
            where=Path(runs),
            expected=tr("a folder {example}", example=f"{runs}/NAME/best"),
            hint=tr(
                "Train one with: xmr train, or try: xmr demo; for photographs: {command}; or name "
                "one with --checkpoint.",
                command="xmr convert packaged models/photos",
            ),
        )
    report_choice(found, progress)
    return found[0]


def _is_on_hub(given: str | Path) -> bool:
    """Tell whether a checkpoint is the name of a model on the hub, ``owner/name``.

    ``runs/typo`` is a path: its folder ``runs`` exists here.
    """
    parts = str(given).split("/")
    named = len(parts) == 2 and is_hub_name(str(given)) and not Path(given).suffix
    return named and not Path(parts[0]).exists()


def models_in(runs: Path) -> list[Path]:
    """List the ``best/`` folders below a folder of runs, the newest first."""
    found = [*runs.glob(f"*/best/{WEIGHTS}"), *runs.glob(f"*/{_STAGE}/best/{WEIGHTS}")]
    return [path.parent for path in sorted(found, key=_changed, reverse=True)]


def last_stage(chain: Path) -> Path | None:
    """Return the ``best/`` of a chain's last trained stage; None: this is no chain's folder."""
    if not (chain / "config.yaml").is_file():
        return None
    stages = {
        int(number): path.parent
        for path in chain.glob(f"{_STAGE}/best/{WEIGHTS}")
        if (number := path.parents[1].name.partition("-")[0]).isdecimal()
    }
    return stages[max(stages)] if stages else None


def report_choice(models: Sequence[Path], progress: Progress) -> None:
    """Report which model was taken by itself, and which others there are.

    Args:
        models: ``best/`` folders; the first one was taken.
        progress: Where to report.
    """
    run = models[0].parent
    progress.info(tr("Using the newest run: {run} ({facts}).", run=run, facts=best_model(run)))
    report_others([model.parent for model in models[1:]], "--checkpoint", progress)


def report_others(runs: Sequence[Path], option: str, progress: Progress) -> None:
    """Report the runs that were not taken, and the option that chooses one; nothing without any."""
    if not runs:
        return
    names = listed(runs[:_SHOWN])
    if len(runs) > _SHOWN:
        names = tr("{names} and {n} more", names=names, n=len(runs) - _SHOWN)
    progress.info(tr("Other runs: {names}. Choose one with {option}.", names=names, option=option))


def best_model(run: Path) -> BestModel:
    """Read step and recall of a run's ``best/`` from its ``metrics.jsonl``."""
    steps, recalls = _measured(run)
    if not recalls:
        return BestModel(max(steps, default=None))
    # Without a trained fast scorer, recall says nothing: best/ is the latest model.
    at = len(recalls) - 1 if not _trains_fast_scorer(run) else recalls.index(max(recalls))
    return BestModel(steps[at], recalls[at])


def stages_at_start(run: Path) -> dict[str, Any] | None:
    """Read the validation recall of a run before its first step; None: not measured.

    Args:
        run: A run folder.

    Returns:
        ``stages`` as ``xmr eval --json`` prints them: ``recall``, direction, metric, in percent.
    """
    try:
        with open(run / METRICS, encoding="utf-8") as lines:
            record = json.loads(next(lines))
        if record["kind"] == "valid" and record["step"] == 0:
            return dict(record["stages"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration, RecursionError):
        pass
    return None


def metrics_lines(run: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the lines of a run's ``metrics.jsonl``, whatever wrote them.

    Args:
        run: A run folder.

    Returns:
        The lines that are objects with a ``step`` and a ``kind``, and the number of other lines:
        broken ones, and a last one that was cut off because the run was killed. Without a readable
        file, nothing.
    """
    found: list[dict[str, Any]] = []
    broken = 0
    try:
        with open_regular(run / METRICS) as stream:
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except (OSError, InputError):
        return [], 0
    for line in lines:
        try:
            record = json.loads(line)
            step = int(record["step"])
            if not 0 <= step < _MOST_STEPS:
                raise ValueError(step)
            found.append({**record, "step": step, "kind": str(record["kind"])})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            broken += bool(line.strip())
    return found, broken


def short_names(runs: Sequence[str]) -> list[str]:
    """Leave out the folders that all runs share; keep the paths if that would not tell them apart.

    >>> short_names(["runs/fast", "runs/base/best"])
    ['fast', 'base/best']
    """
    parents = [Path(run).parts[:-1] for run in runs]
    shared = 0
    while all(len(one) > shared and one[shared] == parents[0][shared] for one in parents):
        shared += 1
    return [str(Path(*Path(run).parts[shared:])) for run in runs]


def _measured(run: Path) -> tuple[list[int], list[float]]:
    """Read steps and recalls of the validations; without any, all logged steps and no recall."""
    records, _ = metrics_lines(run)
    steps: list[int] = []
    recalls: list[float] = []
    for record in records:
        if record["kind"] == "valid":
            try:
                recall = float(record["stages"]["recall"]["text_to_image"]["mean_recall"])
            except (ValueError, KeyError, TypeError):
                continue
            steps.append(record["step"])
            recalls.append(round(recall, 6))  # equal recalls, summed in other orders
    return (steps, recalls) if recalls else ([record["step"] for record in records], [])


def _trains_fast_scorer(run: Path) -> bool:
    try:
        return bool(trained_scorers(load_config(run / "config.yaml")) - {"slow"})
    except (XmrError, OSError):
        return True


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns
