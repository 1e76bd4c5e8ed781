"""The MaxSim experiments: the pass over a file, and agreement with float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.interaction import maxsim
from maxsim_agreement import main as print_agreement
from maxsim_agreement import measure_agreement
from maxsim_stream import Sizes, make_catalogue, measure_pass

SIZES = Sizes(titles=5, images=40, patches=3, dim=8)


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagformer_cli.bench.cpu_clock.PEAK_SHAPES", ((64, 64, 64),))


def test_a_pass_keeps_the_best_scores_of_the_whole_matrix(tmp_path: Path) -> None:
    found = measure_pass(tmp_path, SIZES)
    texts = Workload.make(5, 1, 3, 8).texts.to(dtype=torch.bfloat16)
    t2i, i2t = maxsim(texts, make_catalogue(tmp_path, SIZES))
    torch.testing.assert_close(found.title_best, t2i.sort(1, descending=True).values[:, :10])
    torch.testing.assert_close(found.image_best, i2t.sort(1, descending=True).values)


def test_the_catalogue_is_written_once(tmp_path: Path) -> None:
    make_catalogue(tmp_path, SIZES)
    (written,) = tmp_path.iterdir()
    assert written.stat().st_size == 40 * 3 * 8 * 2
    stamp = written.stat().st_mtime_ns
    make_catalogue(tmp_path, SIZES)
    assert written.stat().st_mtime_ns == stamp


def test_agreement_grows_with_precision_and_rescoring() -> None:
    load = Workload.make(titles=50, images=1500, patches=17, dim=64)
    rows = measure_agreement(load.texts, load.images)
    share = {(row.dtype, row.oversample): row.share for row in rows}
    assert share["bfloat16", 0] > share["int8", 0] > 0.8
    assert share["bfloat16", 0] < 1
    assert share["int8", 4] == share["bfloat16", 4] == 1


def test_the_agreement_table_has_a_row_for_every_type_and_oversampling(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_agreement(["--images", "30"])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [[f"| {t}", n] for t in ("bfloat16", "int8") for n in ("0", "2", "4")]
