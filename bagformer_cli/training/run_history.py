"""Read what a run folder records, to show runs next to each other.

The run may still train, may have been killed, or be of another version: figures and files that are
missing or cannot be read are left out, counted, and named in ``remarks``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.config import RunConfig
from bagformer_cli.config.yaml_files import plain, read_document
from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.messages import tr
from bagformer_cli.models.runs import WEIGHTS, best_model, metrics_lines
from bagformer_cli.opening import read_regular
from bagformer_cli.training.metrics_log import FILE as METRICS
from bagformer_cli.training.run_folder import RECORD

CONFIG = "config.yaml"
RECALLS = ("text_to_image", "image_to_text")
_MOST_BYTES = 10_000_000  # of run.json
_NOT_FIGURES = {"step", "kind", "chance"}


class Curve(NamedTuple):
    """One figure over the steps of a run.

    Attributes:
        steps: [n], in increasing order.
        values: [n], finite.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class RunHistory:
    """The settings and the figures of a run.

    Attributes:
        run: The run folder.
        settings: Dotted name of each setting to its value; empty: ``config.yaml`` is missing or
            cannot be read.
        curves: Name of each figure of ``metrics.jsonl`` to its curve; validation mean recall is
            ``text_to_image`` and ``image_to_text``, in percent.
        guesses: Name of a loss to its random-guess value at the end.
        record: The content of ``run.json``; empty: missing or not readable.
        remarks: Sentences about lines and files that were left out.
    """

    run: Path
    settings: dict[str, Any]
    curves: dict[str, Curve]
    guesses: dict[str, float]
    record: dict[str, Any]
    remarks: tuple[str, ...]

    @cached_property
    def steps(self) -> int:
        """Optimizer steps that are recorded."""
        logged = [curve.steps[-1] for curve in self.curves.values()]
        return int(max([self._ended_at or 0, *logged]))

    @cached_property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run; None: not known."""
        most = self.settings.get("training.max_steps")
        epochs, epoch = self.settings.get("training.epochs"), self.curves.get("epoch")
        total = None
        if isinstance(epochs, int) and epoch is not None and epoch.values[-1] > 0:
            total = round(epochs * epoch.steps[-1] / epoch.values[-1])
        known = [n for n in (total, most) if isinstance(n, int) and n]
        return min(known, default=None)

    @property
    def state(self) -> Literal["complete", "stopped", "not ended"]:
        """Say how the run ended.

        ``stopped``: by a signal, or early. ``not ended``: it still trains, or it was killed. A run
        of unknown length is complete if training returned.
        """
        if self.total_steps is not None and self.steps >= self.total_steps:
            return "complete"
        if self._ended_at is None or self._ended_at < self.steps:
            return "not ended"
        return "complete" if self.total_steps is None else "stopped"

    @property
    def _ended_at(self) -> int | None:
        """The step at which training returned last; None: it never did."""
        step = _mapping(self.record.get("ended")).get("step")
        return step if isinstance(step, int) else None

    def last(self, name: str) -> float | None:
        """Return the last value of a figure; None: not recorded."""
        curve = self.curves.get(name)
        return None if curve is None else float(curve.values[-1])

    def figures(self) -> dict[str, Any]:
        """Return the final figures, as ``xmr report --json`` prints them; None: not recorded."""
        best, start = best_model(self.run), self.curves.get("text_to_image")
        ended, started = (_mapping(self.record.get(key)) for key in ("ended", "started"))
        machine = _mapping(started.get("machine"))
        gpus = machine.get("gpus")
        gpus = gpus if isinstance(gpus, list) else []
        speed = {
            name: _number(ended.get(name)) if self.state != "not ended" else None
            for name in ("seconds", "pairs_per_second", "data_wait_share")
        }
        before = start is not None and start.steps[0] == 0
        return {
            "run": str(self.run),
            "state": self.state,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "loss": self.last("loss"),
            "start_mean_recall": float(start.values[0]) if start is not None and before else None,
            "mean_recall": best.recall,
            "best_step": None if best.recall is None else best.step,
            "image_to_text": _at(self.curves.get("image_to_text"), best.step),
            "seconds": speed["seconds"] or self.last("seconds"),
            "pairs_per_second": speed["pairs_per_second"] or _median(self, "pairs_per_second"),
            "data_wait_share": speed["data_wait_share"]
            if speed["data_wait_share"] is not None
            else _median(self, "data_wait_share"),
            "memory_mb": self.last("memory_mb"),
            "started": started.get("date"),
            "machine": ", ".join(map(str, gpus)) if gpus else machine.get("cpu"),
            "xmr": _mapping(started.get("versions")).get("xmr"),
        }


def read_history(run: Path) -> RunHistory:
    """Read a run folder.

    Args:
        run: The folder of a run, or its ``best/`` or ``last/``.

    Raises:
        InputError: It is no run folder.
    """
    if not _is_run(run) and (run / WEIGHTS).is_file() and _is_run(run.parent):
        run = run.parent
    if not _is_run(run):
        found = tr("a file") if run.exists() else tr("it does not exist")
        if run.is_dir():
            found = tr("a model folder") if (run / WEIGHTS).is_file() else tr("another folder")
        below = any(_is_run(path) for path in run.glob("*"))
        raise InputError(
            tr("This is no folder of a training run."),
            where=run,
            found=found,
            expected=tr("a folder with {config} and {metrics}, as xmr train writes it",
                        config=CONFIG, metrics=METRICS),
            hint=tr("Name the runs in it: {runs}", runs=run / "*") if below else None,
        )  # fmt: skip
    remarks: list[str] = []
    records, broken = metrics_lines(run)
    if broken:
        remarks.append(
            tr("{run}: {n} lines of {file} cannot be read and are left out.",
               run=run, n=broken, file=METRICS)
        )  # fmt: skip
    if not records:
        remarks.append(tr("{run}: no figures are recorded yet.", run=run))
    guesses: dict[str, float] = {}
    for record in records:
        guesses |= dict(_numbers(_mapping(record.get("chance"))))
    return RunHistory(
        run, _settings(run, remarks), _curves(records), guesses, _record(run, remarks),
        tuple(remarks),
    )  # fmt: skip


def read_histories(runs: Sequence[Path]) -> list[RunHistory]:
    """Read run folders; the folder of a chain stands for the runs of its stages.

    Raises:
        InputError: One is no run folder.
    """
    found: list[RunHistory] = []
    for run in runs:
        stages = sorted(
            (path for path in run.glob("[0-9]*-*") if path.is_dir() and _is_run(path)),
            key=lambda path: (len(path.name.partition("-")[0]), path.name),
        )
        is_chain = bool(stages) and not (run / METRICS).exists()
        found += [read_history(one) for one in (stages if is_chain else [run])]
    return list({history.run.resolve(): history for history in found}.values())


def differing_settings(histories: Sequence[RunHistory]) -> dict[str, list[Any]]:
    """Return the settings that differ between runs; one that a run lacks counts as its default.

    Args:
        histories: Runs; a single one is compared with the defaults of all settings.

    Returns:
        Dotted name to its value in each run; None where a run lacks it.
    """
    defaults = dict(_flat(RunConfig().model_dump(mode="json")))
    compared = [{**defaults, **history.settings} for history in histories if history.settings]
    if len(histories) == 1 and compared:
        compared.append(defaults)
    names = dict.fromkeys(name for settings in compared for name in settings)
    return {
        name: [history.settings.get(name) for history in histories]
        for name in names
        if len({json.dumps(one.get(name), sort_keys=True, default=str) for one in compared}) > 1
    }


def _is_run(run: Path) -> bool:
    is_model = (run / WEIGHTS).is_file()  # its config.yaml is that of the model
    return (run / METRICS).is_file() or ((run / CONFIG).is_file() and not is_model)


def _settings(run: Path, remarks: list[str]) -> dict[str, Any]:
    """Read ``config.yaml`` without checking it: another version may have written it."""
    try:
        return dict(_flat(plain(read_document(run / CONFIG))))
    except (XmrError, OSError):
        remarks.append(tr("{run}: its settings ({file}) cannot be read.", run=run, file=CONFIG))
        return {}


def _record(run: Path, remarks: list[str]) -> dict[str, Any]:
    try:
        return dict(_mapping(json.loads(read_regular(run / RECORD, _MOST_BYTES))))
    except (XmrError, ValueError, RecursionError):
        remarks.append(tr("{run}: its record ({file}) cannot be read.", run=run, file=RECORD))
        return {}


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Collect each figure of the lines, by step; a later line of the same step wins."""
    points: dict[str, dict[int, float]] = {}
    for record in records:
        if record["kind"] == "train":
            values = {name: one for name, one in record.items() if name not in _NOT_FIGURES}
        else:
            recall = _mapping(_mapping(record.get("stages")).get("recall"))
            values = {name: _mapping(recall.get(name)).get("mean_recall") for name in RECALLS}
        for name, value in _numbers(values):
            points.setdefault(name, {})[record["step"]] = value
    curves = {}
    for name, own in points.items():
        steps, means = zip(*sorted(own.items()), strict=True)
        curves[name] = Curve(np.array(steps, np.float64), np.array(means, np.float64))
    return curves


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        number = _number(value)
        if number is not None:
            yield name, number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each setting."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _at(curve: Curve | None, step: int | None) -> float | None:
    """Return the value of a curve at a step; None: it has none there."""
    if curve is None or step is None:
        return None
    found = np.flatnonzero(curve.steps == step)
    return float(curve.values[found[0]]) if len(found) else None


def _median(history: RunHistory, name: str) -> float | None:
    curve = history.curves.get(name)
    return None if curve is None else float(np.median(curve.values))
