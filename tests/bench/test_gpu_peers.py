"""The libraries that MaxSim is compared with on a GPU, by stand-ins on the CPU."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from bagformer_cli.bench import gpu_peers
from bagformer_cli.bench import maxsim as bench
from bagformer_cli.bench.gpu_clock import GpuClock
from bagformer_cli.bench.plain_maxsim import symmetric_loss
from bagformer_cli.cli.main import main
from bagformer_cli.interaction import maxsim

SIZES = bench.Sizes(titles=4, images=6, patches=5, dim=8, batch=4)
LIBRARIES = {
    "late_interaction_kernels": """
import torch
def maxsim(Q, D, q_mask=None, d_mask=None):
    products = torch.einsum("qld,npd->qnlp", Q, D).float()
    if d_mask is not None:
        products = products.masked_fill(~d_mask[None, :, None, :], -torch.inf)
    best = products.amax(3)
    return (best if q_mask is None else best * q_mask[:, None]).sum(2)
""",
    "flash_maxsim": """
import torch
def flash_maxsim_batched(Q, D, doc_lengths=None, shared_docs=True, query_lengths=None):
    real = torch.arange(Q.shape[1]) < query_lengths[:, None]
    return (torch.einsum("qld,npd->qnlp", Q, D).float().amax(3) * real[:, None]).sum(2)
""",
}


CPU = torch.device("cpu")


@pytest.fixture
def _libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install stand-ins with the signatures of the libraries."""
    for name, source in LIBRARIES.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def _none_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_peers, "find_spec", lambda _: None)


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "GpuClock", partial(GpuClock, square=32))


@pytest.mark.usefixtures("_libraries")
def test_the_libraries_are_called_for_the_scores_that_we_compute() -> None:
    load = bench.Workload.make(titles=5, images=6, patches=7, dim=8)
    t2i, i2t = maxsim(load.texts, load.images)
    one, late, both, flash = gpu_peers.peers(load.texts, load.images)
    for peer in (one, late, flash):
        assert not peer.both
        torch.testing.assert_close(peer.run(), t2i)
    assert both.both
    torch.testing.assert_close(both.run(), (t2i, i2t))


@pytest.mark.usefixtures("_libraries")
def test_the_loss_of_a_library_gives_gradients_of_all_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = bench.Workload.make(titles=4, images=4, patches=5, dim=8)
    losses: list[float] = []

    def loss(t2i: torch.Tensor, i2t: torch.Tensor) -> torch.Tensor:
        assert t2i.requires_grad
        assert i2t.requires_grad
        found = symmetric_loss(t2i, i2t)
        losses.append(float(found.detach()))
        return found

    (peer,) = gpu_peers.loss_peers(load.texts, load.images, loss)
    peer.run()
    peer.run()
    assert losses == [pytest.approx(float(symmetric_loss(*maxsim(load.texts, load.images))))] * 2
    assert load.texts.values.grad is None  # the peer has copies


@pytest.mark.usefixtures("_libraries")
def test_on_a_gpu_the_table_of_maxsim_has_the_libraries() -> None:
    rows = bench.run(SIZES, rounds=1, device=CPU)
    assert [(row.group, row.name, row.dtype) for row in rows if "," in row.name] == [
        ("titles to images, GPU", "original loop, padded to 25", "float32"),
        ("titles to images, GPU", "packed mm + amax, one direction", "bfloat16"),
        ("titles to images, GPU", "late-interaction-kernels, one direction", "bfloat16"),
        ("titles to images, GPU", "flash-maxsim, one direction", "bfloat16"),
        ("both directions, GPU", "two original loops, padded to 25", "float32"),
        ("both directions, GPU", "packed, plain torch", "float32"),
        ("both directions, GPU", "ours, one pass", "float32"),
        ("both directions, GPU", "ours, one pass", "bfloat16"),
        ("both directions, GPU", "ours, one pass", "int8"),
        ("both directions, GPU", "late-interaction-kernels, two calls", "bfloat16"),
        ("loss, forward and backward, GPU", "late-interaction-kernels, two calls", "float32"),
    ]
    assert not [row.failure for row in rows if row.failure]
    assert all(row.seconds and row.peak_share and row.speedup for row in rows)


@pytest.mark.usefixtures("_none_installed")
def test_a_library_that_is_missing_is_said_to_be_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = bench.run(SIZES, rounds=1, device=CPU)
    missing = [row for row in rows if row.failure]
    assert [row.name.partition(",")[0] for row in missing] == [
        "late-interaction-kernels", "flash-maxsim", "late-interaction-kernels",
        "late-interaction-kernels",
    ]  # fmt: skip
    assert {(row.failure, row.seconds, row.pairs_per_second) for row in missing} == {
        ("not installed", None, None)
    }
    monkeypatch.setattr(bench, "run_here", lambda _: rows)
    assert main(["bench", "maxsim"]) == 0
    assert capsys.readouterr().out.count("not installed") == 4
    assert main(["bench", "maxsim", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["maxsim"]
    assert [row["failure"] for row in found].count("not installed") == 4


@pytest.mark.usefixtures("_libraries")
def test_a_library_that_fails_is_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    library = importlib.import_module("flash_maxsim")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(library, "flash_maxsim_batched", fail)
    rows = bench.run(SIZES, rounds=1, device=CPU)
    (row,) = [row for row in rows if row.failure]
    assert (row.name, row.failure) == (
        "flash-maxsim, one direction", "RuntimeError: out of resource: shared memory",
    )  # fmt: skip


def test_our_own_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bench, "score_texts", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        bench.run(SIZES, rounds=1, device=CPU)


def test_without_a_gpu_only_the_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[object] = []

    def run(device: torch.device | None = None, **_: object) -> list[bench.Row]:
        devices.append(device)
        return []

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert bench.run_here() == []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert bench.run_here() == []
    assert devices == [None, None, torch.device("cuda")]
