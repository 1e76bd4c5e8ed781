"""Everything that is shown: results on stdout, progress, warnings and errors on stderr.

The only file that knows Rich, which it imports when it first draws something: printing JSON or a
help page costs nothing. On a terminal there are colours and bars; in a pipe or a log there are
plain lines.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bagformer_cli.errors import XmrError
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_WIDTH = 240  # columns of a table that goes to a file or a pipe: wide enough not to crop
LEAST_SECONDS = 0.5  # work that took less leaves no line behind
LONGEST_CELL = 120  # characters of a text in a table
PLAIN_SECONDS = 10.0  # how often long work says a line where there is no terminal

BAG_STYLES = {"lexicon": "bold green", "pattern": "bold cyan", "token": ""}
TYPE_STYLES = {  # of dictionary entries that are no plain word
    **dict.fromkeys(("brand",), "bold magenta"),
    **dict.fromkeys(("colour", "material", "pattern", "style", "function"), "yellow"),
    **dict.fromkeys(("audience", "season", "scene", "place"), "blue"),
    **dict.fromkeys(("selling",), "dim"),
}


@dataclass
class _Settings:
    json: bool = False
    debug: bool = False
    live: bool = False  # bars are on the screen


_settings = _Settings()
_consoles: dict[str, tuple[object, Console]] = {}


def reset() -> None:
    """Forget the options and streams of an earlier run in this process."""
    _settings.json = _settings.debug = False
    _consoles.clear()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a character the terminal cannot show is no reason to stop
            reconfigure(errors="backslashreplace")


def set_json(value: bool) -> bool:
    """The callback of ``--json``."""
    _settings.json = _settings.json or value
    return value


def set_debug(value: bool) -> bool:
    """The callback of ``--debug``."""
    _settings.debug = _settings.debug or value
    return value


# --- results, on stdout ---------------------------------------------------------------------------


def result(data: object, show: Callable[[], None]) -> None:
    """Print a command's result: ``data`` as one JSON object with ``--json``, else ``show()``."""
    if _settings.json:
        print_json(data)
    else:
        show()


def wants_json() -> bool:
    """Whether ``--json`` was given."""
    return _settings.json


def print_json(data: object) -> None:
    """Print one JSON value on one line: UTF-8, numbers as they are, NaN and infinities as null."""
    sys.stdout.write(json.dumps(_plain(data), ensure_ascii=False, allow_nan=False) + "\n")


def say(text: str = "") -> None:
    """Print a line as it is."""
    sys.stdout.write(f"{text}\n")


def heading(text: str) -> None:
    """Print a heading, an empty line before it."""
    from rich.text import Text

    say()
    _out().print(Text(text, style="bold"), soft_wrap=True)


def facts(pairs: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
        grid.add_row(Text(name, style="dim"), Text(_cell(value)))
    _draw(grid)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    best: Sequence[int] = (),
) -> None:
    """Print a table; numbers stand on the right, floats have two decimals.

    Args:
        columns: The headings.
        rows: The cells; None is shown as a dash.
        title: A line above.
        best: Indices of columns whose largest number is set in bold.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    numeric = [
        any(isinstance(row[i], (int, float)) for row in rows)
        and all(row[i] is None or isinstance(row[i], (int, float)) for row in rows)
        for i in range(len(columns))
    ]
    drawn = Table(
        box=box.SIMPLE_HEAD, show_edge=False, title=title, title_justify="left", title_style="bold"
    )
    for column, right in zip(columns, numeric, strict=True):
        drawn.add_column(column, justify="right" if right else "left", overflow="fold")
    top = {i: max((row[i] for row in rows if row[i] is not None), default=None) for i in best}
    for row in rows:
        drawn.add_row(
            *(
                Text(
                    _shorten(_cell(value), LONGEST_CELL),
                    style="bold" if i in top and value == top[i] else "",
                )
                for i, value in enumerate(row)
            )
        )
    _draw(drawn)


def recall_table(
    stages: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str | None = None
) -> None:
    """Print the recalls of an evaluation, in percent.

    Args:
        stages: Stage (``recall``, ``rerank``, ``merged``) -> direction (``text_to_image``,
            ``image_to_text``) -> metric (``recall@1``, …, ``mean_recall``) -> percent: the
            ``"stages"`` of ``xmr eval --json``.
        title: A line above.
    """
    directions = {
        "text_to_image": tr("text → image"),
        "image_to_text": tr("image → text"),
    }
    names = {"recall": tr("recall"), "rerank": tr("rerank"), "merged": tr("merged")}
    metrics = ("recall@1", "recall@5", "recall@10", "mean_recall")
    rows = [
        [
            directions[direction],
            names.get(stage, stage),
            *(found[direction].get(m) for m in metrics),
        ]
        for direction in directions
        for stage, found in stages.items()
        if direction in found
    ]
    columns = [tr("direction"), tr("stage"), "R@1", "R@5", "R@10", tr("mean recall")]
    table(columns, rows, title=title)


class Spanned(Protocol):
    """What :func:`bags` needs of a bag (``text.segmenter.Bag`` is one)."""

    @property
    def text(self) -> str:
        """The characters of the bag."""

    @property
    def source(self) -> str:
        """``lexicon``, ``pattern`` or ``token``."""


def bags(found: Iterable[Spanned], *, label: str = "") -> None:
    """Print a title as its bags, coloured by what each is, with bars between them."""
    from rich.text import Text

    line = Text().append(f"{label}  " if label else "", style="dim")
    for i, bag in enumerate(found):
        line.append("│" if i else "", style="dim")
        style = BAG_STYLES.get(bag.source, "")
        if bag.source == "lexicon":
            style = TYPE_STYLES.get(getattr(bag, "type", None) or "", style)
        line.append(bag.text, style=style)
    _out().print(line, soft_wrap=True)


def bags_legend() -> None:
    """Print what the colours of :func:`bags` mean (nothing where there are no colours)."""
    from rich.text import Text

    if _out().color_system is None:
        return
    names = {
        BAG_STYLES["lexicon"]: tr("dictionary entry"),
        TYPE_STYLES["brand"]: tr("brand"),
        TYPE_STYLES["colour"]: tr("property"),
        TYPE_STYLES["audience"]: tr("for whom, when, where"),
        TYPE_STYLES["selling"]: tr("selling word"),
        BAG_STYLES["pattern"]: tr("found by a pattern"),
        BAG_STYLES["token"]: tr("single token"),
    }
    parts = [Text(name, style=style) for style, name in names.items()]
    _out().print(Text("  ").join(parts), soft_wrap=True)


def next_steps(commands: Iterable[tuple[str, str]]) -> None:
    """Print commands to try next, each with what it does."""
    from rich.text import Text

    heading(tr("Next"))
    for command, what in commands:
        _out().print(
            Text("  ").append(command, style="bold cyan").append(f"   # {what}", style="dim"),
            soft_wrap=True,
        )


# --- progress, notes and warnings, on stderr ------------------------------------------------------


def info(message: str) -> None:
    """Say something worth a line, on stderr."""
    _note(_text().append(message))


def warn(message: str, where: object = None) -> None:
    """Say something the user should look at, on stderr; the work goes on."""
    place = "" if where is None else f"{where}: "
    _note(_text().append(tr("Warning"), style="bold yellow").append(f"  {place}{message}"))


@contextmanager
def progress() -> Iterator[Progress]:
    """A :class:`Progress` to hand to long work: bars on a terminal, plain lines elsewhere."""
    if not _err().is_terminal:
        yield _PlainProgress()
        return
    from rich import progress as rich

    bars = rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=28, complete_style="cyan"),
        rich.TextColumn("{task.fields[count]}", markup=False),
        rich.TextColumn("{task.fields[timing]}", style="cyan"),
        rich.TextColumn("{task.fields[status]}", style="dim", markup=False),
        console=_err(),
        transient=True,
        redirect_stdout=False,  # results never go to stderr
        refresh_per_second=8,
    )
    _settings.live = True
    try:
        with bars:
            yield _BarProgress(bars)
    finally:
        _settings.live = False


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
            self.status = "  ".join(f"{name} {_cell(value)}" for name, value in status.items())

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
        count = f"{self.done:,}{unit}, " if self.done > 1 else ""
        status = f"  {self.status}" if self.status else ""
        return f"{self.description}: {count}{duration(self.seconds)}{status}"


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
            _note(_text().append("✓ ", style="green").append(clock.finished))

    def info(self, message: str) -> None:
        info(message)

    def warn(self, message: str) -> None:
        warn(message)


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
            info(f"{clock.description}: {'  '.join(part for part in parts if part)}")


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
            info(clock.finished)

    def info(self, message: str) -> None:
        info(message)

    def warn(self, message: str) -> None:
        warn(message)


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


# --- errors, on stderr ----------------------------------------------------------------------------


def error(failure: XmrError, cause: BaseException | None = None) -> None:
    """Print an error as one block: what, where, found, expected, what to do next.

    Args:
        failure: What to say.
        cause: What was raised; its traceback comes first with ``--debug``.
    """
    if _settings.debug:
        traceback.print_exception(cause or failure, file=sys.stderr)
    block = _text().append(tr("Error"), style="bold red").append(f"  {failure.message}\n")
    details = {
        tr("where"): failure.where,
        tr("found"): failure.found,
        tr("expected"): failure.expected,
    }
    width = max(map(cells, details))
    for name, value in details.items():
        if value is not None:
            block.append(f"  {name}{' ' * (width - cells(name))}  ", style="dim")
            block.append(f"{_shorten(value)}\n")
    if failure.hint is not None:
        block.append("  → ", style="cyan").append(f"{failure.hint}\n")
    _err().print(block, end="", soft_wrap=True)


def interrupted() -> None:
    """Say in one line that the user stopped the command."""
    info(tr("Stopped."))


# --- text -----------------------------------------------------------------------------------------

_NEVER_FIRST = set("，。、；：？！）》”’％…")
_NEVER_LAST = set("（《“‘")


def cells(text: str) -> int:
    """How many terminal columns ``text`` takes; a Chinese character takes two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrap(text: str, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` columns, between words or Chinese characters.

    A line never starts with closing punctuation nor ends with an opening bracket; a word longer
    than a line is left whole.
    """
    lines: list[str] = []
    line = ""
    for piece in _pieces(" ".join(text.split())):
        fits = cells(line) + cells(piece) <= width or piece in _NEVER_FIRST
        if line and not fits:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> Iterator[str]:
    """What a line may be broken between: words, the spaces between them, wide characters."""
    word = ""
    for character in text:
        alone = character == " " or character in _NEVER_LAST or cells(character) == 2
        if alone and word and word[-1] not in _NEVER_LAST:
            yield word
            word = ""
        word += character
        if alone and character not in _NEVER_LAST:
            yield word
            word = ""
    if word:
        yield word


# --- inside ---------------------------------------------------------------------------------------


def _out() -> Console:
    return _console("out", sys.stdout)


def _err() -> Console:
    return _console("err", sys.stderr)


def _console(name: str, stream: Any) -> Console:
    held = _consoles.get(name)
    # While bars are shown, Rich has put a stream of its own in the place of stderr.
    if held is None or (held[0] is not stream and not _settings.live):
        from rich.console import Console

        made = Console(file=stream, highlight=False, markup=False, emoji=False)
        if not made.is_terminal and "COLUMNS" not in os.environ:
            made.width = PLAIN_WIDTH
        held = _consoles[name] = (stream, made)
    return held[1]


def _draw(renderable: Any) -> None:
    """Print a table on stdout; where there is no terminal, without the blanks that pad it."""
    out = _out()
    if out.is_terminal:
        out.print(renderable)
        return
    with out.capture() as capture:
        out.print(renderable)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    say("\n".join(line for line in lines if line))


def _note(text: Any) -> None:
    """Print a line on stderr; one that Rich does not break unless bars have to stay below it."""
    _err().print(text, soft_wrap=not _settings.live)


def _text() -> Any:
    from rich.text import Text

    return Text()


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        small = value != 0 and abs(value) < 0.01
        return f"{value:.3g}" if small or not math.isfinite(value) else f"{value:,.2f}"
    return str(value)


def _shorten(text: str, limit: int = 600) -> str:
    """Cut a long value: an error block stays one screen, a table a table."""
    text = text.replace("\n", "\n    ")
    return text if len(text) <= limit else f"{text[:limit]}…"


def _plain(data: object) -> object:
    """``data`` as what ``json`` writes: dataclasses, NumPy values, paths, sets included."""
    if data is None or isinstance(data, (str, bool, int)):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if is_dataclass(data) and not isinstance(data, type):
        return _plain(asdict(data))
    if hasattr(data, "tolist"):  # NumPy arrays and scalars, torch tensors
        return _plain(data.tolist())
    if isinstance(data, Iterable):
        return [_plain(value) for value in data]
    return str(data)
