"""Print results on stdout; notes, warnings and errors on stderr.

Only this module and ``bars`` use Rich. They import it when something is drawn on a terminal, so
that JSON, pipes and help pages do not pay for it. A terminal gets colours and wrapped lines; a pipe
or a log file gets plain lines. All texts are made safe by ``printable.py``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bagformer_cli.cli.formatting import to_json_value, truncate
from bagformer_cli.cli.layout import padded
from bagformer_cli.cli.printable import (
    adapt_streams,
    discard_output,
    one_line,
    printable,
    printable_json,
)
from bagformer_cli.cli.tables import Spans, fact_lines, flowing, hanging, table_lines
from bagformer_cli.errors import XmrError, with_place
from bagformer_cli.messages import tr
from bagformer_cli.wrapping import display_width

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MIN_WIDTH = 20  # columns; text is laid out for at least as many
USUAL_WIDTH = 80  # of a terminal that does not tell


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
    adapt_streams()
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *about: Any, **more: Any) -> None:
    """Print a warning of a library with ``--debug`` only: it is for programmers."""
    if _settings.debug:
        info(f"{type(message).__name__}: {message}")


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
    print_json_lines(json.dumps(to_json_value(data), ensure_ascii=False, allow_nan=False))


def print_json_lines(lines: str) -> None:
    """Print text that is JSON already, one value a line; ASCII only if stdout is not UTF-8."""
    sys.stdout.write(f"{printable_json(lines, sys.stdout)}\n")


def say(text: str = "") -> None:
    """Print a line; a terminal gets it wrapped between words."""
    for line in hanging([], text, _terminal_width(sys.stdout)):
        _print("stdout", line)


def styled(spans: Iterable[tuple[str, str]]) -> None:
    """Print spans, each a text and a Rich style such as ``bold green``, broken between them."""
    safe = [(one_line(text), style) for text, style in spans]
    for line in flowing(safe, _terminal_width(sys.stdout)):
        _print("stdout", line)


def has_colours() -> bool:
    """Say whether stdout is a terminal that shows colours."""
    return _is_terminal(sys.stdout) and _console("stdout").color_system is not None


def heading(text: str) -> None:
    """Print an empty line and a heading."""
    say()
    _title(text)


def facts(values: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    for line in fact_lines(values, _table_width()):
        _print("stdout", line)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
    best: Sequence[int] = (),
) -> None:
    """Print a table. Columns of numbers are aligned to the right.

    A terminal that is too narrow gets wrapped cells, then a list of values for each row.

    Args:
        columns: The headings.
        rows: The cells, formatted by ``format_value``.
        title: A line above the table.
        notes: A dim text below each row, or nothing.
        best: Indices of columns in which the largest number is bold.
    """
    if title is not None:
        _title(title)
    width = _table_width()
    for line in table_lines(columns, [list(row) for row in rows], width, notes=notes, best=best):
        _print("stdout", line)


def next_steps(commands: Iterable[tuple[str, str]]) -> None:
    """Print commands to try next, each with a comment."""
    heading(tr("Next"))
    width = _terminal_width(sys.stdout)
    for command, comment in commands:
        line = [("  ", ""), (command, "bold cyan"), (f"   # {comment}", "dim")]
        if width is None or sum(display_width(text) for text, _ in line) <= width:
            styled(line)
            continue
        _print("stdout", [("  ", ""), (printable(command), "bold cyan")])
        for part in hanging([("    # ", "dim")], comment, width, "dim"):
            _print("stdout", part)


# --- notes and warnings, on stderr ----------------------------------------------------------------


def info(message: str) -> None:
    """Print a note on stderr."""
    _note([], message)


def warn(message: str, where: object = None) -> None:
    """Print a warning on stderr, after the place it is about; the command continues."""
    _note([(tr("Warning"), "bold yellow"), ("  ", "")], with_place(message, where))


def done(message: str) -> None:
    """Print on stderr that a long task is finished."""
    _note([("✓ ", "green")], message)


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
        sys.stderr.write(printable("".join(traceback.format_exception(cause or failure))))
    details = {
        tr("where"): failure.where,
        tr("found"): failure.found,
        tr("expected"): failure.expected,
    }
    column = max(map(display_width, details))
    _note([(tr("Error"), "bold red"), ("  ", "")], failure.message)
    for name, value in details.items():
        if value is not None:
            _note([(f"  {padded(name, column)}  ", "dim")], truncate(value))
    if failure.hint is not None:
        _note([("  → ", "cyan")], failure.hint)


def interrupted() -> None:
    """Print that the user stopped the command."""
    info(tr("Stopped."))


# --- streams --------------------------------------------------------------------------------------


def draws_bars() -> bool:
    """Say whether stderr is a terminal on which a line can be drawn again."""
    return _is_terminal(sys.stderr) and os.environ.get("TERM", "") not in ("dumb", "unknown")


def stderr_console() -> Console:
    """Return the Rich console on stderr, on which ``bars`` draws."""
    return _console("stderr")


def stderr_width() -> int:
    """Return the columns of the terminal that stderr is."""
    return _terminal_width(sys.stderr) or USUAL_WIDTH


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty()) or bool(os.environ.get("FORCE_COLOR"))
    except ValueError:  # closed
        return False


def _terminal_width(stream: Any) -> int | None:
    """Return the columns of a terminal; None for a pipe or a file, whose lines are not wrapped."""
    if not _is_terminal(stream):
        return None
    return _asked_width() or max(MIN_WIDTH, _columns_of(stream) or USUAL_WIDTH)


def _asked_width() -> int | None:
    """Return the number of columns in ``COLUMNS``, if it is set."""
    given = os.environ.get("COLUMNS", "")
    return max(MIN_WIDTH, int(given)) if given.isdecimal() and int(given) else None


def _columns_of(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns  # 0 on some pseudo-terminals
    except (ValueError, OSError):
        return 0


def _table_width() -> int | None:
    """Return the columns of a table: the terminal's, or ``COLUMNS`` if a pipe sets it."""
    return _terminal_width(sys.stdout) or _asked_width()


def _console(name: str) -> Console:
    """Return the Rich console of a stream, made again if the stream was replaced."""
    stream = getattr(sys, name)
    known = _consoles.get(name)
    # While bars are shown, Rich itself replaces sys.stderr: that is not a new stream.
    if known is None or (known[0] is not stream and not _settings.bars_shown):
        from rich.console import Console

        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        known = _consoles[name] = (stream, console)
    return known[1]


def _title(text: str) -> None:
    for line in hanging([], one_line(text), _terminal_width(sys.stdout), "bold"):
        _print("stdout", line)


def _note(prefix: Spans, text: str) -> None:
    """Print a paragraph on stderr."""
    for line in hanging(prefix, text, _terminal_width(sys.stderr)):
        _print("stderr", line)


def _print(name: str, spans: Spans) -> None:
    """Print one line of safe spans: with Rich on a terminal, else as it is.

    A command continues when nobody reads its notes any more: its results may be wanted.
    """
    try:
        _write(name, spans)
    except OSError:
        if name != "stderr":
            raise
        discard_output(sys.stderr)


def _write(name: str, spans: Spans) -> None:
    stream = getattr(sys, name)
    if not _is_terminal(stream) and not (name == "stderr" and _settings.bars_shown):
        stream.write("".join(text for text, _ in spans).rstrip() + "\n")
        return
    # Bars below the line need it broken to the terminal's width.
    _console(name).print(_text(spans), soft_wrap=not _settings.bars_shown)


def _text(spans: Spans) -> Text:
    from rich.text import Text

    return Text.assemble(*spans)
