"""Search for requests that arrive together in one pass.

One thread owns the model. It takes the first waiting request and all others of the same kind, up to
the batch size, and searches for them at once: an exact scan reads the vectors once for all of them.
Nothing waits for a batch to fill, so a lone request is as fast as without batches::

    requests    a   b c d      e
    thread      [a ───][b c d ─────][e ──]

A search runs in a copy of the context of its request (:mod:`contextvars`), so that an error is in
the language of that request.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from bagformer_cli.index.results import Results
from bagformer_cli.index.search_options import SearchOptions

Search = Callable[[Sequence[Any], SearchOptions], list[Results]]


class TooBusyError(Exception):
    """As many requests as allowed are waiting."""


@dataclass(frozen=True)
class _Waiting:
    query: Any
    options: SearchOptions
    kind: Hashable
    answer: Future[Results]
    context: Context


class Batcher:
    """Runs searches on one thread, waiting ones of the same kind together.

    Args:
        search: Searches for several queries of one kind with the same options.
        batch: Queries at once.
        waiting: Requests that may wait.
    """

    def __init__(self, search: Search, batch: int, waiting: int) -> None:
        self._search, self._batch, self._limit = search, batch, waiting
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    def submit(self, query: Any, options: SearchOptions, kind: Hashable = None) -> Future[Results]:
        """Add a request.

        Args:
            query: A query, as the search takes it.
            options: How to search.
            kind: Only queries of one kind are searched together.

        Raises:
            TooBusyError: As many as allowed are waiting, or the service is shutting down.
        """
        answer: Future[Results] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= self._limit:
                raise TooBusyError
            self._waiting.append(_Waiting(query, options, kind, answer, copy_context()))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch = self._take()
            # A client that gave up has cancelled its request.
            batch = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if batch:
                self._answer(batch)

    def _take(self) -> list[_Waiting]:
        """Take the first request and others of its kind; the rest keep their order."""
        first = self._waiting[0]
        taken: list[_Waiting] = []
        kept: deque[_Waiting] = deque()
        for one in self._waiting:
            same = (one.options, one.kind) == (first.options, first.kind)
            (taken if same and len(taken) < self._batch else kept).append(one)
        self._waiting = kept
        return taken

    def _answer(self, batch: list[_Waiting]) -> None:
        first = batch[0]
        try:
            queries = [one.query for one in batch]
            found = first.context.run(self._search, queries, first.options)
        except BaseException as error:
            if len(batch) == 1:
                first.answer.set_exception(error)
                return
            # A wrong query must not fail the others, and its error is in its own language.
            for one in batch:
                self._answer([one])
            return
        for one, results in zip(batch, found, strict=True):
            one.answer.set_result(results)
