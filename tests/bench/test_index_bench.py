"""``xmr bench index``: its figures, on a catalogue that is small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

from bagformer_cli.bench import index as bench
from bagformer_cli.bench.generated_catalogue import GeneratedCatalogue, Products
from bagformer_cli.cli.main import main


@pytest.mark.parametrize("products", ["parts", "kinds"])
def test_every_method_is_measured_against_the_ten_exact_results(
    tmp_path: Path, products: Products
) -> None:
    catalogue = GeneratedCatalogue(400, 6, 32, products)
    report = bench.run(tmp_path, catalogue, queries=6)
    assert set(report.build) == {"rows", "optimize"}
    exact, through, tokens, vector = report.rows
    assert exact.recall == through.recall == 1
    assert exact.faster == 1
    assert 0.5 < tokens.recall <= 1
    assert 0 < vector.recall <= 1
    for row in report.rows:
        assert row.p50 <= row.p95
        assert row.faster == pytest.approx(exact.p50 / row.p50)
    assert report.comparisons == []
    assert bench.run(tmp_path, catalogue, queries=2).build == {}  # the index is used again


def test_the_fastest_of_ours_that_finds_no_less_is_compared() -> None:
    rows = [
        bench.Row("ours", 0.99, 10.0, 12.0, 1.0),
        bench.Row("ours, few", 0.8, 2.0, 3.0, 5.0),
        bench.Row("theirs, quick", 0.7, 8.0, 9.0, 1.2),
        bench.Row("theirs, slow", 0.9, 50.0, 60.0, 0.2),
        bench.Row("theirs, best", 1.0, 90.0, 99.0, 0.1),
    ]
    quick, slow = bench.compare(rows, ["theirs, quick", "theirs, slow", "theirs, best"])
    assert (quick.theirs, quick.ours, quick.faster) == ("theirs, quick", "ours, few", 4.0)
    assert (slow.ours, slow.our_recall, slow.faster) == ("ours", 0.99, 5.0)


def test_lancedb_settings_are_tried_until_one_finds_what_ours_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = GeneratedCatalogue(400, 6, 32)
    exact: list[Any] = []
    scan = bench._scan

    def remember(*arguments: Any) -> Any:
        exact.append(scan(*arguments))
        return exact[-1]

    def settings(*_: Any) -> Any:
        yield (16, 10), lambda n: exact[n][:2]  # finds two of ten
        yield (32, 20), lambda n: exact[n]  # finds all
        pytest.fail("a setting was tried although the one before found enough")

    monkeypatch.setattr(bench, "_scan", remember)
    monkeypatch.setattr(bench, "_lancedb_table", lambda *_: None)
    monkeypatch.setattr(bench, "_lancedb_methods", settings)
    report = bench.run(tmp_path, catalogue, queries=4, lancedb_lists=True)
    theirs = {row.name: row.recall for row in report.rows if row.name.startswith("LanceDB")}
    assert theirs == {
        "LanceDB's multi-vectors, nprobes 16, refine 10": pytest.approx(0.2),
        "LanceDB's multi-vectors, nprobes 32, refine 20": pytest.approx(1.0),
    }
    assert [pair.theirs for pair in report.comparisons] == list(theirs)
    assert all(pair.our_recall >= pair.their_recall for pair in report.comparisons)


def test_the_command_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "index", "--items", "600", "--length", "6", "--dim", "32", "--queries", "4",
               "--folder", str(tmp_path), "--lancedb-lists"]  # fmt: skip
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["index"]
    assert any(row["name"].startswith("LanceDB") for row in report["rows"])
    assert report["comparisons"]
    for pair in report["comparisons"]:
        assert pair["our_recall"] >= pair["their_recall"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "recall@10" in shown
    assert "× LanceDB" in shown
