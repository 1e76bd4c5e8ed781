"""Training on several processes gives the losses, gradients and weights of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import ConfigError
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes, join_process_group
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import read_metrics
from bagformer_cli.training.run import images_per_process
from tests.support.datasets import write_split
from tests.support.small_model import set_options
from tests.support.small_run import TINY, losses, weights
from tests.support.two_processes import KINDS, learned, settings

REPOSITORY = Path(__file__).resolve().parents[2]
TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(*arguments: object) -> None:
    """Run a program with two processes under torchrun, on the CPU."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TOGETHER, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs; every two of them share a title."""
    path = tmp_path_factory.mktemp("pairs")
    for split in ("train", "valid"):
        queries = [(n, f"{'红绿蓝黄'[n // 2 % 4]}色连衣裙第{n // 2}款", (n,)) for n in range(40)]
        write_split(path, split, queries=queries)
    return path


def test_two_processes_have_the_loss_and_the_gradients_of_one(folder: Path, tmp_path: Path) -> None:
    store = ensure_store(folder, new_model(settings("itc")).titles, workers=1)
    start("tests/support/two_processes.py", store.path, tmp_path)
    for kind in KINDS:
        alone = learned(kind, store.path, SINGLE_PROCESS)
        both = load_file(tmp_path / f"{kind}.safetensors")
        assert both.keys() >= alone.keys(), kind
        largest = max(float(v.abs().max()) for n, v in alone.items() if n.startswith("gradient."))
        for name, value in alone.items():  # some gradients are zero up to rounding
            near = 1e-5 * (largest if name.startswith("gradient.") else 1.0)
            torch.testing.assert_close(
                both[name], value, rtol=1e-4, atol=near, msg=f"{kind} {name}"
            )


@pytest.mark.slow
def test_a_run_on_two_processes_is_resumed_on_one(folder: Path, tmp_path: Path) -> None:
    """The weights are those of a run on one process from beginning to end."""
    ensure_store(folder, new_model(settings("itc")).titles, workers=1)
    more = ["text.dropout=0", "objectives.itm=0", "training.save_every=2"]
    more += ["training.schedule_steps=12", "objectives.momentum={queue: 13}"]
    sets = set_options(*TINY, *more)
    train = ["-m", "bagformer_cli.cli.main", "train"]
    new = ["--config", "demo", "--dataset", str(folder), *sets]

    def end(step: int) -> list[str]:
        return ["--set", f"training.max_steps={step}"]

    one, two = tmp_path / "one", tmp_path / "two"
    whole = [sys.executable, *train, "--output-dir", str(one), *new, *end(12)]
    subprocess.run(whole, check=True, capture_output=True)
    start(*train, "--output-dir", two, *new, *end(6))
    assert [line["step"] for line in read_metrics(two, "train")] == [1, 2, 3, 4, 5, 6]
    resume = [sys.executable, *train, "--resume", "--output-dir", str(two), *end(12)]
    subprocess.run(resume, check=True, capture_output=True)
    for name, value in weights(one / "last").items():
        torch.testing.assert_close(weights(two / "last")[name], value, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(losses(two), losses(one), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_another_launcher_without_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_process_group() == SINGLE_PROCESS
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun") as caught:
        join_process_group()
    assert caught.value.exit_code == 2


def test_more_processes_than_cards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """nccl would refuse two processes on one card with a message about its internals."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="more processes than GPUs") as caught:
        join_process_group()
    assert (caught.value.found, caught.value.expected) == ("2", "at most 1")
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value.hint)


def test_training_processes_is_the_required_world_size() -> None:
    SINGLE_PROCESS.require_world_size(None)
    SINGLE_PROCESS.require_world_size(1)
    with pytest.raises(ConfigError, match=r"training\.processes"):
        SINGLE_PROCESS.require_world_size(2)


def test_a_batch_that_cannot_be_divided_equally_is_refused() -> None:
    assert images_per_process(12, Processes(1, 4)) == 3
    with pytest.raises(ConfigError, match="multiple of 4"):
        images_per_process(10, Processes(0, 4))


@pytest.mark.slow
def test_two_processes_stop_early_together(folder: Path, tmp_path: Path) -> None:
    """Only the main process measures recall; the other would wait for it at the next step."""
    ensure_store(folder, new_model(settings("itc")).titles, workers=1)
    more = ["training.early_stopping={patience: 1, min_delta: 100}", "training.evaluate_every=2",
            "training.max_steps=12", "training.ema=0.5"]  # fmt: skip
    sets = set_options(*TINY, *more)
    train = ["-m", "bagformer_cli.cli.main", "train", "--output-dir", tmp_path / "two"]
    start(*train, "--config", "demo", "--dataset", folder, *sets)
    assert [line["step"] for line in read_metrics(tmp_path / "two", "valid")] == [0, 2]
