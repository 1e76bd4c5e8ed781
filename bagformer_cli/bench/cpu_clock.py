"""Times, peaks and memory on the CPU."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch

# Matrix products whose fastest is the peak: a tile as MaxSim computes it, and squares.
PEAK_SHAPES = ((2048, 640, 256), (1024, 1024, 1024), (2048, 2048, 1024))


class CpuClock:
    """Measure work on the CPU."""

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the time of one run of ``work`` in seconds."""
        time.sleep(0.02)  # torch's threads spin for a while after the run before
        start = clock()
        work()
        return clock() - start

    def memory(self, work: Callable[[], object]) -> int | None:
        """Return by how many bytes ``work`` raises resident memory; None where unknown."""
        return extra_bytes(work)

    def peak(self, dtype: torch.dtype) -> float:
        """Return the 10⁹ operations per second of the fastest matrix product."""
        return matrix_peak(dtype)


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
