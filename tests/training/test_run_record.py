"""``run.json`` and the figures of the log that say how fast a run is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.training.metrics_log import board_scalars, read_metrics
from bagformer_cli.training.run_record import commit_of
from tests.support.datasets import write_split
from tests.support.small_model import set_options
from tests.support.small_run import TINY


def test_a_run_records_how_it_was_made_and_each_resume(
    xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "set", "train", [(n, f"第{n}款", (n,)) for n in range(8)])
    sets = set_options(*TINY)
    run = xmr("train", "--config", "demo", "--dataset", "set", "--output-dir", "r", *sets,
              "--set", "training.max_steps=2")  # fmt: skip
    assert run.code == 0, run.err
    record = json.loads(Path("r/run.json").read_text("utf-8"))
    assert record["resumed"] == []
    assert record["started"]["data"].keys() == {"images", "queries"}
    started = record["started"]
    assert {"xmr", "python", "torch", "timm", "transformers"} <= started["versions"].keys()
    assert started["machine"]["cores"] >= 1
    assert started["date"][:2] == "20"
    assert "pairs/s" in run.out
    assert "waiting for data" in run.out
    assert record["ended"]["step"] == 2
    again = xmr("train", "--resume", "--output-dir", "r", "--set", "training.max_steps=3", "--json")
    assert again.code == 0, again.err
    report = again.json()
    assert 24 / report["pairs_per_second"] == pytest.approx(report["seconds"], abs=5.1e-4)  # ms
    assert 0 <= report["data_wait_share"] < 1
    ended = json.loads(Path("r/run.json").read_text("utf-8"))["ended"]
    assert (ended["step"], ended["seconds"]) == (3, report["seconds"])
    assert ended["pairs_per_second"] == report["pairs_per_second"]
    record = json.loads(Path("r/run.json").read_text("utf-8"))
    assert (record["started"], [one["step"] for one in record["resumed"]]) == (started, [2])
    for line in read_metrics("r", "train"):
        assert line["samples_per_second"] == line["pairs_per_second"] > 0
        assert 0 <= line["data_wait_share"] <= 1
        assert line["memory_mb"] > 50
        assert "step_seconds" not in line


def test_the_commit_of_a_folder_is_named_with_a_plus_for_changed_files(tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    commit = commit_of(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == f"{commit}+"


def test_the_index_of_git_is_only_read(tmp_path: Path) -> None:
    """Git would lock it to write it; a run killed there would leave the lock, and git refuse."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    os.utime(tmp_path / "a", (1, 1))  # so that git compares the content, and would note that
    before = (tmp_path / ".git/index").read_bytes()
    commit = commit_of(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    assert (tmp_path / ".git/index").read_bytes() == before


def test_the_first_cards_of_tensorboard_are_recall_and_loss() -> None:
    valid = {"n_queries": 4, "stages": {"recall": {"text_to_image": {"recall@1": 50.0}}}}
    train = {"loss": 2.0, "itc_loss": 1.0, "itc_loss_weight": 1.0, "chance": {"itc_loss": 3.4},
             "learning_rate": 0.1, "samples_per_second": 9.0}  # fmt: skip
    names = sorted(n for n, _ in board_scalars("valid", valid) + board_scalars("train", train))
    assert names == [
        "1_recall/recall_text_to_image_recall@1",
        "2_loss/itc_loss",
        "2_loss/loss",
        "3_speed/samples_per_second",
        "4_details/learning_rate",
    ]
