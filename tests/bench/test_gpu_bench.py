"""`xmr bench gpu`: whole in Triton's interpreter, so that no card's time is spent on an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bagformer_cli.bench import gpu_peers
from bagformer_cli.bench.gpu_clock import Clock, peaks
from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.cli import bench_gpu
from bagformer_cli.errors import InputError
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.progress import SILENT

ROOT = Path(__file__).parents[2]

BARE = """
import socket, sys
for name in "lancedb jieba openpyxl opencc rapidfuzz sqlglot ahocorasick peft".split():
    sys.modules[name] = None
def refuse(*args): raise OSError("no network")
socket.socket.connect = refuse
from bagformer_cli.cli.main import main
sys.argv = ["xmr", "bench", "gpu", "--tiny", "--json"]
main()
"""


@pytest.mark.slow
def test_all_of_it_runs_in_the_interpreter_on_a_bare_machine() -> None:
    """Without network and without the packages that docs/performance.md does not list."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,  # half of it is compiling
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)["gpu"]
    assert report["correct"]
    assert set(report["peaks"]) == {"bfloat16", "float32", "int8", "copy"}
    assert {row["dtype"] for row in report["rows"]} == {
        "bfloat16", "int8", "float32", "residual codes",
    }  # fmt: skip
    assert {row["failure"] for row in report["rows"]} <= {"", "not installed"}
    assert "scores, ragged" in done.stderr  # each result at once, not only at the end
    assert [step["pairs"] for step in report["steps"]] == [4, 4, 4, 4, 6]
    assert all(step["seconds"] for step in report["steps"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_error_names_the_way_to_try_it() -> None:
    with pytest.raises(InputError, match="--tiny"):
        bench_gpu.measure_gpu(False, 480.0, SILENT)


def test_a_part_that_fails_or_takes_too_long_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    from bagformer_cli.bench import gpu
    from bagformer_cli.bench.gpu_checks import Check
    from bagformer_cli.bench.gpu_training import Step

    def row(name: str) -> gpu.Row:
        return gpu.Row(name, "xmr", "int8", 1.0, 1.0, 1.0)

    def broken(self: object) -> Iterator[gpu.Row]:
        yield row("first")
        raise RuntimeError("out of resource: shared memory\nmore")

    def slow(*_: object, **__: object) -> Iterator[Step]:
        yield Step("one", 4, 1.0)
        clock[0] += 100
        yield Step("two", 4, 1.0)
        raise AssertionError("the time is over")

    clock = [0.0]
    checks = [Check("scores", "int8", 1.0, False), Check("scan", "int8", 0.0, True)]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu, "all_checks", lambda *_, **__: iter(checks))
    monkeypatch.setattr(gpu._Bench, "scores", broken)
    monkeypatch.setattr(gpu._Bench, "losses", lambda self: iter([row("loss")]))
    monkeypatch.setattr(gpu._Bench, "search", lambda self: iter([row("search")]))
    monkeypatch.setattr(gpu, "measure_steps", slow)
    report = gpu.run(torch.device("cpu"), gpu.TINY, rounds=1, seconds=60)
    assert report.checks == checks
    assert not report.correct
    assert [(row.work, row.failure) for row in report.rows] == [
        ("first", ""),
        ("", "RuntimeError: out of resource: shared memory"),
        ("loss", ""),
        ("search", ""),
    ]
    assert [(step.name, step.failure) for step in report.steps] == [
        ("one", ""), ("two", ""), ("", "not measured: 60 s are over"),
    ]  # fmt: skip


def test_a_kernel_that_does_not_run_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from bagformer_cli.bench import gpu_checks
    from bagformer_cli.interaction.kernels import reference
    from bagformer_cli.interaction.kernels.reference import Packed

    def not_compiled(*_: object, **__: object) -> None:
        raise RuntimeError("does not compile")

    monkeypatch.setattr(gpu_checks.cuda, "scores", reference.scores)
    for name in ("forward", "backward"):
        own = getattr(reference, name)

        def plain(vectors: Packed, *others: Any, own: Any = own, **options: Any) -> Any:
            exact = vectors._replace(bags=vectors.bags.float(), patches=vectors.patches.float())
            return own(exact, *others, **options)

        monkeypatch.setattr(gpu_checks.cuda, name, plain)
    monkeypatch.setattr(gpu_checks, "scan", not_compiled)
    checks = list(gpu_checks.all_checks(torch.device("cpu"), small=True))
    failed = {check.name for check in checks if not check.passed}
    assert failed == {"scan, ragged", "scan, dimension 7"}
    assert {check.failure for check in checks} == {"", "RuntimeError: does not compile"}


def test_the_plain_peer_computes_the_same_scores() -> None:
    load = Workload.make(titles=5, images=6, patches=7, dim=8)
    found = gpu_peers.packed_t2i(load.texts, load.images)
    torch.testing.assert_close(found, score_texts(load.texts, load.images))
    titles, real = gpu_peers.padded(load.texts)
    assert torch.equal(titles[real], load.texts.values)
    assert real.sum(1).tolist() == load.texts.lengths.tolist()


def test_peaks_are_of_every_type_and_of_a_copy() -> None:
    clock = Clock(torch.device("cpu"), rounds=1, warm=0)
    found = peaks(clock, square=32, copied=1 << 10)
    assert all(value > 0 for value in found.values())
    assert clock.memory(lambda: None) is None
