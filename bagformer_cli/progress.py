"""The small protocol by which long work reports; it knows nothing of screens.

A function that takes a while has a ``progress: Progress = SILENT`` parameter. The command line
passes one that draws bars (``cli/console.py``); tests and library users pass nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, n: int = 1, **status: object) -> None:
        """Say that ``n`` more units are done; ``status`` is shown beside the bar."""


class Progress(Protocol):
    """Where long work reports to."""

    def task(
        self, description: str, total: int | None = None, unit: str = ""
    ) -> AbstractContextManager[Task]:
        """Open a piece of work of ``total`` units (None: unknown)."""

    def info(self, message: str) -> None:
        """Say something worth a line."""

    def warn(self, message: str) -> None:
        """Say something the user should look at; the work goes on."""


class _SilentTask:
    def advance(self, n: int = 1, **status: object) -> None:
        pass


class _Silent:
    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        yield _SilentTask()

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


SILENT: Progress = _Silent()
