"""A pool of threads that each run whole matrix products alone.

Torch splits one matrix product over its threads and makes them wait for each other afterwards.
Here each Python thread works on another block, with torch limited to one thread inside it. Torch
and numba release the interpreter lock, so the threads run in parallel and never wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def on_every_thread(work: Callable[[int], None], threads: int) -> None:
    """Run ``work(0) … work(threads - 1)`` in parallel, each with single-threaded torch.

    Gradients are not recorded: ``no_grad`` is a setting of each thread, so it is set here. With
    one thread ``work(0)`` runs on the calling thread. After all calls have ended, the first
    exception is raised again.
    """

    def without_gradients(index: int) -> None:
        with torch.no_grad():
            work(index)

    if threads == 1:
        without_gradients(0)
        return
    pool = _pool(threads)
    futures = [pool.submit(without_gradients, index) for index in range(threads)]
    wait(futures)
    for future in futures:
        future.result()


def split_evenly(work: Callable[[int, int], None], count: int, least: int) -> None:
    """Call ``work(first, end)`` for ranges that cover ``count`` units, in parallel.

    For compiled loops that do not call torch: the calling thread works on the first range.

    Args:
        work: Handles the units from ``first`` to ``end``.
        count: Number of units.
        least: Fewest units worth another thread. Ranges begin at multiples of 16.
    """
    threads = torch.get_num_threads()
    step = max(1, -(-count // (max(1, min(threads, count // least)) * 16))) * 16
    own, *others = [(first, min(first + step, count)) for first in range(0, count or 1, step)]
    futures = [_pool(threads).submit(work, *part) for part in others]
    try:
        work(*own)
    finally:
        wait(futures)
    for future in futures:
        future.result()


def on_one_thread(compute: Callable[[], T], threads: int) -> T:
    """Return ``compute()``, run with single-threaded torch.

    For small torch operations before a compiled loop: torch's own threads would be woken for them
    and would then spin for milliseconds on the cores that the loop needs.
    """
    return compute() if threads == 1 else _pool(threads).submit(compute).result()


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)  # a forked child does not inherit its parent's threads
    with _lock:
        if key not in _pools:
            _pools[key] = _start(threads)
        return _pools[key]


def _start(threads: int) -> ThreadPoolExecutor:
    """Start all threads at once and limit torch to one thread in each."""
    before = torch.get_num_threads()
    barrier = threading.Barrier(threads)

    def first() -> None:
        # The first call on a thread resets its setting to the default, so it comes before the set.
        torch.get_num_threads()
        torch.set_num_threads(1)
        barrier.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="maxsim")
    wait([pool.submit(first) for _ in range(threads)])
    # set_num_threads also changes the default of threads that start later: restore it.
    torch.set_num_threads(before)
    return pool
