"""Trials: a result is made once, names are checked, tables reach a page; texts of the programs."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path

import pytest

import trials
from bagformer_cli.config import RunConfig
from bagformer_cli.errors import InputError
from bagformer_cli.training.train_result import TrainResult
from tests.support.sources import PACKAGE

FOLDER = PACKAGE.parent / "docs" / "experiments"
PROGRAMS = [path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_shows_its_command(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    assert f"    python docs/experiments/{path.name}" in text


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_page_names_every_file(page: str) -> None:
    text = (FOLDER / page).read_text("utf-8")
    assert not [path.name for path in FOLDER.glob("*.py") if f"`{path.name}`" not in text]


class Counted(trials.TrialFolder):
    """Trials that count how often they are measured."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.measured: list[tuple[str, int]] = []

    def measure(self, name: str, seed: int) -> trials.Result:
        self.measured.append((name, seed))
        return {"seed": seed}


def test_a_trial_is_measured_once_and_found_by_its_name_and_seed(tmp_path: Path) -> None:
    folder = Counted(tmp_path)
    for name, seed in (("a, b", 0), ("a, b", 2), ("c", 2), ("a, b", 0)):
        assert folder.run(name, seed) == {"seed": seed}
    assert folder.measured == [("a, b", 0), ("a, b", 2), ("c", 2)]
    assert folder.results("a, b", range(3)) == [{"seed": 0}, {"seed": 2}]
    assert folder.finished(["a, b"], range(3)) == [0, 2]
    assert folder.finished(["a, b", "c"], range(3)) == [2]
    assert (tmp_path / "a__b-2" / "result.json").is_file()


def test_names_are_split_at_semicolons_and_unknown_ones_are_refused() -> None:
    split = trials.names_among(["cls", "ITC, MLM"])
    assert split("ITC, MLM; cls") == ["ITC, MLM", "cls"]
    with pytest.raises(argparse.ArgumentTypeError, match="'itc' is none of: cls; ITC, MLM"):
        split("cls;itc")


def test_a_page_without_the_marks_is_refused_and_unchanged(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- other: begin -->\n<!-- other: end -->\n")
    with pytest.raises(InputError, match="no place for the tables"):
        trials.replace_section(page, "some", ["new"])
    assert "new" not in page.read_text()


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"one": 1}

    path = tmp_path / "deep/result.json"
    assert trials.load_or_make(path, make) == trials.load_or_make(path, make) == {"one": 1}
    assert made == [1]


@pytest.mark.parametrize(("before", "seconds"), [(300, 20.0), (0, 5.0), (400, 12.5)])
def test_a_resumed_run_counts_the_seconds_of_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, seconds: float
) -> None:
    """5 s in this process for 100 steps of 400, for all 400, and for none (the run's own 12.5)."""
    (tmp_path / "last").mkdir()
    (tmp_path / "config.yaml").touch()
    (tmp_path / "last/state.json").write_text(json.dumps({"step": before}))
    ended = TrainResult(tmp_path, 400, 400, 0, False, None, None, 12.5)
    clock = iter([10.0, 15.0])
    monkeypatch.setattr(trials, "check_start", lambda config: None)
    monkeypatch.setattr(trials, "resume_run", lambda *args: ended)
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    assert trials.train(RunConfig(), None, tmp_path) == (ended, seconds)  # type: ignore[arg-type]


def test_only_the_text_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- some: begin -->\nold\n<!-- some: end -->\nafter\n")
    for lines in (["first"], ["new", "lines"]):
        trials.replace_section(page, "some", lines)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "new\nlines" in text
    assert "first" not in text
    assert "old" not in text
