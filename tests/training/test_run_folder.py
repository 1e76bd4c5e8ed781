"""A run folder has one writer; a start that fails leaves nothing; a signal stops with a save."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.errors import InputError
from bagformer_cli.losses.matching import hard_negatives
from bagformer_cli.training.interrupt import SIGNALS, stop_on_signal
from bagformer_cli.training.run_folder import LOCK, new_run, new_run_below, writing
from tests.support.datasets import write_split
from tests.support.small_model import set_options
from tests.support.small_run import TINY

HOLD = """
import sys, time
from pathlib import Path
from bagformer_cli.training.run_folder import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(run: Path) -> subprocess.Popen[str]:
    """Another process that writes a run folder until its standard input is closed."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def test_a_folder_that_another_process_writes_is_refused_until_that_process_is_killed(
    tmp_path: Path,
) -> None:
    other = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(InputError, match="Another process is training"),
            writing(tmp_path / "run"),
        ):
            pass
        with new_run_below(tmp_path, "run") as run:
            (run / "last").mkdir()
        assert run == tmp_path / "run-2"
    finally:
        other.kill()
        other.communicate()
    with writing(tmp_path / "run"), writing(tmp_path / "run"):  # nested calls share the lock
        pass


def test_a_start_that_fails_removes_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    for run in (tmp_path / "a/b/run", tmp_path / "mine"):
        with suppress(RuntimeError), new_run(run):
            (run / "config.yaml").write_text("seed: 0")
            (run / "best").mkdir()
            raise RuntimeError
    assert not (tmp_path / "a").exists()
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"notes.txt"}


def test_a_run_or_chain_that_was_saved_stays_when_training_fails(tmp_path: Path) -> None:
    for saved in ("run/last", "chain/1-inflate/last"):
        run = tmp_path / saved.split("/")[0]
        with suppress(RuntimeError), new_run(run):
            (tmp_path / saved).mkdir(parents=True)
            raise RuntimeError
        assert (tmp_path / saved).is_dir()


def test_a_folder_that_a_killed_start_left_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / LOCK).touch()
    with new_run_below(tmp_path, "demo") as run:
        (run / "config.yaml").touch()
        (run / "last").mkdir()
    assert run == tmp_path / "demo"
    with new_run_below(tmp_path, "demo") as run:
        (run / "last").mkdir()
    assert run == tmp_path / "demo-2"


def test_a_signal_to_stop_is_noted_and_an_ignored_one_stays_ignored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), number)
            assert stop.wait(5)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before[SIGNALS.index(signal.SIGHUP)])


def test_negatives_of_scores_that_are_not_finite_can_be_drawn() -> None:
    scores = torch.full((3, 3), torch.nan)
    columns, possible = hard_negatives(scores, torch.eye(3, dtype=torch.bool))
    assert possible.all()
    assert (columns != torch.arange(3)).all()


@pytest.fixture
def trained(xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of two steps in ``r``; returns the options that set its sizes."""
    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "set", "train", [(n, f"第{n}款", (n,)) for n in range(8)])
    sets = set_options(*TINY)
    run = xmr("train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *sets,
              "--set", "training.max_steps=2")  # fmt: skip
    assert run.code == 0, run.err
    return sets


def test_a_resume_refuses_what_it_would_ignore_and_says_when_it_is_complete(
    xmr: Callable[..., Any], trained: list[str]
) -> None:
    resume = ("train", "--resume", "--output-dir", "r")
    before = Path("r/config.yaml").read_bytes()
    for option in (["--checkpoint", "r"], ["--config", "demo"], ["--seed", "1"]):
        refused = xmr(*resume, *option)
        assert refused.code == 2
        assert option[0] in refused.err
    for item in ("model.embed_dim=8", "seed=3", "training.checkpoint=r", "text.layers=2",
                 "objectives.itm=0", "model.interaction=cls"):  # fmt: skip
        refused = xmr(*resume, "--set", item)
        assert refused.code == 2
        assert f"--set {item}" in refused.err
    assert Path("r/config.yaml").read_bytes() == before
    complete = xmr(*resume)
    assert complete.code == 0
    assert "already complete: 2 steps" in complete.err
    longer = xmr(*resume, "--set", "training.max_steps=3", "--set", "objectives.itc=0.5", "--json")
    assert longer.json()["steps"] == 3
    assert "already complete" not in longer.err


def test_an_edit_of_the_runs_config_that_a_resume_would_ignore_is_refused(
    xmr: Callable[..., Any], trained: list[str]
) -> None:
    resume = ("train", "--resume", "--output-dir", "r", "--json")
    config = Path("r/config.yaml")
    before = config.read_text(encoding="utf-8")
    for was, now, key in (
        ("interaction: bagwise", "interaction: cls", "model.interaction"),
        ("seed: 0", "seed: 5", "seed"),
        ("augment: null", "augment: {flip: true}", "data.augment"),
        ("momentum: null", "momentum: {queue: 8}", "objectives.momentum"),
    ):
        edited = before.replace(was, now, 1)
        assert edited != before
        config.write_text(edited, encoding="utf-8")
        refused = xmr(*resume)
        assert refused.code == 2
        assert f"r/config.yaml: {key}" in refused.err
        assert config.read_text(encoding="utf-8") == edited
    # A resume can change the length of training and the learning rate, also in the file.
    config.write_text(before.replace("max_steps: 2", "max_steps: 3", 1), encoding="utf-8")
    assert xmr(*resume).json()["steps"] == 3


def test_a_resume_says_its_step_and_warns_of_steps_of_another_size(
    xmr: Callable[..., Any], trained: list[str]
) -> None:
    resume = ("train", "--resume", "--output-dir", "r")
    set_steps = ("--set", "training.max_steps=4")
    same = xmr(*resume, *set_steps)
    assert same.code == 0
    assert "Resuming r at step 2 " in same.err
    assert "A step now has" not in same.err
    smaller = xmr(*resume, "--set", "training.max_steps=5", "--set", "training.batch_size=2")
    assert smaller.code == 0
    assert "Resuming r at step 4 " in smaller.err
    assert "A step now has 2 images" in smaller.err
    assert "continues in epoch 1.00 of" in smaller.err  # 8 images: 4 steps an epoch
    again = xmr(*resume, "--set", "training.max_steps=6")
    assert "A step now has" not in again.err
