"""The comparison at equal total steps: chains are complete, priced once, and compared by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import equal_steps
from chinese import chinese
from equal_steps import (
    CLAIMED,
    COMPARED,
    MODES,
    PHASES,
    comparisons,
    differences_table,
    results_table,
)
from methods import METHODS
from region_trials import Method, Trials


def with_results(folder: Path, recalls: dict[str, list[float]]) -> Trials:
    """Write results of the modes: recall by seed; 100 steps and 7 CPU seconds each."""
    trials = Trials(folder, folder, MODES, steps=100)
    for name, found in recalls.items():
        for seed, value in enumerate(found):
            path = trials.folder(name, seed) / "result.json"
            path.parent.mkdir(parents=True)
            result = {
                "text_to_image": value,
                "image_to_text": value,
                "vectors": [1.0, 2.0],
                "image_bytes": 8.0,
                "query_ms": 0.5,
                "steps": 100 * MODES[name].stages,
                "cpu_seconds": 7.0,
            }
            path.write_text(json.dumps(result), encoding="utf-8")
    return trials


def test_every_method_comes_after_its_teachers_and_every_pair_is_trained() -> None:
    for methods in (MODES, METHODS):
        names = list(methods)
        for name, method in methods.items():
            assert all(names.index(earlier) < names.index(name) for earlier in method.earlier)
    order = [name for phase in PHASES for name in phase]
    assert set(order) == set(MODES)
    for name, method in MODES.items():
        assert all(order.index(earlier) < order.index(name) for earlier in method.earlier)
    assert {name for pair in COMPARED for name in pair} <= set(MODES)


def test_a_student_keeps_as_many_vectors_as_its_base() -> None:
    for count in (4, 8, 16, 32):
        kept = f"model.keep={count}"
        assert kept in MODES[f"base {count}"].sets
        assert kept in MODES[f"shrinktobase {count}"].sets
        teacher = MODES[f"shrinktobase {count}"].teacher
        assert teacher is not None
        assert {kept, f"model.codes={count}"} <= set(MODES[teacher].sets)


def test_the_claims_compare_chains_of_equally_many_stages() -> None:
    def stages(name: str) -> int:
        method = MODES[name]
        own = method.stages if method.cross_encoder is None else 0
        return own + sum(stages(earlier) for earlier in method.earlier)

    unequal = {(a, b) for a, b in CLAIMED if stages(a) != stages(b)}
    # What a second stage adds to the first one: claimed as such, not at equal steps.
    assert unequal == {("fast, steps × 3 + captioner rerank", "fast, steps × 3")}


def test_the_chinese_table_has_every_name_with_its_length() -> None:
    row = "| **alignment, steps × 2** | fast, steps × 3 + captioner rerank | base 4, steps × 3 |"
    assert chinese([row]) == [
        "| **对齐，步数 × 2** | fast，步数 × 3 + 描述生成器精排 | base 4，步数 × 3 |"
    ]
    assert not [name for name in MODES if ", steps" in chinese([f"| {name} |"])[0]]


def test_an_unknown_method_is_refused_before_the_dataset_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dataset", "nowhere", "--methods", "fast; inflate 5"]
    monkeypatch.setattr("sys.argv", ["equal_steps.py", *options])
    with pytest.raises(SystemExit) as ended:
        equal_steps.main()
    assert ended.value.code == 2
    assert "'inflate 5' is none of: fast; " in capsys.readouterr().err


def test_a_chain_costs_each_of_its_models_once(tmp_path: Path) -> None:
    chain = ["inflate 4 + 4", "shrinktobase 4", "shrinktofast of 4"]
    trials = with_results(tmp_path, {name: [50.0] for name in chain})
    assert trials.price("shrinktofast of 4", 0) == (300, 21.0)
    trials.methods = {**MODES, "both": Method(teacher=chain[2], cross_encoder=chain[0])}
    path = trials.folder("both", 0) / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"steps": 0, "cpu_seconds": 1.0}', encoding="utf-8")
    assert trials.price("both", 0) == (300, 22.0)


def test_differences_are_of_the_seeds_that_both_have(tmp_path: Path) -> None:
    recalls = {"base 4": [40.0, 41.0, 42.0], "inflate 4 + 4": [50.0, 52.0], "base 8": [60.0]}
    trials = with_results(tmp_path, recalls)
    lines = differences_table(trials, comparisons(trials, range(5)))
    assert len(lines) == 3  # base 8 has one seed: no interval
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:5] == ["**inflate 4 + 4**", "**base 4**", "100 / 100", "7 / 7", "2"]
    assert cells[5].startswith("+10.50 (+4.15 … +16.85")
    assert cells[6] == "yes"
    assert [line.split("|")[1].strip() for line in results_table(trials, range(5))[2:]] == [
        "base 4",
        "inflate 4 + 4",
        "base 8",
    ]
