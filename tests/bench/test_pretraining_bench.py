"""The bench of pretraining: budgets, arms, its table; trainings themselves are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bagformer_cli.bench import trials
from bagformer_cli.bench.pretraining import ALONE_ARM, ARMS, FINE, Bench, table
from bagformer_cli.bench.trials import kept, write_page
from bagformer_cli.config import RunConfig
from bagformer_cli.training.loop import TrainResult
from tests.support.datasets import write_split

PRICES = dict.fromkeys(ARMS, 0.1) | {ALONE_ARM: 0.2}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    write_split(tmp_path / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/prices.json").write_text(json.dumps(PRICES))
    return Bench(tmp_path / "out", str(tmp_path / "data"), seconds=100.0, share=0.4)


def test_every_arm_spends_the_same(bench: Bench) -> None:
    for name in ARMS:
        before, after = bench.steps(name)
        assert before * PRICES[name] + after * PRICES[ALONE_ARM] == pytest.approx(100.0)
        assert (before == 0) == (name == ALONE_ARM)


def test_every_arm_is_a_configuration_and_an_objective_of_its_own(bench: Bench) -> None:
    kinds = {
        bench.config(FINE if sets is None else sets, 3, 7).model_dump_json()
        for sets in ARMS.values()
    }
    assert len(kinds) == len(ARMS)


def test_the_table_compares_with_fine_tuning_alone_seed_by_seed(bench: Bench) -> None:
    def write(name: str, seed: int, first: int) -> None:
        folder = bench.folder(name, seed)
        folder.mkdir()
        ranks = [0] * first + [99] * (10 - first)
        result = {"steps": [5, 10], "cpu_seconds": [1.0, 2.0], "ranks": ranks}
        result |= {"text_to_image": 10.0 * first, "image_to_text": 50.0}
        (folder / "result.json").write_text(json.dumps(result))

    for seed in (0, 1):
        write(ALONE_ARM, seed, 4)
        write("ITC", seed, 6 + seed)
    write("ITC, MLM", 0, 3)
    rows = {line.split(" | ")[0][2:]: line.split(" | ")[1:] for line in table(bench, (0, 1))}
    assert rows[ALONE_ARM][:4] == ["2", "40.0 ± 0.0", "50.0 ± 0.0", ""]
    assert rows["ITC"][1] == "65.0 ± 7.1"
    assert rows["ITC"][3].startswith("+25.00 (+")
    assert rows["ITC, MLM"][0] == "1"
    assert rows["ITC, MLM"][3].startswith("-10.00 (")
    assert "ITC, ITM" not in rows


def test_what_is_done_is_kept(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"one": 1}

    path = tmp_path / "deep/result.json"
    path.parent.mkdir()
    assert kept(path, make) == kept(path, make) == {"one": 1}
    assert made == [1]


@pytest.mark.parametrize(("before", "seconds"), [(300, 20.0), (0, 5.0), (400, 12.5)])
def test_the_seconds_of_a_run_that_went_on_are_those_of_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, seconds: float
) -> None:
    """5 s of this sitting for 100 steps of 400, for all of them, and for none."""
    (tmp_path / "last").mkdir()
    (tmp_path / "config.yaml").touch()
    (tmp_path / "last/state.json").write_text(json.dumps({"step": before}))
    ended = TrainResult(tmp_path, 400, 400, False, None, None, 12.5)
    clock = iter([10.0, 15.0])
    monkeypatch.setattr(trials, "check_start", lambda config: None)
    monkeypatch.setattr(trials, "resume_run", lambda *args: ended)
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    assert trials.train(RunConfig(), None, tmp_path) == (ended, seconds)  # type: ignore[arg-type]


def test_a_page_keeps_what_is_around_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- some: begin -->\nold\n<!-- some: end -->\nafter\n")
    for lines in (["first"], ["new", "lines"]):
        write_page(page, "some", lines)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "new\nlines" in text
    assert "first" not in text
    assert "old" not in text
