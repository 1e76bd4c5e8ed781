"""Measure MaxSim against reference implementations, in turns in one process.

On a GPU the libraries of :mod:`bagformer_cli.bench.gpu_peers` take part too.

Shapes: Q titles of at most L bags (G in total), N images × P patches, D dimensions.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.bench import plain_maxsim as plain
from bagformer_cli.bench.cpu_clock import CpuClock
from bagformer_cli.bench.gpu_clock import GpuClock
from bagformer_cli.bench.gpu_peers import failure_of, loss_peers, peers
from bagformer_cli.interaction.maxsim import DTYPES, maxsim, score_texts
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

Scores = tuple[Tensor, Tensor]

ONE_WAY, BOTH_WAYS, LOSS = "titles to images", "both directions", "loss, forward and backward"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: Implementation.
        group: ``"titles to images"``, ``"both directions"`` or ``"loss, forward and backward"``;
            on a GPU followed by ``", GPU"``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        seconds: Median wall time; with one CPU thread processor time, which other work disturbs
            less. None, like all figures, if it could not be measured.
        pairs_per_second: Pairs of a title and an image; both directions of a pair count once.
        gflops: Useful 10⁹ operations per second: 2·G·N·P·D (a loss: three times that) divided by
            ``seconds``. Padding does not count.
        speedup: Speed relative to the group's original loop.
        peak_share: ``gflops`` divided by the matrix peak of the type, about 0 to 1.
        extra_bytes: Highest memory during a run minus memory before it; None where unknown.
        failure: Why it could not be measured.
    """

    name: str
    group: str
    dtype: str
    seconds: float | None = None
    pairs_per_second: float | None = None
    gflops: float | None = None
    speedup: float | None = None
    peak_share: float | None = None
    extra_bytes: int | None = None
    failure: str = ""


@dataclass(slots=True)
class _Run:
    """One implementation and its times so far."""

    name: str
    group: str
    dtype: torch.dtype
    work: Callable[[], object]
    original: bool = False  # the group is compared with this one
    peer: bool = False  # another project's code, which may fail
    seconds: list[float] = field(default_factory=list)
    extra_bytes: int | None = None
    failure: str = ""

    def warm_up(self, clock: CpuClock | GpuClock) -> None:
        """Run for the first time and measure the memory: fills pools, caches, compiled loops."""
        try:
            self.work()
            self.extra_bytes = clock.memory(self.work)
        except Exception as error:
            if not self.peer and not isinstance(error, torch.OutOfMemoryError):
                raise
            self.failure = failure_of(error)


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

    def to(self, device: torch.device | None) -> Workload:
        """Copy the vectors to a device; None: keep them where they are."""
        if device is None:
            return self
        return Workload(self.texts.to(device), self.images.to(device))

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


GPU_SIZES = Sizes(images=4096, batch=256)
"""Enough work for a GPU; the sizes of two lines of ``xmr bench gpu``."""


def run_here(progress: Progress = SILENT) -> list[Row]:
    """Time all implementations on the CPU, then on the GPU if there is one."""
    rows = run(progress=progress)
    if torch.cuda.is_available():
        rows += run(device=torch.device("cuda"), progress=progress)
    return rows


def run(
    sizes: Sizes | None = None,
    *,
    rounds: int = 5,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> list[Row]:
    """Time all implementations: one direction, both directions, and the training loss.

    Args:
        sizes: Numbers of titles, images and vectors; None: the defaults of the device.
        rounds: Runs of each implementation. They take turns, so that other work on the machine
            slows all of them.
        seed: Random seed of the vectors.
        device: A GPU, on which other libraries are measured too; None: the CPU.
        progress: Receives the progress of the runs.

    Returns:
        Rows in the order of the groups; the original loop is the first of each.
    """
    sizes = sizes or (Sizes() if device is None else GPU_SIZES)
    load = Workload.make(sizes.titles, sizes.images, sizes.patches, sizes.dim, seed).to(device)
    runs = _scoring(load)
    work = dict.fromkeys((ONE_WAY, BOTH_WAYS), (load.operations, sizes.titles * sizes.images))
    if sizes.batch:
        loss = Workload.make(sizes.batch, sizes.batch, sizes.patches, sizes.dim, seed).to(device)
        runs += _losses(loss)
        work[LOSS] = (3 * loss.operations, sizes.batch**2)
    if device is not None:
        runs += _peers(load) + (_loss_peers(loss) if sizes.batch else [])
        runs.sort(key=lambda each: list(work).index(each.group))
    peaks = _measure(runs, rounds, CpuClock() if device is None else GpuClock(device), progress)
    return _rows(runs, work, peaks, "" if device is None else ", GPU")


def _measure(
    runs: Sequence[_Run], rounds: int, clock: CpuClock | GpuClock, progress: Progress
) -> dict[torch.dtype, float]:
    """Fill in the times of all runs, in turns; return the matrix peak of each type."""
    with progress.task(tr("Timing"), total=len(runs) * (rounds + 1)) as task:
        for each in runs:
            each.warm_up(clock)
            task.advance()
        peaks: dict[torch.dtype, list[float]] = {each.dtype: [] for each in runs}
        for _ in range(rounds):
            for dtype, measured in peaks.items():
                measured.append(clock.peak(dtype))
            for each in runs:
                if not each.failure:
                    each.seconds.append(clock.seconds(each.work))
                task.advance()
    return {dtype: statistics.median(measured) for dtype, measured in peaks.items()}


def _rows(
    runs: Sequence[_Run],
    work: dict[str, tuple[float, int]],
    peaks: dict[torch.dtype, float],
    place: str,
) -> list[Row]:
    """Return the rows; ``place`` follows the names of groups."""
    original = {
        each.group: statistics.median(each.seconds)
        for each in runs
        if each.original and not each.failure
    }
    rows = []
    for each in runs:
        group, dtype = each.group + place, str(each.dtype).removeprefix("torch.")
        if each.failure:
            rows.append(Row(each.name, group, dtype, failure=each.failure))
            continue
        seconds = statistics.median(each.seconds)
        operations, pairs = work[each.group]
        gflops = operations / seconds / 1e9
        rows.append(
            Row(
                name=each.name,
                group=group,
                dtype=dtype,
                seconds=seconds,
                pairs_per_second=pairs / seconds,
                gflops=gflops,
                speedup=original[each.group] / seconds if each.group in original else None,
                peak_share=gflops / peaks[each.dtype],
                extra_bytes=each.extra_bytes,
            )
        )
    return rows


def _scoring(load: Workload) -> list[_Run]:
    texts, images = load.texts, load.images
    dense = images.values.view(len(images), -1, images.dim)
    padded = plain.pad(texts, 25)
    ragged = texts.to_list()
    t2i, both, fp32 = ONE_WAY, BOTH_WAYS, torch.float32

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
    group, fp32 = LOSS, torch.float32

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


def _peers(load: Workload) -> list[_Run]:
    """Return the peers that score; they compute in bfloat16."""
    bf16 = torch.bfloat16
    texts, images = load.texts.to(dtype=bf16), load.images.to(dtype=bf16)
    return [
        _Run(peer.name, BOTH_WAYS if peer.both else ONE_WAY, bf16, peer.run, peer=True)
        for peer in peers(texts, images)
    ]


def _loss_peers(load: Workload) -> list[_Run]:
    found = loss_peers(load.texts, load.images, plain.symmetric_loss)
    return [_Run(peer.name, LOSS, torch.float32, peer.run, peer=True) for peer in found]


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
    card = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return (
        {
            "processor": name,
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
            "load": load,
        }
        | products
        | card
    )
