"""Times, peaks and memory on a GPU; on the CPU, for tests, wall time.

A peak is the fastest plain operation of the same process on the same card, so a share of it means
the same on every card and at every clock rate.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from bagformer_cli.training.arithmetic import training_arithmetic

SQUARE = 8192
"""Side of the matrices whose product is the peak."""

COPIED = 1 << 30
"""Bytes that are copied for the copy speed; as many are read and written."""


class Clock:
    """Median times of work on one device.

    Args:
        device: The device.
        rounds: Measured runs of each piece of work.
        warm: Runs before them: they compile kernels and choose tiles.
    """

    def __init__(self, device: torch.device, rounds: int = 5, warm: int = 2) -> None:
        self.device, self.rounds, self.warm = device, rounds, warm

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the median time of ``work`` in seconds."""
        for _ in range(self.warm):
            work()
        return statistics.median(self._once(work) for _ in range(self.rounds))

    def _once(self, work: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        # Wall time until the device is done: work of the host counts, as for a user.
        torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        work()
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def memory(self, work: Callable[[], object]) -> int | None:
        """Return by how many bytes ``work`` raises the device's memory at most; None on a CPU."""
        if self.device.type != "cuda":
            return None
        work()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


class GpuClock:
    """Measure single runs on a GPU; the counterpart of ``cpu_clock.CpuClock``.

    Args:
        device: The device.
        square: Side of the matrices whose product is the peak.
    """

    def __init__(self, device: torch.device, square: int = SQUARE) -> None:
        self.square = square
        self._clock, self._warm = Clock(device, 1, 0), Clock(device, 3, 1)

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the time of one run of ``work`` in seconds, until the device is done."""
        return self._clock.seconds(work)

    def memory(self, work: Callable[[], object]) -> int | None:
        """Return by how many bytes ``work`` raises the device's memory; runs it twice."""
        return self._clock.memory(work)

    def peak(self, dtype: torch.dtype) -> float:
        """Return the 10⁹ operations per second of a large matrix product."""
        return matrix_peak(self._warm, dtype, self.square) / 1e9


def matrix_peak(clock: Clock, dtype: torch.dtype, square: int = SQUARE) -> float:
    """Return the operations per second of a product of two square matrices; float32 by TF32."""
    device = clock.device
    if dtype == torch.int8:
        a = torch.randint(-127, 128, (square, square), device=device, dtype=torch.int8)
        return 2.0 * square**3 / clock.seconds(lambda: torch._int_mm(a, a.T))
    with training_arithmetic(deterministic=False):  # float32 products by TF32
        a = torch.randn(square, square, device=device).to(dtype)
        out = torch.empty_like(a)
        return 2.0 * square**3 / clock.seconds(lambda: torch.mm(a, a, out=out))


def peaks(clock: Clock, *, square: int = SQUARE, copied: int = COPIED) -> dict[str, float]:
    """Measure the peaks: operations per second by type, and ``copy`` in bytes per second.

    Args:
        clock: The clock.
        square: Side of the matrices.
        copied: Bytes of the copy.
    """
    found = {
        str(dtype).removeprefix("torch."): matrix_peak(clock, dtype, square)
        for dtype in (torch.bfloat16, torch.float32, torch.int8)
    }
    source = torch.zeros(copied, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    found["copy"] = 2.0 * copied / clock.seconds(lambda: target.copy_(source))
    return found
