"""A pool whose threads each compute alone: every one owns its tile and its cache.

Torch's own threads share one operation and meet after each; here each Python thread runs whole
operations single-threaded (they release the interpreter's lock), so nobody waits for anybody.
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
    """Run ``work(0) … work(threads - 1)`` side by side, each on single-threaded torch.

    No gradients are recorded: that is set a thread at a time, and on in a new one. With one
    thread, ``work(0)`` runs right here. The first exception is raised again, once all have ended.
    """

    def quiet(index: int) -> None:
        with torch.no_grad():
            work(index)

    if threads == 1:
        quiet(0)
        return
    pool = _pool(threads)
    futures = [pool.submit(quiet, index) for index in range(threads)]
    wait(futures)
    for future in futures:
        future.result()


def share_out(work: Callable[[int, int], None], count: int, least: int) -> None:
    """``work(first, end)`` over all of ``count``, by several threads if each has ``least``.

    For compiled loops that never ask torch: this thread takes a part as well. Parts begin at
    multiples of 16.
    """
    threads = torch.get_num_threads()
    each = max(1, -(-count // (max(1, min(threads, count // least)) * 16))) * 16
    own, *others = [(first, min(first + each, count)) for first in range(0, count or 1, each)]
    futures = [_pool(threads).submit(work, *part) for part in others]
    try:
        work(*own)
    finally:
        wait(futures)
    for future in futures:
        future.result()


def on_one_thread(compute: Callable[[], T], threads: int) -> T:
    """``compute()`` on a thread as :func:`on_every_thread` gives it, while the others rest."""
    return compute() if threads == 1 else _pool(threads).submit(compute).result()


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)  # a forked child has none of its parent's threads
    with _lock:
        if key not in _pools:
            _pools[key] = _start(threads)
        return _pools[key]


def _start(threads: int) -> ThreadPoolExecutor:
    """Start all threads at once, each set to one torch thread for itself."""
    before = torch.get_num_threads()
    barrier = threading.Barrier(threads)

    def first() -> None:
        torch.get_num_threads()  # what a thread asks first sets it back to the default
        torch.set_num_threads(1)
        barrier.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="maxsim")
    wait([pool.submit(first) for _ in range(threads)])
    # The setting holds for the thread that makes it, and as the default of threads yet unborn:
    # give those, and ourselves, back what was set before.
    torch.set_num_threads(before)
    return pool
