"""The pretraining experiment: budgets, arms, table. Nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretraining import ARMS, FINE_TUNING, FINE_TUNING_ALONE, Trials, results_table
from tests.support.datasets import write_split

STEP_SECONDS = dict.fromkeys(ARMS, 0.1) | {FINE_TUNING_ALONE: 0.2}


@pytest.fixture
def arms(tmp_path: Path) -> Trials:
    write_split(tmp_path / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/prices.json").write_text(json.dumps(STEP_SECONDS))
    return Trials(tmp_path / "out", str(tmp_path / "data"), seconds=100.0, share=0.4)


def test_every_arm_has_the_same_budget(arms: Trials) -> None:
    for name in ARMS:
        before, after = arms.steps(name)
        assert before * STEP_SECONDS[name] + after * STEP_SECONDS[
            FINE_TUNING_ALONE
        ] == pytest.approx(100.0)
        assert (before == 0) == (name == FINE_TUNING_ALONE)


def test_every_arm_has_a_different_configuration(arms: Trials) -> None:
    kinds = {
        arms.config(FINE_TUNING if sets is None else sets, 3, 7).model_dump_json()
        for sets in ARMS.values()
    }
    assert len(kinds) == len(ARMS)


def test_the_table_pairs_each_arm_with_fine_tuning_alone_by_seed(arms: Trials) -> None:
    def write(name: str, seed: int, first: int) -> None:
        folder = arms.folder(name, seed)
        folder.mkdir()
        ranks = [0] * first + [99] * (10 - first)
        result = {"steps": [5, 10], "cpu_seconds": [1.0, 2.0], "ranks": ranks}
        result |= {"text_to_image": 10.0 * first, "image_to_text": 50.0}
        (folder / "result.json").write_text(json.dumps(result))

    for seed in (0, 1):
        write(FINE_TUNING_ALONE, seed, 4)
        write("ITC", seed, 6 + seed)
    write("ITC, MLM", 0, 3)
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in results_table(arms, (0, 1))}
    assert rows[FINE_TUNING_ALONE][:4] == ["2", "40.0 ± 0.0", "50.0 ± 0.0", ""]
    assert rows["ITC"][1] == "65.0 ± 7.1"
    assert rows["ITC"][3].startswith("+25.00 (+")
    assert rows["ITC, MLM"][0] == "1"
    assert rows["ITC, MLM"][3].startswith("-10.00 (")
    assert "ITC, ITM" not in rows
