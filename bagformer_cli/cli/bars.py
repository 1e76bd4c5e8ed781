"""How far long work is, on stderr: bars on a terminal, plain lines in a pipe or a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bagformer_cli.cli import console
from bagformer_cli.cli.wording import duration, in_words
from bagformer_cli.errors import in_place
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress, Task

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LEAST_SECONDS = 0.5  # work that took less leaves no line behind
PLAIN_SECONDS = 10.0  # how often long work says a line where there is no terminal


@contextmanager
def progress() -> Iterator[Progress]:
    """A :class:`Progress` to hand to long work: bars on a terminal, plain lines elsewhere."""
    if not console.errors().is_terminal:
        yield _PlainProgress()
        return
    from rich import progress as rich

    bars = rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=28, complete_style="cyan"),
        rich.TextColumn("{task.fields[count]}", markup=False),
        rich.TextColumn("{task.fields[timing]}", style="cyan"),
        rich.TextColumn("{task.fields[status]}", style="dim", markup=False),
        console=console.errors(),
        transient=True,
        redirect_stdout=False,  # results never go to stderr
        refresh_per_second=8,
    )
    with console.live(), bars:
        yield _BarProgress(bars)


class _Clock:
    """How far a piece of work is, and how it is said."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.started = time.monotonic()
        self.status = ""

    def advance(self, n: int, status: Mapping[str, object]) -> None:
        self.done += n
        if status:
            self.status = "  ".join(f"{name} {in_words(value)}" for name, value in status.items())

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
        return in_place(f"{took}{status}", self.description)


class _BarTask:
    def __init__(self, bars: RichProgress, task: TaskID, clock: _Clock) -> None:
        self._bars, self._task, self._clock = bars, task, clock

    def advance(self, n: int = 1, **status: object) -> None:
        clock = self._clock
        clock.advance(n, status)
        self._bars.update(
            self._task, advance=n, count=clock.count, timing=clock.timing, status=clock.status
        )


class _BarProgress:
    def __init__(self, bars: RichProgress) -> None:
        self._bars, self._depth = bars, 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        clock = _Clock(description, total, unit)
        indent = "  " * self._depth
        task = self._bars.add_task(
            indent + description, total=total, count=clock.count, timing="", status=""
        )
        self._depth += 1
        try:
            yield _BarTask(self._bars, task, clock)
        finally:
            self._depth -= 1
            self._bars.remove_task(task)
        # Work inside other work leaves no line behind.
        if self._depth == 0 and clock.seconds >= LEAST_SECONDS:
            console.done(clock.finished)

    def info(self, message: str) -> None:
        console.info(message)

    def warn(self, message: str) -> None:
        console.warn(message)


class _PlainTask:
    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._next = clock.started + PLAIN_SECONDS

    def advance(self, n: int = 1, **status: object) -> None:
        clock = self._clock
        clock.advance(n, status)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_SECONDS
            parts = (clock.count, clock.timing, clock.status)
            console.info(in_place("  ".join(part for part in parts if part), clock.description))


class _PlainProgress:
    def __init__(self) -> None:
        self._depth = 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        clock = _Clock(description, total, unit)
        self._depth += 1
        try:
            yield _PlainTask(clock)
        finally:
            self._depth -= 1
        if self._depth == 0 and clock.seconds >= LEAST_SECONDS:
            console.info(clock.finished)

    def info(self, message: str) -> None:
        console.info(message)

    def warn(self, message: str) -> None:
        console.warn(message)
