"""`xmr bench gpu`: whole in Triton's interpreter, so that no card's time is spent on an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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

WITHOUT_LANCEDB_AND_NETWORK = """
import socket, sys
sys.modules["lancedb"] = None
def refuse(*args): raise OSError("no network")
socket.socket.connect = refuse
from bagformer_cli.cli.main import main
sys.argv = ["xmr", "bench", "gpu", "--tiny", "--json"]
main()
"""


@pytest.mark.slow
def test_all_of_it_runs_in_the_interpreter_without_lancedb_and_network() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LANCEDB_AND_NETWORK],
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
    assert [step["pairs"] for step in report["steps"]] == [4, 4, 4, 4, 6]
    assert all(step["seconds"] for step in report["steps"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_error_names_the_way_to_try_it() -> None:
    with pytest.raises(InputError, match="--tiny"):
        bench_gpu.measure_gpu(False, SILENT)


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
