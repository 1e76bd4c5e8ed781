"""A run is read for what it has: complete, cut off, of an older version, or no run at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.errors import InputError
from bagformer_cli.training.run_history import differing_settings, read_histories, read_history


def train_line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "kind": "train", "loss": 4 / step, "itc_loss": 2 / step,
            "chance": {"itc_loss": 2.08}, "learning_rate": 1e-3, "epoch": step / 10,
            "seconds": step / 2, **more}  # fmt: skip


def valid_line(step: int, recall: float) -> dict[str, Any]:
    both = {"text_to_image": {"mean_recall": recall}, "image_to_text": {"mean_recall": recall + 1}}
    return {"step": step, "kind": "valid", "stages": {"recall": both}}


LINES = [valid_line(0, 20.0), train_line(10), train_line(20), valid_line(20, 60.0), train_line(30),
         valid_line(30, 50.0)]  # fmt: skip


def write_run(run: Path, lines: list[Any] = LINES, **training: Any) -> Path:
    """Write a run folder by hand; ``training`` are settings of that section."""
    run.mkdir(parents=True)
    settings = {"epochs": 3, "max_steps": None, "learning_rate": 0.001, **training}
    (run / "config.yaml").write_text(json.dumps({"seed": 1, "training": settings}))
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (run / "metrics.jsonl").write_text(text)
    record = {"started": {"date": "2026-05-04T10:20:30+08:00", "versions": {"xmr": "0.1.0"},
                          "machine": {"cpu": "A CPU", "gpus": []}},
              "ended": {"step": 30, "seconds": 15.0, "pairs_per_second": 40.0,
                        "data_wait_share": 0.25}}  # fmt: skip
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_a_complete_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    history = read_history(run)
    assert history.remarks == ()
    assert history.curves["loss"].steps.tolist() == [10, 20, 30]
    assert history.curves["text_to_image"].values.tolist() == [20, 60, 50]
    assert history.guesses == {"itc_loss": 2.08}
    assert history.figures() == {
        "run": str(run), "state": "complete", "steps": 30, "total_steps": 30, "loss": 4 / 30,
        "start_mean_recall": 20.0, "mean_recall": 60.0, "best_step": 20, "image_to_text": 61.0,
        "seconds": 15.0, "pairs_per_second": 40.0, "data_wait_share": 0.25, "memory_mb": None,
        "started": "2026-05-04T10:20:30+08:00", "machine": "A CPU", "xmr": "0.1.0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "ended", "state"),
    [
        ({"epochs": 3}, 30, "complete"),
        ({"epochs": 400, "max_steps": 30}, None, "complete"),
        ({"epochs": 400}, 30, "stopped"),
        ({"epochs": 400}, 20, "not ended"),  # resumed after it was stopped at step 20
        ({"epochs": 400}, None, "not ended"),
        ({"epochs": "many", "max_steps": True}, 30, "complete"),  # length unknown
    ],
)
def test_the_state(tmp_path: Path, settings: Any, ended: int | None, state: str) -> None:
    run = write_run(tmp_path / "a", **settings)
    (run / "run.json").write_text(json.dumps({"ended": {"step": ended}} if ended else {}))
    assert read_history(run).state == state


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    odd = ["[]", "3", '{"kind": "train"}', '{"step": 1e999, "kind": "train"}', "\u2028",
           '{"step": 5, "kind": "train", "loss": NaN, "itc_loss": 1' + "0" * 400 + "}",
           '{"step": 6, "kind": "train", "loss": "high", "chance": [1]}',
           '{"step": 7, "kind": "valid", "stages": []}',
           '{"step": 8, "kind": "train", "lo']  # fmt: skip
    history = read_history(write_run(tmp_path / "a", [*LINES, *odd]))
    assert history.curves["loss"].steps.tolist() == [10, 20, 30]
    assert history.curves["itc_loss"].steps.tolist() == [10, 20, 30]
    (remark,) = history.remarks
    assert "5 lines of metrics.jsonl" in remark


def test_a_run_without_record_or_with_unknown_settings_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run / "run.json").write_text("[" * 10_000)
    (run / "config.yaml").write_text("nonsense: {bar: 2}\n")
    history = read_history(run)
    assert history.settings == {"nonsense.bar": 2}
    assert history.figures()["machine"] is None
    assert ["run.json" in remark for remark in history.remarks] == [True]
    (run / "config.yaml").write_text("a: [\n")
    assert read_history(run).settings == {}
    os.remove(run / "config.yaml")
    assert len(read_history(run).curves) > 0


def test_settings_that_differ(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a")
    other = write_run(tmp_path / "b", learning_rate=0.1, batch_size=32)
    differing = differing_settings(read_histories([one, other]))
    # batch_size: the run that lacks it trained with its default, 32
    assert differing == {"training.learning_rate": [0.001, 0.1]}
    alone = differing_settings(read_histories([one]))
    assert alone["seed"] == [1]
    assert "training.batch_size" not in alone


def test_best_stands_for_its_run_and_a_chain_for_its_stages(tmp_path: Path) -> None:
    run = write_run(tmp_path / "chain" / "2-base")
    write_run(tmp_path / "chain" / "10-fast")
    (tmp_path / "chain" / "config.yaml").write_text("{}")
    (run / "best").mkdir()
    (run / "best" / "config.yaml").write_text("{}")
    (run / "best" / "model.safetensors").touch()
    assert read_history(run / "best").run == run
    found = read_histories([tmp_path / "chain", run / "best"])
    assert [history.run.name for history in found] == ["2-base", "10-fast"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.yaml").write_text("{}")
    (tmp_path / "model" / "model.safetensors").touch()
    for name, word in {"runs": r"runs/\*", "model": "a model folder", "none": "not exist"}.items():
        with pytest.raises(InputError, match=word):
            read_history(tmp_path / name)
