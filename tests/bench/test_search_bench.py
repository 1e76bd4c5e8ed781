"""The search benchmark over a generated catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bagformer_cli.bench import exact_search as bench
from bagformer_cli.cli.main import main
from bagformer_cli.interaction import MultiVectors
from bagformer_cli.interaction.topk import topk


def test_the_catalogue_is_written_once_and_clustered(tmp_path: Path) -> None:
    stored = bench.catalogue(tmp_path, 300, 4, 64)
    (written,) = tmp_path.iterdir()
    stamp = (written / "values.npy").stat().st_mtime_ns
    again = bench.catalogue(tmp_path, 300, 4, 64)
    assert torch.equal(stored.values, again.values)
    assert (written / "values.npy").stat().st_mtime_ns == stamp
    items = stored.to(dtype=torch.float32).values.view(300, 4 * 64)
    alike = torch.corrcoef(items).fill_diagonal_(0)
    assert (alike.amax(1) > 0.5).float().mean() > 0.5  # most have a close neighbour
    assert alike.mean() < 0.2  # nearly all others are far


def test_the_table_compares_each_search_with_reading_the_bytes(tmp_path: Path) -> None:
    rows = bench.run(tmp_path, items=200, length=4, dim=64, rounds=1)
    size, bags = 200 * 4 * 64, [0, 10 * bench.QUERIES, 10]
    assert len(rows) == 3
    for row, count in zip(rows, bags, strict=True):
        assert row.times_reading == pytest.approx(row.seconds / rows[0].seconds)
        assert row.gigabytes == pytest.approx(size / row.seconds / 1e9)
        assert row.gflops == pytest.approx(2e-9 * count * size / row.seconds)


def test_the_first_stage_is_timed_and_has_a_recall(tmp_path: Path) -> None:
    rows = bench.run(tmp_path, items=200, length=4, dim=64, rounds=1, first_stage=True)
    assert [row.recall for row in rows] == [None, None, None, 1.0]  # it scores 1,000 candidates
    assert rows[-1].gflops is None
    (kept,) = tmp_path.glob("tokens-*/numbers.npy")
    stamp = kept.stat().st_mtime_ns
    bench.run(tmp_path, items=200, length=4, dim=64, rounds=1, first_stage=True)
    assert kept.stat().st_mtime_ns == stamp


def test_results_are_exact_and_the_check_can_fail(tmp_path: Path) -> None:
    stored = bench.catalogue(tmp_path, 500, 4, 64)
    asked = bench.queries_for(stored, bench.query_lengths(bench.QUERIES))
    assert len(asked.values) == 10 * bench.QUERIES
    found = topk(asked, stored, 10)
    assert bench.is_exact(asked, stored, found)
    assert not bench.is_exact(asked, stored, (found[0], found[1].flip(1)))
    worse = MultiVectors(stored.values, stored.offsets, torch.ones(500))
    assert not bench.is_exact(asked, worse, found)


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "search", "--items", "30", "--folder", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["search"]
    assert len(rows) == 3
    assert rows[0]["times_reading"] == 1
