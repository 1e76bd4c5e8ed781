"""The comparison of training modes: configurations, references between rows, tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bagformer_cli.config import load_config
from methods import METHODS, ORDERINGS, orderings_table, results_table
from region_trials import CONFIG, Trials


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].mode])
def test_every_method_is_a_valid_configuration(name: str) -> None:
    method = METHODS[name]
    load_config(CONFIG, list(method.sets), method.mode)  # raises if mode and config do not fit


def test_methods_refer_to_rows_above_them() -> None:
    names = list(METHODS)
    for place, method in enumerate(METHODS.values()):
        for other in (method.teacher, method.cross_encoder):
            assert other is None or names.index(other) < place
    assert {name for pair in ORDERINGS for name in pair} <= set(METHODS)


def test_the_tables_have_the_rows_that_are_done(tmp_path: Path) -> None:
    trials = Trials(tmp_path, tmp_path / "data", METHODS, steps=400)

    def write(name: str, seed: int, hits: int) -> None:
        folder = trials.folder(name, seed)
        folder.mkdir(parents=True)
        result = {"steps": 400, "cpu_seconds": 20.0 + seed, "ranks": [0] * hits + [99] * (9 - hits)}
        result |= {"text_to_image": 10.0 * hits, "image_to_text": 50.0, "query_ms": 0.5}
        result |= {"vectors": [1.0, 2.0], "image_bytes": 64.0}
        (folder / "result.json").write_text(json.dumps(result))

    for seed in (0, 1):
        write("fast", seed, 2)
        write("base", seed, 8)
    write("inflate", 0, 8)
    rows = results_table(trials, (0, 1))[2:]
    assert rows[0] == "| fast | 2 | 20.0 ± 0.0 | 50.0 ± 0.0 | 1.0 / 2.0 | 64 | 0.50 | 400 | 20 |"
    assert [row.split(" | ")[0] for row in rows] == ["| fast", "| base", "| inflate"]
    ordered = [row.split(" | ") for row in orderings_table(trials, (0, 1))[2:]]
    assert [row[:3] for row in ordered] == [["| inflate", "base", "1"], ["| base", "fast", "2"]]
    assert ordered[0][3:] == ["+0.00 (+0.00 … +0.00)", "**no** |"]
    assert ordered[1][4] == "yes |"
