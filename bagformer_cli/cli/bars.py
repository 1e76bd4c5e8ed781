"""Show the progress of long tasks on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bagformer_cli.cli import console
from bagformer_cli.cli.formatting import duration, format_value
from bagformer_cli.errors import with_place
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress, Task

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

MIN_SECONDS = 0.5  # a shorter task leaves no line when it is finished
PLAIN_INTERVAL = 10.0  # seconds between two lines of a task without a terminal


@contextmanager
def progress() -> Iterator[Progress]:
    """Provide a :class:`Progress` that shows bars on a terminal and plain lines elsewhere."""
    if not console.stderr_console().is_terminal:
        yield _PlainProgress()
        return
    from rich import progress as rich

    bars = rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=28, complete_style="cyan"),
        rich.TextColumn("{task.fields[count]}", markup=False),
        rich.TextColumn("{task.fields[timing]}", style="cyan"),
        rich.TextColumn("{task.fields[status]}", style="dim", markup=False),
        console=console.stderr_console(),
        transient=True,
        redirect_stdout=False,  # results never go to stderr
        refresh_per_second=8,
    )
    with console.bars_shown(), bars:
        yield _BarProgress(bars)


class _TaskState:
    """Count, time and status of a task, and their texts."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.started = time.monotonic()
        self.status = ""

    def advance(self, n: int, status: Mapping[str, object]) -> None:
        self.done += n
        if status:
            self.status = "  ".join(
                f"{name} {format_value(value)}" for name, value in status.items()
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def count(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.total is None:
            return f"{self.done:,}{unit}" if self.done else ""
        return f"{self.done:,}/{self.total:,}{unit}"

    @property
    def timing(self) -> str:
        if self.total and 0 < self.done < self.total and self.seconds > 0.5:
            left = self.seconds / self.done * (self.total - self.done)
            return tr("{time} left", time=duration(left))
        return duration(self.seconds)

    @property
    def finished(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        took = duration(self.seconds)
        if self.done > 1:
            took = tr("{count}, {time}", count=f"{self.done:,}{unit}", time=took)
        status = f"  {self.status}" if self.status else ""
        return with_place(f"{took}{status}", self.description)


class _BarTask:
    def __init__(self, bars: RichProgress, task: TaskID, state: _TaskState) -> None:
        self._bars, self._task, self._state = bars, task, state

    def advance(self, n: int = 1, **status: object) -> None:
        state = self._state
        state.advance(n, status)
        self._bars.update(
            self._task, advance=n, count=state.count, timing=state.timing, status=state.status
        )


class _BarProgress:
    def __init__(self, bars: RichProgress) -> None:
        self._bars, self._depth = bars, 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        state = _TaskState(description, total, unit)
        indent = "  " * self._depth
        task = self._bars.add_task(
            indent + description, total=total, count=state.count, timing="", status=""
        )
        self._depth += 1
        try:
            yield _BarTask(self._bars, task, state)
        finally:
            self._depth -= 1
            self._bars.remove_task(task)
        # A task inside another task leaves no line.
        if self._depth == 0 and state.seconds >= MIN_SECONDS:
            console.done(state.finished)

    def info(self, message: str) -> None:
        console.info(message)

    def warn(self, message: str) -> None:
        console.warn(message)


class _PlainTask:
    def __init__(self, state: _TaskState) -> None:
        self._state = state
        self._next = state.started + PLAIN_INTERVAL

    def advance(self, n: int = 1, **status: object) -> None:
        state = self._state
        state.advance(n, status)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_INTERVAL
            parts = (state.count, state.timing, state.status)
            console.info(with_place("  ".join(part for part in parts if part), state.description))


class _PlainProgress:
    def __init__(self) -> None:
        self._depth = 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        state = _TaskState(description, total, unit)
        self._depth += 1
        try:
            yield _PlainTask(state)
        finally:
            self._depth -= 1
        if self._depth == 0 and state.seconds >= MIN_SECONDS:
            console.info(state.finished)

    def info(self, message: str) -> None:
        console.info(message)

    def warn(self, message: str) -> None:
        console.warn(message)
