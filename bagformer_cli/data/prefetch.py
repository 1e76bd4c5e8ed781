"""Make items ahead in threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Item], Made], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[Made]:
    """Yield ``make(item)`` for each item, in order; threads work ahead.

    Args:
        make: Called in a thread.
        items: May be endless.
        workers: Number of threads. 0: no threads.
        ahead: Largest number of results that exist at the same time and that the caller does not
            have yet, plus one; at least 2. None: ``workers + 2``.

    Raises:
        Exception: Any exception of ``make``, at the item's turn.
    """
    if workers < 1:
        yield from map(make, items)
        return
    ahead = workers + 2 if ahead is None else ahead
    queue: deque[Future[Made]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        try:
            for item in source:
                queue.append(pool.submit(make, item))
                if len(queue) >= ahead:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
