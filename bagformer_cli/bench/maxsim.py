"""Measure MaxSim against reference implementations, in turns in one process.

Shapes: Q titles of at most L bags (G in total), N images × P patches, D dimensions.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.bench import plain_maxsim as plain
from bagformer_cli.interaction.maxsim import DTYPES, maxsim, score_texts
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

Scores = tuple[Tensor, Tensor]

# Matrix products whose fastest is the peak: a tile as MaxSim computes it, and squares.
PEAK_SHAPES = ((2048, 640, 256), (1024, 1024, 1024), (2048, 2048, 1024))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: Implementation.
        group: ``"titles to images"``, ``"both directions"`` or ``"loss, forward and backward"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        seconds: Median wall time; with one thread processor time, which other work disturbs less.
        pairs_per_second: Pairs of a title and an image; both directions of a pair count once.
        gflops: Useful 10⁹ operations per second: 2·G·N·P·D (a loss: three times that) divided by
            ``seconds``. Padding does not count.
        speedup: Speed relative to the group's original loop.
        peak_share: ``gflops`` divided by the matrix peak of the type, about 0 to 1.
        extra_bytes: Highest memory during a run minus memory before it; None where unknown.
    """

    name: str
    group: str
    dtype: str
    seconds: float
    pairs_per_second: float
    gflops: float
    speedup: float
    peak_share: float
    extra_bytes: int | None


@dataclass(slots=True)
class _Run:
    """One implementation and its times so far."""

    name: str
    group: str
    dtype: torch.dtype
    work: Callable[[], object]
    original: bool = False  # the group is compared with this one
    seconds: list[float] = field(default_factory=list)
    extra_bytes: int | None = None


@dataclass(frozen=True)
class Workload:
    """Random unit vectors: titles of different lengths, images of equal length."""

    texts: MultiVectors
    images: MultiVectors

    @classmethod
    def make(
        cls,
        titles: int = 64,
        images: int = 256,
        patches: int = 257,
        dim: int = 256,
        seed: int = 0,
    ) -> Workload:
        """Draw titles of 2–25 bags, 10 on average."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.poisson(torch.full((titles,), 10.0), generator).clamp(2, 25).long()
        spread = torch.randint(-6, 7, (titles,), generator=generator)
        lengths = (lengths + spread).clamp(2, 25)
        bags = F.normalize(torch.randn(int(lengths.sum()), dim, generator=generator), dim=-1)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        vectors = torch.randn(images, patches, dim, generator=generator)
        return cls(
            MultiVectors(bags, offsets), MultiVectors.from_dense(F.normalize(vectors, dim=-1))
        )

    @property
    def operations(self) -> float:
        """Number of multiplications and additions of all dot products."""
        return 2.0 * len(self.texts.values) * len(self.images.values) * self.texts.dim


class Sizes(NamedTuple):
    """Sizes of the benchmark.

    Attributes:
        titles: Q.
        images: N.
        patches: P of every image.
        dim: D.
        batch: Titles and images of the loss; 0: no loss.
    """

    titles: int = 64
    images: int = 128
    patches: int = 257
    dim: int = 256
    batch: int = 64


def run(
    sizes: Sizes | None = None, *, rounds: int = 5, seed: int = 0, progress: Progress = SILENT
) -> list[Row]:
    """Time all implementations: one direction, both directions, and the training loss.

    Args:
        sizes: Numbers of titles, images and vectors; None: the defaults.
        rounds: Runs of each implementation. They take turns, so that other work on the machine
            slows all of them.
        seed: Random seed of the vectors.
        progress: Receives the progress of the runs.

    Returns:
        Rows in the order of the groups; the original loop is the first of each.
    """
    sizes = sizes or Sizes()
    load = Workload.make(sizes.titles, sizes.images, sizes.patches, sizes.dim, seed)
    runs = _scoring(load)
    groups = ("titles to images", "both directions")
    work = dict.fromkeys(groups, (load.operations, sizes.titles * sizes.images))
    if sizes.batch:
        loss = Workload.make(sizes.batch, sizes.batch, sizes.patches, sizes.dim, seed)
        runs += _losses(loss)
        work["loss, forward and backward"] = (3 * loss.operations, sizes.batch**2)
    with progress.task(tr("Timing"), total=len(runs) * (rounds + 1)) as task:
        for each in runs:  # warms pools, compiled loops and caches, and measures the memory
            each.extra_bytes = extra_bytes(each.work)
            task.advance()
        peaks: dict[torch.dtype, list[float]] = {each.dtype: [] for each in runs}
        for _ in range(rounds):
            for dtype, measured in peaks.items():
                measured.append(matrix_peak(dtype))
            for each in runs:
                time.sleep(0.02)  # torch's threads spin for a while after the run before
                start = clock()
                each.work()
                each.seconds.append(clock() - start)
                task.advance()
    return _rows(runs, work, peaks)


def _rows(
    runs: Sequence[_Run],
    work: dict[str, tuple[float, int]],
    peaks: dict[torch.dtype, list[float]],
) -> list[Row]:
    original = {each.group: statistics.median(each.seconds) for each in runs if each.original}
    rows = []
    for each in runs:
        seconds = statistics.median(each.seconds)
        operations, pairs = work[each.group]
        gflops = operations / seconds / 1e9
        rows.append(
            Row(
                name=each.name,
                group=each.group,
                dtype=str(each.dtype).removeprefix("torch."),
                seconds=seconds,
                pairs_per_second=pairs / seconds,
                gflops=gflops,
                speedup=original[each.group] / seconds,
                peak_share=gflops / statistics.median(peaks[each.dtype]),
                extra_bytes=each.extra_bytes,
            )
        )
    return rows


def _scoring(load: Workload) -> list[_Run]:
    texts, images = load.texts, load.images
    dense = images.values.view(len(images), -1, images.dim)
    padded = plain.pad(texts, 25)
    ragged = texts.to_list()
    t2i, both, fp32 = "titles to images", "both directions", torch.float32

    def original_both() -> Scores:
        return plain.original_t2i(padded, dense), plain.original_i2t(padded, dense)

    runs = [
        _Run(
            "original loop, padded to 25",
            t2i,
            fp32,
            lambda: plain.original_t2i(padded, dense),
            original=True,
        ),
        _Run("the same without padding", t2i, fp32, lambda: plain.original_t2i(ragged, dense)),
        _Run("einsum in chunks", t2i, fp32, lambda: plain.einsum_t2i(padded, dense)),
        _Run("two original loops, padded to 25", both, fp32, original_both, original=True),
        _Run("packed, plain torch", both, fp32, lambda: plain.packed(texts, images)),
    ]
    for dtype in DTYPES:
        small, large = texts.to(dtype=dtype), images.to(dtype=dtype)

        def one_way(small: MultiVectors = small, large: MultiVectors = large) -> Tensor:
            return score_texts(small, large)

        def two_ways(small: MultiVectors = small, large: MultiVectors = large) -> Scores:
            return maxsim(small, large)

        runs.append(_Run("ours", t2i, dtype, one_way))
        runs.append(_Run("ours, one pass", both, dtype, two_ways))
    return sorted(runs, key=lambda each: each.group == both)


def _losses(load: Workload) -> list[_Run]:
    texts, images = load.texts, load.images
    length = int(texts.lengths.max())
    group, fp32 = "loss, forward and backward", torch.float32

    def dense(score: Callable[[Tensor, Tensor], Scores]) -> None:
        bags = plain.pad(texts, max(length, 25)).requires_grad_()
        patches = images.values.view(len(images), -1, images.dim).clone().requires_grad_()
        plain.symmetric_loss(*score(bags, patches)).backward()  # type: ignore[no-untyped-call]

    def packed() -> None:
        bags = texts.values.clone().requires_grad_()
        patches = images.values.clone().requires_grad_()
        scores = maxsim(MultiVectors(bags, texts.offsets), MultiVectors(patches, images.offsets))
        plain.symmetric_loss(*scores).backward()  # type: ignore[no-untyped-call]

    def original(bags: Tensor, patches: Tensor) -> Scores:
        return plain.original_t2i(bags, patches), plain.original_i2t(bags, patches)

    return [
        _Run("original loops", group, fp32, lambda: dense(original), original=True),
        _Run("einsum in chunks", group, fp32, lambda: dense(plain.einsum_both)),
        _Run("ours", group, fp32, packed),
    ]


def clock() -> float:
    """Return a time in seconds: processor time with one thread, else wall time."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def matrix_peak(dtype: torch.dtype, runs: int = 3) -> float:
    """Return the 10⁹ operations per second of the fastest matrix product of :data:`PEAK_SHAPES`."""
    best = 0.0
    for rows, columns, inner in PEAK_SHAPES:
        if dtype == torch.int8:
            a = torch.randint(-127, 128, (rows, inner), dtype=torch.int8)
            b = torch.randint(-127, 128, (inner, columns), dtype=torch.int8)
            multiply = torch._int_mm
        else:
            a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
            multiply = torch.mm
        multiply(a, b)
        for _ in range(runs):
            start = clock()
            multiply(a, b)
            seconds = clock() - start
            best = max(best, 2.0 * rows * columns * inner / seconds / 1e9)
    return best


def extra_bytes(work: Callable[[], object]) -> int | None:
    """Return by how much ``work`` raises this process's resident memory at most (Linux only)."""
    work()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except (OSError, AttributeError):
        return None
    before = status_bytes("VmRSS")
    work()
    peak = status_bytes("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def status_bytes(name: str) -> int | None:
    """Read a number of ``/proc/self/status`` in bytes; None where the file does not exist."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(name + ":")]
    return int(found[0]) * 1024 if found else None


def machine() -> dict[str, str]:
    """Describe the machine: processor, threads, version of torch, load, and products per type."""
    from bagformer_cli.interaction.kernels.avx512.scores import supported
    from bagformer_cli.interaction.kernels.cpu.products import product_for

    name = "?"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    products = {}
    for dtype in DTYPES:
        ways = [tr("AVX-512 registers")] if supported(dtype) else []
        products[str(dtype).removeprefix("torch.")] = "; ".join([*ways, product_for(dtype).name])
    return {
        "processor": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "load": load,
    } | products
