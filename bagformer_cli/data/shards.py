"""One job over many pieces of input, by several processes."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """``function`` of each job, in order; in this process where one worker is enough.

    Args:
        function: Importable by its name, as the workers are started afresh.
        jobs: What can be pickled.
        workers: Processes at the same time.

    Raises:
        Exception: Whatever ``function`` raises first; the other jobs are dropped.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    others = set(active_children())
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        # not pool.map: it cancels what waits, and a broken pool stumbles over cancelled futures
        waiting = deque(pool.submit(function, job) for job in jobs)
        try:
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


def end_with_parent() -> None:
    """A worker's start: it dies at once with Ctrl-C and when its parent was killed.

    Without it a pool's workers outlive a parent that was killed, waiting for jobs for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
