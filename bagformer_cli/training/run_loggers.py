"""Send the figures of a run to Weights & Biases or MLflow as well (``training.loggers``).

They are never needed and never hold up a training::

    training   write() ── queue of at most 1,000 records ──┐
    thread                                                 └─▶ open(), send(), send(), … finish()

Each logger runs in a separate thread, so that a server that does not answer costs nothing. A
package that is missing, a logger that cannot be opened and records that cannot be sent are counted
and said once. ``loggers.json`` in the run folder names the logger's run, which a resume continues.
"""

from __future__ import annotations

import importlib
import json
import netrc
import os
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

FILE = "loggers.json"
MOST_WAITING = 1000
"""Records that may wait for a logger; further ones are left out and counted."""

CLOSE_SECONDS = 20.0
"""Time that the end of a training waits for a logger to send its last records."""

_NAMES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
_MOST_PARAMETERS, _MOST_CHARACTERS = 100, 500  # of one call of MLflow, of one of its values


class Backend(Protocol):
    """A service that keeps figures; all methods run in the logger's thread."""

    def open(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Start its run, or continue the one that ``loggers.json`` names."""

    def send(self, figures: Mapping[str, float], step: int) -> None:
        """Send the figures of a step."""

    def finish(self, failed: bool) -> None:
        """End its run."""


class RunLogger:
    """A logger of a run: a queue and the thread that empties it.

    Args:
        name: ``wandb`` or ``mlflow``.
        run: The run folder.
        settings: The configuration of the run, nested.
        progress: Receives one warning if it does not work.
    """

    def __init__(
        self, name: str, run: Path, settings: Mapping[str, Any], progress: Progress = SILENT
    ) -> None:
        self._name, self._run, self._settings, self._progress = name, run, settings, progress
        self._waiting: queue.Queue[tuple[Mapping[str, float], int] | None] = queue.Queue(
            MOST_WAITING
        )
        self._lost, self._error, self._failed, self._said = 0, "", False, False
        self._thread = threading.Thread(target=self._work, name=f"xmr-{name}", daemon=True)
        self._thread.start()

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Hand over the figures of a step; returns at once."""
        try:
            self._waiting.put_nowait((figures, step))
        except queue.Full:
            self._lost += 1
        self._say_error()

    def close(self, failed: bool) -> None:
        """Wait for the last records, at most :data:`CLOSE_SECONDS`, and count those that are lost.

        Args:
            failed: Whether the training ended by an error.
        """
        self._failed = failed
        until = time.monotonic() + CLOSE_SECONDS
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(max(0.0, until - time.monotonic()))
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._lost += self._waiting.qsize()
            self._error = self._error or tr("no answer")
        self._say_error()
        if self._lost:
            self._progress.warn(
                tr("{name}: {n} records of this run were not sent.",
                   name=_NAMES[self._name], n=self._lost)
            )  # fmt: skip

    def _say_error(self) -> None:
        if self._error and not self._said:
            self._said = True
            self._progress.warn(
                tr(
                    "{name} does not work: {error}. The training continues without it; all figures "
                    "are in metrics.jsonl.",
                    name=_NAMES[self._name],
                    error=self._error,
                )
            )

    def _work(self) -> None:
        """Open the backend and send all records; nothing that it raises leaves the thread."""
        backend: Backend | None = None
        try:
            backend = _BACKENDS[self._name]()
            backend.open(self._run, self._settings)
        except BaseException as error:  # a library may call sys.exit
            self._note(error)
            backend = None
        while (record := self._waiting.get()) is not None:
            if backend is None:
                self._lost += 1
                continue
            try:
                backend.send(*record)
            except BaseException as error:
                self._note(error)
                self._lost += 1
        if backend is not None:
            try:
                backend.finish(self._failed)
            except BaseException as error:
                self._note(error)

    def _note(self, error: BaseException) -> None:
        if isinstance(error, ModuleNotFoundError) and error.name == self._name:
            self._error = self._error or tr("it is not installed")
            return
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._error = self._error or lines[0][:200]


def figures_for_loggers(kind: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Name the figures of a line of ``metrics.jsonl`` for a logger.

    >>> figures_for_loggers("train", {"loss": 3.1, "itc_loss_weight": 1.0, "chance": {"itc": 2}})
    {'train/loss': 3.1, 'train/chance/itc': 2.0}
    >>> figures_for_loggers("valid", {"stages": {"recall": {"text_to_image": {"map": 50}}}})
    {'valid/recall/text_to_image/map': 50.0}
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = kind if name == "stages" else f"{kind}/{name}"
            found |= figures_for_loggers(inner, value)
        elif isinstance(value, (int, float)) and not name.endswith("_weight"):
            found[f"{kind}/{name}"] = float(value)
    return found


class _Wandb:
    """Weights & Biases. Without a key or ``WANDB_MODE`` it stays offline and never asks for one."""

    def open(self, run: Path, settings: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        known = _known(run, "wandb").get("id")
        own = known if isinstance(known, str) else uuid.uuid4().hex[:12]
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "xmr"),
            name=run.name,
            id=own,
            dir=str(run),
            mode=mode,
            resume="allow",
            config=dict(settings),
            settings=wandb.Settings(silent=True),
        )
        _remember(run, "wandb", {"id": own})
        # Figures are ordered by this one: a resumed run may repeat steps, which W&B would drop.
        self._run.define_metric("*", step_metric="step")

    def send(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**figures, "step": step})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MlFlow:
    """MLflow. Without ``MLFLOW_TRACKING_URI`` its files are in the run folder, ``mlflow/``."""

    def open(self, run: Path, settings: Mapping[str, Any]) -> None:
        mlflow = importlib.import_module("mlflow")
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
            address = (run.resolve() / "mlflow").as_uri()
        self._entities = importlib.import_module("mlflow.entities")
        self._client = mlflow.MlflowClient(tracking_uri=address)
        known = _known(run, "mlflow").get("run_id")
        if isinstance(known, str):
            try:
                self._client.update_run(known, status="RUNNING")
                self._id = known
                return
            except Exception:  # deleted, or kept by another server
                pass
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "xmr")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = str(self._client.create_run(number, run_name=run.name).info.run_id)
        _remember(run, "mlflow", {"run_id": self._id})
        rows = [
            self._entities.Param(key, str(value)[:_MOST_CHARACTERS])
            for key, value in _dotted(settings).items()
        ]
        for start in range(0, len(rows), _MOST_PARAMETERS):
            self._client.log_batch(self._id, params=rows[start : start + _MOST_PARAMETERS])

    def send(self, figures: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        rows = [self._entities.Metric(key, value, now, step) for key, value in figures.items()]
        self._client.log_batch(self._id, metrics=rows)

    def finish(self, failed: bool) -> None:
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


_BACKENDS: dict[str, type[Backend]] = {"wandb": _Wandb, "mlflow": _MlFlow}


def _has_key() -> bool:
    """Tell whether Weights & Biases would find a key without asking for it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _known(run: Path, name: str) -> Mapping[str, Any]:
    """Read what ``loggers.json`` says about a logger; empty: nothing."""
    try:
        found = json.loads((run / FILE).read_text("utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


_WRITING = threading.Lock()  # two loggers write one file


def _remember(run: Path, name: str, values: Mapping[str, Any]) -> None:
    with _WRITING:
        both = {one: dict(_known(run, one)) for one in _NAMES if _known(run, one)}
        write_text(run / FILE, json.dumps({**both, name: dict(values)}) + "\n")


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _dotted(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
