from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bagformer_cli.bench import maxsim as bench
from bagformer_cli.bench import maxsim_agreement, maxsim_stream
from bagformer_cli.bench import plain_maxsim as plain
from bagformer_cli.interaction import maxsim


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PEAK_SHAPES", ((64, 64, 64),))


def test_plain_ways_and_ours_agree_where_padding_does_not_win() -> None:
    load = bench.Workload.make(titles=5, images=6, patches=7, dim=8)
    # All products positive: a zero vector of the padding is then never the largest.
    load.texts.values.abs_()
    load.images.values.abs_()
    dense = load.images.values.view(6, 7, 8)
    padded = plain.pad(load.texts, 25)
    t2i, i2t = maxsim(load.texts, load.images)
    for found in (
        plain.original_t2i(padded, dense),
        plain.original_t2i(load.texts.to_list(), dense),
        plain.einsum_t2i(padded, dense, chunk=4),
        plain.einsum_both(padded, dense, chunk=4)[0],
        plain.packed(load.texts, load.images, 1 << 20)[0],
    ):
        torch.testing.assert_close(found, t2i)
    for found in (
        plain.original_i2t(padded, dense),
        plain.einsum_both(padded, dense, chunk=4)[1],
        plain.packed(load.texts, load.images, 1 << 20)[1],
    ):
        torch.testing.assert_close(found, i2t)


def test_titles_have_two_to_twenty_five_bags_ten_in_the_mean() -> None:
    lengths = bench.Workload.make(titles=2000, images=1, patches=1, dim=2).texts.lengths
    assert 2 <= int(lengths.min()) <= 3
    assert 20 <= int(lengths.max()) <= 25
    assert float(lengths.float().mean()) == pytest.approx(10, abs=0.5)


def test_the_table_has_a_row_for_every_way_and_type() -> None:
    rows = bench.run(titles=4, images=6, patches=5, dim=8, batch=4, rounds=1)
    groups = {row.group for row in rows}
    assert groups == {"titles to images", "both directions", "loss, forward and backward"}
    for group in groups:
        assert next(row for row in rows if row.group == group).speedup == 1
    ours = {(row.group, row.dtype) for row in rows if row.name.startswith("ours")}
    assert ours == {
        ("titles to images", "float32"),
        ("titles to images", "bfloat16"),
        ("titles to images", "int8"),
        ("both directions", "float32"),
        ("both directions", "bfloat16"),
        ("both directions", "int8"),
        ("loss, forward and backward", "float32"),
    }
    assert all(row.seconds > 0 and row.gflops > 0 and row.peak_share > 0 for row in rows)
    assert len(bench.run(titles=4, images=6, patches=5, dim=8, batch=0, rounds=1)) == len(rows) - 3


def test_the_machine_is_described() -> None:
    found = bench.machine()
    assert found["threads"] == str(torch.get_num_threads())
    assert found["float32"].startswith(("fp32", "in lanes"))


def test_a_catalogue_on_disk_is_written_once_and_streamed(tmp_path: Path) -> None:
    sizes = {"titles": 5, "images": 40, "patches": 3, "dim": 8, "budget": 1 << 10}
    first = maxsim_stream.run(tmp_path, **sizes)
    (written,) = tmp_path.iterdir()
    assert written.stat().st_size == 40 * 3 * 8 * 2
    stamp = written.stat().st_mtime_ns
    again = maxsim_stream.run(tmp_path, **sizes, dtype=torch.int8)
    assert written.stat().st_mtime_ns == stamp
    assert (first.dtype, again.dtype) == ("bfloat16", "int8")
    assert first.seconds > 0
    assert first.original_seconds > 0


def test_agreement_grows_with_precision_and_rescoring() -> None:
    load = bench.Workload.make(titles=50, images=1500, patches=17, dim=64)
    found = {(a.dtype, a.oversample): a.top for a in maxsim_agreement.run(load.texts, load.images)}
    assert found["bfloat16", 0] > found["int8", 0] > 0.8
    assert found["bfloat16", 0] < 1
    assert found["int8", 4] == found["bfloat16", 4] == 1
