"""Print results on stdout; notes, warnings and errors on stderr.

Only this module and ``bars`` use Rich. They import it when something is first drawn, so that JSON
and help pages do not pay for it. A terminal gets colours; a pipe or a log file gets plain lines.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bagformer_cli.cli.formatting import display_width, format_value, to_json_value, truncate
from bagformer_cli.errors import XmrError, with_place
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPE_WIDTH = 240  # columns of a table in a pipe or a file: wide enough that nothing is cropped
MAX_CELL_LENGTH = 120  # characters of a text in a table


@dataclass
class _Settings:
    json: bool = False
    debug: bool = False
    bars_shown: bool = False


_settings = _Settings()
_consoles: dict[str, tuple[object, Console]] = {}


def reset() -> None:
    """Forget the options and streams of an earlier run in this process."""
    _settings.json = _settings.debug = False
    _consoles.clear()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # escape characters that the terminal's encoding lacks
            reconfigure(errors="backslashreplace")


def set_json(value: bool) -> bool:
    """Note that ``--json`` was given (its callback)."""
    _settings.json = _settings.json or value
    return value


def set_debug(value: bool) -> bool:
    """Note that ``--debug`` was given (its callback)."""
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
    """Say whether ``--json`` was given."""
    return _settings.json


def print_json(data: object) -> None:
    """Print a value as one line of JSON, converted by :func:`to_json_value`."""
    text = json.dumps(to_json_value(data), ensure_ascii=False, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def say(text: str = "") -> None:
    """Print a line unchanged."""
    sys.stdout.write(f"{text}\n")


def styled(spans: Iterable[tuple[str, str]]) -> None:
    """Print one line of spans, each a text and a Rich style such as ``bold green``."""
    _stdout().print(_text(*spans), soft_wrap=True)


def has_colours() -> bool:
    """Say whether stdout is a terminal that shows colours."""
    return _stdout().color_system is not None


def heading(text: str) -> None:
    """Print an empty line and a heading."""
    say()
    styled([(text, "bold")])


def facts(values: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in values.items():
        grid.add_row(Text(name, style="dim"), Text(format_value(value)))
    _draw(grid)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    best: Sequence[int] = (),
) -> None:
    """Print a table. Columns of numbers are aligned to the right.

    Args:
        columns: The headings.
        rows: The cells, formatted by :func:`format_value`.
        title: A line above the table.
        best: Indices of columns in which the largest number is bold.
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
                    truncate(format_value(value), MAX_CELL_LENGTH),
                    style="bold" if i in top and value == top[i] else "",
                )
                for i, value in enumerate(row)
            )
        )
    _draw(drawn)


def next_steps(commands: Iterable[tuple[str, str]]) -> None:
    """Print commands to try next, each with a comment."""
    heading(tr("Next"))
    for command, comment in commands:
        styled([("  ", ""), (command, "bold cyan"), (f"   # {comment}", "dim")])


# --- notes and warnings, on stderr ----------------------------------------------------------------


def info(message: str) -> None:
    """Print a note on stderr."""
    _note((message, ""))


def warn(message: str, where: object = None) -> None:
    """Print a warning on stderr, after the place it is about; the command continues."""
    _note((tr("Warning"), "bold yellow"), (f"  {with_place(message, where)}", ""))


def done(message: str) -> None:
    """Print on stderr that a long task is finished."""
    _note(("✓ ", "green"), (message, ""))


@contextmanager
def bars_shown() -> Iterator[None]:
    """While progress bars are shown, keep notes above them."""
    _settings.bars_shown = True
    try:
        yield
    finally:
        _settings.bars_shown = False


# --- errors, on stderr ----------------------------------------------------------------------------


def error(failure: XmrError, cause: BaseException | None = None) -> None:
    """Print an error as one block: message, where, found, expected, hint.

    Args:
        failure: The error to print.
        cause: The exception it was made of. With ``--debug`` its traceback is printed first.
    """
    if _settings.debug:
        traceback.print_exception(cause or failure, file=sys.stderr)
    spans = [(tr("Error"), "bold red"), (f"  {failure.message}\n", "")]
    details = {
        tr("where"): failure.where,
        tr("found"): failure.found,
        tr("expected"): failure.expected,
    }
    width = max(map(display_width, details))
    for name, value in details.items():
        if value is not None:
            spans.append((f"  {name}{' ' * (width - display_width(name))}  ", "dim"))
            spans.append((f"{truncate(value)}\n", ""))
    if failure.hint is not None:
        spans += [("  → ", "cyan"), (f"{failure.hint}\n", "")]
    stderr_console().print(_text(*spans), end="", soft_wrap=True)


def interrupted() -> None:
    """Print that the user stopped the command."""
    info(tr("Stopped."))


# --- streams --------------------------------------------------------------------------------------


def stderr_console() -> Console:
    """Return the Rich console on stderr, on which ``bars`` draws."""
    return _console("stderr", sys.stderr)


def _stdout() -> Console:
    return _console("stdout", sys.stdout)


def _console(name: str, stream: Any) -> Console:
    """Return the console of a stream, made again if the stream was replaced."""
    known = _consoles.get(name)
    # While bars are shown, Rich itself replaces sys.stderr: that is not a new stream.
    if known is None or (known[0] is not stream and not _settings.bars_shown):
        from rich.console import Console

        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = PIPE_WIDTH
        known = _consoles[name] = (stream, console)
    return known[1]


def _draw(renderable: Any) -> None:
    """Print a table on stdout; in a pipe, without padding and empty lines."""
    out = _stdout()
    if out.is_terminal:
        out.print(renderable)
        return
    with out.capture() as capture:
        out.print(renderable)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    say("\n".join(line for line in lines if line))


def _note(*spans: tuple[str, str]) -> None:
    """Print a line on stderr. Bars below it need it broken into lines of the terminal's width."""
    stderr_console().print(_text(*spans), soft_wrap=not _settings.bars_shown)


def _text(*spans: tuple[str, str]) -> Text:
    from rich.text import Text

    return Text.assemble(*spans)
