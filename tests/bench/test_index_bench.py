"""``xmr bench index``: what its tables say, on a catalogue that is small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bagformer_cli.bench import index as bench
from bagformer_cli.cli.main import main


@pytest.mark.parametrize("products", ["parts", "kinds"])
def test_every_way_is_measured_against_the_exact_ten(
    tmp_path: Path, products: bench.Products
) -> None:
    report = bench.run(tmp_path, items=400, length=6, dim=32, queries=6, products=products)
    assert set(report.build) == {"rows", "optimize"}
    exact, through, tokens, vector = report.rows
    assert exact.recall == through.recall == 1
    assert exact.faster == 1
    assert 0.5 < tokens.recall <= 1
    assert 0 < vector.recall <= 1
    assert all(0 < row.p50 <= row.p95 for row in report.rows)
    assert report.beside == []
    assert (
        bench.run(tmp_path, items=400, length=6, dim=32, queries=2, products=products).build == {}
    )


def test_a_pair_is_ours_that_finds_no_less_and_takes_least() -> None:
    rows = [
        bench.Row("ours", 0.99, 10.0, 12.0, 1.0),
        bench.Row("ours, few", 0.8, 2.0, 3.0, 5.0),
        bench.Row("theirs, quick", 0.7, 8.0, 9.0, 1.2),
        bench.Row("theirs, slow", 0.9, 50.0, 60.0, 0.2),
        bench.Row("theirs, best", 1.0, 90.0, 99.0, 0.1),
    ]
    quick, slow = bench._beside(rows, ["theirs, quick", "theirs, slow", "theirs, best"])
    assert (quick.theirs, quick.ours, quick.faster) == ("theirs, quick", "ours, few", 4.0)
    assert (slow.ours, slow.our_recall, slow.faster) == ("ours", 0.99, 5.0)


def test_the_command_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "index", "--items", "600", "--length", "6", "--dim", "32", "--queries", "4",
               "--folder", str(tmp_path), "--lancedb-lists"]  # fmt: skip
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["index"]
    theirs = [row for row in report["rows"] if row["name"].startswith("LanceDB")]
    assert theirs
    ours = max(row["recall"] for row in report["rows"] if row["name"] == "index, tokens")
    best = max(row["recall"] for row in theirs)
    assert best >= ours or len(theirs) == len(bench.SETTINGS)
    for pair in report["beside"]:
        assert pair["our_recall"] >= pair["their_recall"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "recall@10" in shown
    assert "× LanceDB" in shown
