"""The newest run is found and described; so is the last stage of a chain."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bagformer_cli.models.runs import BestModel, best_model, find_checkpoint, models_in
from bagformer_cli.progress import SILENT


class Notes(type(SILENT)):  # type: ignore[misc]
    """A silent progress that keeps what it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def info(self, message: str) -> None:
        self.texts.append(message)


def run(folder: Path, age: int, *recalls: float, config: str = "") -> Path:
    """A run folder whose recall was measured at step 0, 10, 20 …"""
    best = folder / "best"
    best.mkdir(parents=True)
    (best / "model.safetensors").touch()
    os.utime(best / "model.safetensors", (10_000 - age, 10_000 - age))
    (folder / "config.yaml").write_text(config)
    lines = [
        {
            "step": 10 * n,
            "kind": "valid",
            "stages": {"recall": {"text_to_image": {"mean_recall": recall}}},
        }
        for n, recall in enumerate(recalls)
    ]
    lines.append({"step": 25, "kind": "train", "loss": 1.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 30, "ki')  # killed while it wrote
    return folder


def test_the_newest_run_is_taken_and_named_and_the_others_are_listed(tmp_path: Path) -> None:
    run(tmp_path / "old", 2, 5.0)
    run(tmp_path / "new", 0, 1.0, 30.0, 20.0)
    run(tmp_path / "chain/1-inflate", 1, 5.0)
    notes = Notes()
    assert find_checkpoint(None, tmp_path, notes) == tmp_path / "new/best"
    assert f"{tmp_path}/new (step 10, validation mean recall 30.00 %)" in notes.texts[0]
    assert f"{tmp_path}/chain/1-inflate, {tmp_path}/old" in notes.texts[1]


def test_a_single_run_has_no_others_to_list(tmp_path: Path) -> None:
    run(tmp_path / "only", 0)
    notes = Notes()
    find_checkpoint(None, tmp_path, notes)
    (note,) = notes.texts
    assert "step 25, recall not measured" in note


def test_many_others_are_counted(tmp_path: Path) -> None:
    for number in range(9):
        run(tmp_path / str(number), number)
    notes = Notes()
    find_checkpoint(None, tmp_path, notes)
    assert f"{tmp_path}/5 and 3 more" in notes.texts[1]
    assert len(models_in(tmp_path)) == 9


def test_without_a_trained_fast_scorer_the_latest_model_is_the_best(tmp_path: Path) -> None:
    config = "objectives: {itc: 0, late_interaction: 0, itm: 1}\n"
    assert best_model(run(tmp_path / "a", 0, 30.0, 20.0, config=config)) == BestModel(10, 20.0)


def test_a_run_without_a_record_has_unknown_figures(tmp_path: Path) -> None:
    assert best_model(tmp_path) == BestModel()
    assert "unknown" in str(BestModel())


def test_a_chain_is_its_last_stage_that_has_a_model(tmp_path: Path) -> None:
    for name in ("2-base", "10-fast"):
        run(tmp_path / "chain" / name, 0)
    assert find_checkpoint(tmp_path / "chain") == tmp_path / "chain"  # no config.yaml: no chain
    (tmp_path / "chain/config.yaml").touch()
    assert find_checkpoint(tmp_path / "chain") == tmp_path / "chain/10-fast/best"


@pytest.mark.parametrize("name", ["2024-demo", "2a-x"])
def test_a_folder_of_runs_is_no_chain(tmp_path: Path, name: str) -> None:
    run(tmp_path / name, 0)
    assert find_checkpoint(tmp_path) == tmp_path
