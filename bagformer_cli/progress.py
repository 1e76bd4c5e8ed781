"""The protocol through which long tasks report their progress.

A function that takes a while has a ``progress: Progress = SILENT`` parameter. The command line
passes one that draws bars (``cli/bars.py``); tests and library users pass nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """A task in progress."""

    def advance(self, n: int = 1, **status: object) -> None:
        """Report ``n`` more finished units; ``status`` is shown next to the bar."""


class Progress(Protocol):
    """A receiver of progress reports."""

    def task(
        self, description: str, total: int | None = None, amount: str = "{n}"
    ) -> AbstractContextManager[Task]:
        """Start a task, which ends with the context.

        Args:
            description: The name of the task.
            total: Number of its units; None: unknown.
            amount: A number of units with its noun: ``tr("{n} titles", n="{n}")``. ``{n}`` stays
                in it, for the numbers that are shown.
        """

    def info(self, message: str) -> None:
        """Report a message."""

    def warn(self, message: str) -> None:
        """Report a problem that does not stop the work."""


class _SilentTask:
    def advance(self, n: int = 1, **status: object) -> None:
        pass


class _Silent:
    @contextmanager
    def task(
        self, description: str, total: int | None = None, amount: str = "{n}"
    ) -> Iterator[Task]:
        yield _SilentTask()

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


class _Logged(_Silent):
    def info(self, message: str) -> None:
        _LOG.warning(message)  # not info: Python shows warnings without any set-up

    def warn(self, message: str) -> None:
        _LOG.warning(message)


_LOG = logging.getLogger("bagformer_cli")
SILENT: Progress = _Silent()
LOGGED: Progress = _Logged()
"""Logs messages and warnings as warnings of the logger ``bagformer_cli``; tasks are silent."""
