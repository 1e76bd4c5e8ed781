"""Run one function over many jobs: in this process, in several, or on a Ray cluster.

A job is a picklable value (a byte range, a part of a catalogue); results come back in order.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from bagformer_cli.errors import XmrError
from bagformer_cli.ray_cluster import join_cluster

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ray:
    """A Ray cluster. Ray Data runs the jobs; jobs of a node that dies run again on another.

    Every node must see the same files (a shared file system).

    Args:
        address: Address of a running cluster; None: the address in ``RAY_ADDRESS``; without it, a
            cluster is started on this machine and stopped at the end.
    """

    address: str | None = None


Workers = int | Ray


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: Workers
) -> Iterator[Result]:
    """Yield ``function(job)`` for each job, in order.

    Args:
        function: A function that can be imported by its name, since new processes import it.
        jobs: Picklable values.
        workers: Number of processes (with 1, or one job, this process does the work), or a Ray
            cluster, which uses all its cores.

    Raises:
        Exception: The first exception that ``function`` raises; the other jobs are dropped.
        MissingDependencyError: Ray is not installed.

    >>> list(run_jobs(abs, [-3, 4, -5], workers=1))
    [3, 4, 5]
    """
    if isinstance(workers, Ray):
        yield from _run_on_ray(function, jobs, workers.address)
        return
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    others = set(active_children())
    context = get_context("spawn")  # fork would copy threads and locks of this process
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        # Not pool.map: it cancels the waiting futures, and a broken pool fails on cancelled ones.
        waiting = deque(pool.submit(function, job) for job in jobs)
        try:
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise


def end_with_parent() -> None:
    """Make this worker process end at once on Ctrl-C, and when its parent dies.

    Without it, the workers of a pool outlive a killed parent and wait for jobs forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_on_ray(
    function: Callable[[Job], Result], jobs: Sequence[Job], address: str | None
) -> Iterator[Result]:
    """Run the jobs as a Ray Data pipeline, one block per job; Ray repeats lost blocks."""
    if not jobs:
        return
    started = join_cluster(address)
    import ray

    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        todo = ray.data.from_items(
            [{"job": number} for number in range(len(jobs))], override_num_blocks=len(jobs)
        )
        one = _OneJob(function, list(jobs))
        for row in todo.map(one).iter_rows():
            if isinstance(row["result"], _Failed):
                raise row["result"].error
            yield row["result"]
    finally:
        if started:
            ray.shutdown()


class _OneJob:
    """The function a Ray worker runs. Errors travel as values, so that Ray does not retry them."""

    def __init__(self, function: Callable[[Any], Any], jobs: list[Any]) -> None:
        self.function, self.jobs = function, jobs

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self.function(self.jobs[row["job"]])}
        except XmrError as error:
            return {"result": _Failed(error)}


class _Failed:
    def __init__(self, error: XmrError) -> None:
        self.error = error
