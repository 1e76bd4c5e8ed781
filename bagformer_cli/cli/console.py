"""Everything that is shown: results on stdout, notes, warnings and errors on stderr.

Only this file and ``bars`` know Rich, which is imported when something is first drawn: printing
JSON or a help page costs nothing. On a terminal there are colours; in a pipe or a log there are
plain lines.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bagformer_cli.cli.wording import cells, in_words, shorten
from bagformer_cli.errors import XmrError, in_place
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 240  # columns of a table that goes to a file or a pipe: wide enough not to crop
LONGEST_CELL = 120  # characters of a text in a table

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
        grid.add_row(Text(name, style="dim"), Text(in_words(value)))
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
                    shorten(in_words(value), LONGEST_CELL),
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


# --- notes and warnings, on stderr ----------------------------------------------------------------


def info(message: str) -> None:
    """Say something worth a line, on stderr."""
    _note(_text().append(message))


def warn(message: str, where: object = None) -> None:
    """Say something the user should look at, on stderr; the work goes on."""
    text = in_place(message, where)
    _note(_text().append(tr("Warning"), style="bold yellow").append(f"  {text}"))


def done(message: str) -> None:
    """Say that a piece of long work is done."""
    _note(_text().append("✓ ", style="green").append(message))


@contextmanager
def live() -> Iterator[None]:
    """While bars are on the screen: what is said stays above them."""
    _settings.live = True
    try:
        yield
    finally:
        _settings.live = False


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
            block.append(f"{shorten(value)}\n")
    if failure.hint is not None:
        block.append("  → ", style="cyan").append(f"{failure.hint}\n")
    errors().print(block, end="", soft_wrap=True)


def interrupted() -> None:
    """Say in one line that the user stopped the command."""
    info(tr("Stopped."))


# --- inside ---------------------------------------------------------------------------------------


def _out() -> Console:
    return _console("out", sys.stdout)


def errors() -> Console:
    """The console on stderr, for what is drawn there over time."""
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
    errors().print(text, soft_wrap=not _settings.live)


def _text() -> Any:
    from rich.text import Text

    return Text()


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
