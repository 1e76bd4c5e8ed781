"""``xmr bench gpu``: check the kernels of a GPU, measure them, print the tables."""

from __future__ import annotations

import os
from typing import Any

from bagformer_cli.cli import console
from bagformer_cli.errors import InputError, MissingDependencyError
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress


def measure_gpu(tiny: bool, seconds: float, progress: Progress) -> dict[str, Any]:
    """Check and measure the kernels of a GPU; with ``tiny`` in the interpreter."""
    if tiny:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    from dataclasses import asdict

    import torch

    from bagformer_cli.interaction.maxsim import cuda_kernels

    if not tiny and not torch.cuda.is_available():
        raise InputError(
            tr("This machine has no CUDA GPU that torch can use."),
            hint=tr("Add --tiny to run the benchmark on a CPU, as a test."),
        )
    if cuda_kernels() is None:
        raise MissingDependencyError(
            tr("The kernels of a GPU need Triton."), hint="pip install triton"
        )
    from bagformer_cli.bench import gpu

    device = torch.device("cpu" if tiny else "cuda")
    sizes, rounds = (gpu.TINY, 1) if tiny else (gpu.Sizes(), 5)
    found = gpu.run(device, sizes, rounds=rounds, seconds=seconds, progress=progress)
    return asdict(found) | {"correct": found.correct}


def show_gpu(report: dict[str, Any]) -> None:
    """Print the peaks, the comparisons with float64 and the tables."""
    units = {name: "TB/s" if name == "copy" else "TFLOP/s" for name in report["peaks"]}
    peaks = {
        tr("peak of {name}", name=name): f"{value:.3g} {units[name]}"
        for name, value in report["peaks"].items()
    }
    console.facts(report["machine"] | peaks)
    console.table(
        [tr("compared with float64"), tr("type"), tr("relative error"), tr("correct")],
        [
            [check["name"], check["dtype"], f"{check['error']:.1e}",
             check["failure"] or (tr("yes") if check["passed"] else tr("no"))]
            for check in report["checks"]
        ],
    )  # fmt: skip
    console.table(
        [tr("work"), tr("method"), tr("type"), "ms", tr("target, ms"), tr("TFLOP/s or TB/s"),
         tr("share of the peak"), tr("relative error"), tr("extra memory, MB")],
        [
            [row["work"], row["name"], row["dtype"],
             row["failure"] or row["milliseconds"], row["target"], row["rate"], row["share"],
             None if row["error"] is None else f"{row['error']:.1e}",
             None if row["extra_bytes"] is None else row["extra_bytes"] / 1e6]
            for row in report["rows"]
        ],
    )  # fmt: skip
    if report["tiles"]:
        console.table(
            [tr("kernel"), tr("tile"), "ms"],
            [[name, tile, ms] for name, times in report["tiles"].items()
             for tile, ms in times.items()],
        )  # fmt: skip
    peak = report["peaks"].get("bfloat16")
    console.table(
        [tr("training step"), tr("pairs"), tr("seconds"), tr("pairs per second"), "TFLOP/s",
         tr("share of the peak"), tr("target"), tr("extra memory, MB")],
        [_step_cells(step, peak) for step in report["steps"]],
    )  # fmt: skip


def _step_cells(step: dict[str, Any], peak: float | None) -> list[Any]:
    """Return the cells of one training step."""
    seconds, flops, target = step["seconds"], step["flops"], step["target"]
    rate = flops / seconds / 1e12 if flops and seconds else None
    goal = None
    if target is not None:
        goal = f"{100 * target:.0f} %" if target < 1 else tr("{n} s", n=f"{target:g}")
    return [
        step["name"],
        step["pairs"],
        step["failure"] or seconds,
        step["pairs"] / seconds if seconds else None,
        rate,
        None if rate is None or not peak else rate / peak,
        goal,
        None if step["extra_bytes"] is None else step["extra_bytes"] / 1e6,
    ]
