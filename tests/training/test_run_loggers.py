"""Loggers receive what metrics.jsonl has, and a training never waits for one or fails by one."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bagformer_cli.config import load_config
from bagformer_cli.datasets import ensure_store
from bagformer_cli.training import run_loggers
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import MetricsLog, read_metrics
from bagformer_cli.training.run import resume_config, resume_run, start_run
from bagformer_cli.training.run_loggers import RunLogger
from tests.support.datasets import write_split
from tests.support.remarks import Remarks
from tests.support.small_run import TINY


class Wandb(ModuleType):
    """The part of W&B's interface that is used, on lists in memory."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.inits: list[dict[str, Any]] = []
        self.codes: list[int] = []
        self.Settings = SimpleNamespace

    def init(self, **options: Any) -> Any:
        self.inits.append(options)
        records = self.runs.setdefault(options["id"], [])
        return SimpleNamespace(
            log=records.append,
            define_metric=lambda *a, **k: None,
            finish=lambda exit_code: self.codes.append(exit_code),
        )


class MlFlow(ModuleType):
    """The part of MLflow's interface that is used."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.metrics: dict[str, list[Any]] = {}
        self.params: dict[str, list[Any]] = {}
        self.states: dict[str, str] = {}
        self.MlflowClient = lambda tracking_uri: self
        self.address = ""

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        number = f"run{len(self.states)}"
        self.states[number] = "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def update_run(self, number: str, status: str) -> None:
        assert number in self.states
        self.states[number] = status

    def log_batch(self, number: str, metrics: Any = (), params: Any = ()) -> None:
        self.metrics.setdefault(number, []).extend(metrics)
        self.params.setdefault(number, []).extend(params)
        assert len(params) <= 100

    def set_terminated(self, number: str, status: str) -> None:
        self.states[number] = status


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    return module


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> MlFlow:
    module = MlFlow()
    entities = ModuleType("mlflow.entities")
    entities.Metric = lambda *values: values  # type: ignore[attr-defined]
    entities.Param = lambda *values: values  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return module


def test_a_run_and_its_resume_are_one_run_of_each_logger(
    tmp_path: Path, wandb: Wandb, mlflow: MlFlow
) -> None:
    for split in ("train", "valid"):
        write_split(tmp_path / "shop", split, [(n, f"红色{n}", (100 + n,)) for n in range(16)])
    loggers = "training.loggers=[wandb, mlflow]"
    config = load_config("demo", [*TINY, "training.max_steps=2", loggers])
    model, run = new_model(config), tmp_path / "runs" / "a"
    store = ensure_store(tmp_path / "shop", model.titles, workers=1)
    start_run(config, store, run, model)
    resume_run(resume_config(run, ["training.max_steps=4"]), store, run)
    lines = read_metrics(run)
    (records,) = wandb.runs.values()
    assert [record["step"] for record in records] == [line["step"] for line in lines]
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    assert losses == [line["loss"] for line in lines if line["kind"] == "train"]
    assert [one["mode"] for one in wandb.inits] == ["offline", "offline"]
    assert wandb.inits[0]["config"]["training"]["max_steps"] == 2
    assert wandb.codes == [0, 0]
    assert mlflow.states == {"run0": "FINISHED"}
    steps = [step for name, _, _, step in mlflow.metrics["run0"] if name == "train/loss"]
    assert steps == [1, 2, 3, 4]
    assert ("training.max_steps", "2") in mlflow.params["run0"]


def logged(tmp_path: Path, name: str = "wandb", lines: int = 3) -> list[str]:
    """Write a few lines to a logger; return the warnings."""
    remarks = Remarks()
    with MetricsLog(tmp_path, -1, [RunLogger(name, tmp_path, {}, remarks)]) as log:
        for step in range(lines):
            log.write("train", step, {"loss": 1.0})
    assert len(read_metrics(tmp_path)) == lines
    return remarks.warnings


def test_a_package_that_is_missing_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = logged(tmp_path)
    assert len(said) == 2
    assert "Weights & Biases does not work: " in said[0]
    assert "3 records of this run were not sent" in said[1]


ERRORS = [RuntimeError("no quota\nmore"), SystemExit(1), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS)
def test_a_logger_that_fails_is_counted(
    tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(**options: Any) -> Any:
        def log(record: dict[str, Any]) -> None:
            if record["step"] == 1:
                raise error

        return SimpleNamespace(log=log, define_metric=lambda *a, **k: None, finish=lambda **k: None)

    monkeypatch.setattr(wandb, "init", fail)
    said = logged(tmp_path)
    assert "1 records of this run were not sent" in said[1]
    assert "more" not in said[0]


def test_a_logger_that_hangs_does_not_hold_up_the_run(
    tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()
    monkeypatch.setattr(wandb, "init", lambda **options: ready.wait(60))
    monkeypatch.setattr(run_loggers, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(run_loggers, "MOST_WAITING", 5)
    start = time.monotonic()
    said = logged(tmp_path, lines=20)
    assert time.monotonic() - start < 5
    assert "no answer" in said[0]
    assert "20 records" in said[1]
    ready.set()


def test_a_training_that_fails_is_a_failed_run(tmp_path: Path, wandb: Wandb) -> None:
    with (
        pytest.raises(ValueError, match="diverged"),
        MetricsLog(tmp_path, -1, [RunLogger("wandb", tmp_path, {})]),
    ):
        raise ValueError("diverged")
    assert wandb.codes == [1]


@pytest.mark.slow
def test_mlflow_itself_keeps_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert logged(tmp_path, "mlflow") == []
    assert logged(tmp_path, "mlflow") == []  # as a resume does
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("xmr")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 6
