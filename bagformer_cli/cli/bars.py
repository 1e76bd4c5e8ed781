"""Show the progress of long tasks on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bagformer_cli.cli import console
from bagformer_cli.cli.formatting import duration, format_value
from bagformer_cli.cli.layout import GAP, shortened
from bagformer_cli.cli.printable import one_line
from bagformer_cli.cli.tables import Spans, hanging
from bagformer_cli.errors import with_place
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress, Task
from bagformer_cli.wrapping import display_width

if TYPE_CHECKING:
    from rich.text import Text

MIN_SECONDS = 0.5  # a shorter task leaves no line when it is finished
MIN_BAR, MAX_BAR, MIN_NAME = 8, 28, 10  # columns
PLAIN_INTERVAL = 10.0  # seconds between two lines of a task without a terminal


@contextmanager
def progress() -> Iterator[Progress]:
    """Provide a :class:`Progress` that shows bars on a terminal and plain lines elsewhere."""
    if not console.draws_bars():
        yield _PlainProgress()
        return
    from rich.live import Live

    shown = _BarProgress()
    live = Live(
        console=console.stderr_console(),
        get_renderable=shown.draw,
        transient=True,
        redirect_stdout=False,  # results never go to stderr
        refresh_per_second=8,
    )
    shown.refresh = live.refresh
    with console.bars_shown(), live:
        yield shown


class _TaskState:
    """Count, time and status of a task, and their texts."""

    def __init__(self, description: str, total: int | None, amount: str) -> None:
        self.description, self.total, self.amount = description, total, amount
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
    def _counts_bytes(self) -> bool:
        """True if bytes are counted: of a file that is read, only the share is shown."""
        return self.amount == tr("{n} bytes", n="{n}")

    @property
    def count(self) -> str:
        if self._counts_bytes and self.total:
            return f"{self.done / self.total:.0%}"
        if self.total is None:
            return self.amount.format(n=f"{self.done:,}") if self.done else ""
        return self.amount.format(n=f"{self.done:,}/{self.total:,}")

    @property
    def timing(self) -> str:
        if self.total and 0 < self.done < self.total and self.seconds > 0.5:
            left = self.seconds / self.done * (self.total - self.done)
            return tr("{time} left", time=duration(left))
        return duration(self.seconds)

    @property
    def finished(self) -> str:
        values = {"task": self.description, "time": duration(self.seconds)}
        status = f"  {self.status}" if self.status else ""
        if self.done > 1 and not self._counts_bytes:
            count = self.amount.format(n=f"{self.done:,}")
            return tr("{task}: {count}, {time}", count=count, **values) + status
        return tr("{task}: {time}", **values) + status


class _BarTask:
    def __init__(self, state: _TaskState) -> None:
        self._state = state

    def advance(self, n: int = 1, **status: object) -> None:
        self._state.advance(n, status)


class _BarProgress:
    """The tasks in progress, drawn as one bar each with its status below."""

    def __init__(self) -> None:
        self._tasks: list[_TaskState] = []
        self.refresh: Callable[[], None] = lambda: None

    def draw(self) -> Text:
        """Return the lines of all tasks, for the width of the terminal."""
        from rich.text import Text

        width = console.stderr_width() - 1  # a full line would make some terminals scroll
        lines = Text(no_wrap=True, end="")
        for depth, state in enumerate(list(self._tasks)):
            for number, line in enumerate(bar_lines(state, "  " * depth, width)):
                lines.append("\n" if depth or number else "")
                for text, style in line:
                    lines.append(text, style)
        return lines

    @contextmanager
    def task(
        self, description: str, total: int | None = None, amount: str = "{n}"
    ) -> Iterator[Task]:
        state = _TaskState(description, total, amount)
        self._tasks.append(state)
        self.refresh()
        try:
            yield _BarTask(state)
        finally:
            self._tasks.remove(state)
        # A task inside another task leaves no line.
        if not self._tasks and state.seconds >= MIN_SECONDS:
            console.done(state.finished)

    def info(self, message: str) -> None:
        console.info(message)

    def warn(self, message: str) -> None:
        console.warn(message)


def bar_lines(state: _TaskState, indent: str, width: int) -> list[Spans]:
    """Lay out a task in progress: description, bar, count and time left; below them its status.

    In a narrow terminal the bar gets shorter, then it goes, then the description is cut, then count
    and time left get a line.
    """
    facts = "  ".join(part for part in (state.count, state.timing) if part)
    room = width - display_width(indent) - display_width(facts) - GAP
    if room < MIN_NAME:
        name = shortened(one_line(state.description), width - display_width(indent))
        lines: list[Spans] = [
            [(f"{indent}{name}", "")],
            [(shortened(f"{indent}  {facts}", width), "cyan")],
        ]
    else:
        name = shortened(one_line(state.description), room)
        room -= display_width(name) + GAP
        bar = _bar(state, min(room, MAX_BAR)) if state.total and room >= MIN_BAR else []
        lines = [[(f"{indent}{name}  ", ""), *bar, (facts, "cyan")]]
    status = one_line(state.status)
    if status:
        lines += hanging([(f"{indent}  ", "")], status, width, "dim")
    return lines


def _bar(state: _TaskState, cells: int) -> Spans:
    filled = min(cells, cells * state.done // (state.total or 1))
    return [("━" * filled, "cyan"), ("━" * (cells - filled), "dim"), (" " * GAP, "")]


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
    def task(
        self, description: str, total: int | None = None, amount: str = "{n}"
    ) -> Iterator[Task]:
        state = _TaskState(description, total, amount)
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
