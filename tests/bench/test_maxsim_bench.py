"""The MaxSim benchmark: references agree, rows are complete, figures follow from times."""

from __future__ import annotations

import pytest
import torch

from bagformer_cli.bench import cpu_clock
from bagformer_cli.bench import maxsim as bench
from bagformer_cli.bench import plain_maxsim as plain
from bagformer_cli.interaction import maxsim
from bagformer_cli.interaction.kernels.avx512.scores import supported

SIZES = bench.Sizes(titles=4, images=6, patches=5, dim=8, batch=4)


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_clock, "PEAK_SHAPES", ((64, 64, 64),))


def test_references_and_ours_agree_where_padding_is_never_the_maximum() -> None:
    load = bench.Workload.make(titles=5, images=6, patches=7, dim=8)
    # All products are positive, so a zero vector of the padding is never the maximum.
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
        plain.packed(load.texts, load.images)[0],
    ):
        torch.testing.assert_close(found, t2i)
    for found in (
        plain.original_i2t(padded, dense),
        plain.einsum_both(padded, dense, chunk=4)[1],
        plain.packed(load.texts, load.images)[1],
    ):
        torch.testing.assert_close(found, i2t)


def test_titles_have_two_to_twenty_five_bags_ten_on_average() -> None:
    lengths = bench.Workload.make(titles=2000, images=1, patches=1, dim=2).texts.lengths
    assert 2 <= int(lengths.min()) <= 3
    assert 20 <= int(lengths.max()) <= 25
    assert float(lengths.float().mean()) == pytest.approx(10, abs=0.5)


def test_the_table_has_a_row_for_every_implementation_and_type() -> None:
    rows = bench.run(SIZES, rounds=1)
    assert [(row.group, row.name, row.dtype) for row in rows] == [
        ("titles to images", "original loop, padded to 25", "float32"),
        ("titles to images", "the same without padding", "float32"),
        ("titles to images", "einsum in chunks", "float32"),
        ("titles to images", "ours", "float32"),
        ("titles to images", "ours", "bfloat16"),
        ("titles to images", "ours", "int8"),
        ("both directions", "two original loops, padded to 25", "float32"),
        ("both directions", "packed, plain torch", "float32"),
        ("both directions", "ours, one pass", "float32"),
        ("both directions", "ours, one pass", "bfloat16"),
        ("both directions", "ours, one pass", "int8"),
        ("loss, forward and backward", "original loops", "float32"),
        ("loss, forward and backward", "einsum in chunks", "float32"),
        ("loss, forward and backward", "ours", "float32"),
    ]


def test_speeds_follow_from_the_median_time() -> None:
    load = bench.Workload.make(titles=4, images=6, patches=5, dim=8)
    rows = bench.run(SIZES, rounds=3)
    original = {row.group: row.seconds for row in reversed(rows) if "original" in row.name}
    for row in rows:
        loss = row.group.startswith("loss")
        operations = 3 * loss_operations() if loss else load.operations
        assert row.pairs_per_second == pytest.approx((16 if loss else 24) / row.seconds)
        assert row.gflops == pytest.approx(operations / row.seconds / 1e9)
        assert row.speedup == pytest.approx(original[row.group] / row.seconds)


def loss_operations() -> float:
    return bench.Workload.make(titles=4, images=4, patches=5, dim=8).operations


def test_without_a_batch_the_loss_is_left_out() -> None:
    rows = bench.run(SIZES._replace(batch=0), rounds=1)
    assert {row.group for row in rows} == {"titles to images", "both directions"}


def test_the_machine_is_described() -> None:
    found = bench.machine()
    assert found["threads"] == str(torch.get_num_threads())
    assert found["float32"].endswith("float32 by torch.mm")
    assert found["float32"].startswith("AVX-512 registers") == supported(torch.float32)
