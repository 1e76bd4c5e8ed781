"""The comparison of interactions: its tables and its figure follow the finished trials."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from bagformer_cli.data.query_sets import FILE_NAME, QuerySet, sets_text
from interactions import (
    ARMS,
    COMPARED,
    COMPARED_SETS,
    PLOTTED,
    Trials,
    differences_table,
    plot,
    recall_table,
)

SETS = ("mixed", "one", "two", "three", "exchanged", "parts", "titles", "unseen")
LATE = "bag-wise without ITC and class vector"


def with_results(folder: Path, recalls: dict[str, list[float]]) -> Trials:
    """Write finished trials: recall by seed; a set's recall is a point below that of the last."""
    trials = Trials(folder, "none", (2, 1), pool=80)
    (folder / "benchmark-80").mkdir()
    sets = sets_text({"test": {name: QuerySet((1,)) for name in SETS}})
    (folder / "benchmark-80" / FILE_NAME).write_text(sets, encoding="utf-8")
    for name, found in recalls.items():
        for seed, value in enumerate(found):
            trial = trials.folder(name, seed)
            trial.mkdir()
            result = {"vectors": [3.0, 64.0], "cpu": [20.0, 30.0 + seed]}
            (trial / "result.json").write_text(json.dumps(result), encoding="utf-8")
            by_set = {one: value - place for place, one in enumerate(SETS)}
            (trial / "sets-80.json").write_text(json.dumps(by_set), encoding="utf-8")
    return trials


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_compared_and_plotted_arm_is_trained() -> None:
    assert {arm for pair in COMPARED for arm in pair} <= set(ARMS)
    assert set(PLOTTED) < set(ARMS)
    assert len(set(ARMS.values())) == len(ARMS)


def test_an_arm_has_its_recall_on_each_set(tmp_path: Path) -> None:
    trials = with_results(tmp_path, {"cls": [40.0, 41.0, 42.0]})
    header, _, row = recall_table(trials, list(ARMS), range(5))
    assert cells(header)[4:] == list(SETS)
    assert cells(row)[:6] == ["cls", "3", "3.0 / 64.0", "51", "41.0", "40.0"]


def test_arms_are_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    recalls = {"cls": [40.0, 41.0, 42.0], LATE: [50.0, 52.0], "bag-wise, ITC 1": [39.0]}
    trials = with_results(tmp_path, recalls)
    header, _, *rows = differences_table(trials, range(5))
    assert cells(header)[3:] == [f"A − B, {name}" for name in COMPARED_SETS]
    assert [cells(row)[:3] for row in rows] == [[LATE, "cls", "2"]]
    assert cells(rows[0])[3].startswith("+10.50 (+4.15 … +16.85")


def test_the_figure_has_a_point_for_each_set_and_arm(tmp_path: Path) -> None:
    recalls = {"cls": [40.0, 41.0], LATE: [50.0, 52.0], "bag-wise, ITC 1": [39.0, 41.0]}
    plot(with_results(tmp_path, recalls), range(2), tmp_path / "p.svg")
    root = ElementTree.parse(tmp_path / "p.svg").getroot()
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(SETS) * 2  # the third arm has no result
