r"""Cut the lines of a CSV or TSV into rows of cells, so that a stray quote costs its own row only.

A cell that begins with a quote ends at the next quote that stands before a separator or the end
of the line; ``""`` inside is one quote. Everywhere else a quote is a character like others::

    1,a.jpg,"红裙, ""大码"" 款"     1 | a.jpg | 红裙, "大码" 款
    1,a.jpg,27"显示器              1 | a.jpg | 27"显示器
    1,a.jpg,"大码" 红裙            1 | a.jpg | "大码" 红裙        closed before the cell ends: text

A quoted cell may contain line breaks. If its quote is not closed as CSV requires, or if one of the
lines that it would take in is a row of the table by itself, then the quote is a stray one: the
line is reported as broken, and the next row begins on the next line::

    a1,p1.jpg,"27寸,89        broken: its quote is not closed
    a2,p2.jpg,白鞋,19         a row

A TSV has no quotes: its cells contain neither tabs nor line breaks.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import NamedTuple

from bagformer_cli.data.text_form import TextLine
from bagformer_cli.errors import DataError, shortened
from bagformer_cli.messages import tr

QUOTE = '"'
_FORMULA = re.compile(r'"=""([^",;\t]*)"""|(?:(?<=[,;\t])|^)="([^",;\t]*)"(?=[,;\t]|$)')
"""``="00123"``: how programs keep Excel from reading a code as a number."""

MAX_QUOTED = 1 << 20
"""Characters of the longest cell that goes over several lines. A larger value reads further ahead
after a stray quote."""


class Row(NamedTuple):
    """The cells of a row, and why they cannot be used.

    Args:
        cells: The text of its cells.
        first: Number of its first line.
        last: Number of its last line.
        end: Offset of the next row.
        error: Why it cannot be used; None: it can.
    """

    cells: list[str]
    first: int
    last: int
    end: int
    error: DataError | None = None


IsRow = Callable[[list[str]], bool]
"""Returns whether the cells of one line look like a row of the table."""


class RowReader(Iterator[Row]):
    """Rows of a CSV or TSV, one at a time.

    Args:
        lines: The lines of the file.
        separator: A comma, a tab or a semicolon.
        quotes: Whether cells may be quoted.
    """

    def __init__(self, lines: Iterator[TextLine], separator: str, quotes: bool) -> None:
        self.separator, self.quotes = separator, quotes
        self.is_row: IsRow | None = None
        """Set by the caller when it knows the headings."""
        self._lines = lines
        self._again: deque[TextLine] = deque()  # lines that were read ahead
        self._line: list[str] = []  # what the csv module reads next; making a reader takes 1 µs
        self._csv = csv.reader(iter(self._line.pop, None), delimiter=separator, strict=True)

    def __next__(self) -> Row:
        line = self._again.popleft() if self._again else next(self._lines)
        text, number, end, error = line
        if error is not None:
            return Row([text], number, number, end, error)
        if not self.quotes or QUOTE not in text:
            return Row(text.split(self.separator), number, number, end, _unusable(text))
        if '="' in text or '"=' in text:
            text = _FORMULA.sub(lambda found: found[1] or found[2] or "", text)
        if (cells := self._plain_csv(text)) is not None:
            return Row(cells, number, number, end)
        cutter = _Cutter(self.separator)
        state = cutter.feed(text)
        if state is State.OPEN:
            return self._over_lines(line, cutter)
        error = _stray_quote(text) if state is State.STRAY else _unusable(cutter.plain, text)
        return Row(cutter.cells, number, number, end, error)

    def _plain_csv(self, text: str) -> list[str] | None:
        """Cut a line in which all quotes are regular, five times as fast; None for another."""
        if "\0" in text:
            return None
        self._line.append(text)
        try:
            cells = next(self._csv)
        except (csv.Error, IndexError):  # IndexError: it asks for another line
            return None
        if ' "' in text:
            for cell in cells:
                if cell[:1] == " " and cell.lstrip(" ")[:1] == QUOTE:
                    return None  # the csv module takes a quote after blanks as text
        return cells

    def _next_line(self) -> TextLine | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _over_lines(self, first: TextLine, cutter: _Cutter) -> Row:
        """Read the further lines of a quoted cell, or find that its quote is a stray one."""
        taken: list[TextLine] = []
        size, nul = 0, "\0" in first.text
        while (line := self._next_line()) is not None:
            taken.append(line)
            size += len(line.text)
            nul = nul or "\0" in line.text
            if line.error is not None or size > MAX_QUOTED or self._is_row_alone(line.text):
                break
            state = cutter.feed(line.text)
            if state is State.STRAY:
                break
            if state is State.COMPLETE:
                error = _unusable(cutter.plain, "\0" if nul else "")
                return Row(cutter.cells, first.number, line.number, line.end, error)
        self._again.extendleft(reversed(taken))
        cells = first.text.split(self.separator)
        return Row(cells, first.number, first.number, first.end, _stray_quote(first.text))

    def _is_row_alone(self, text: str) -> bool:
        if self.is_row is None or self.separator not in text:
            return False
        cutter = _Cutter(self.separator)
        complete = cutter.feed(text) is State.COMPLETE
        return self.is_row(cutter.cells if complete else text.split(self.separator))


class State(Enum):
    """The state of a row after one of its lines."""

    COMPLETE = auto()
    OPEN = auto()  # a quoted cell continues in the next line
    STRAY = auto()  # a quote does not close as CSV requires


class _Cutter:
    """Cuts one row, line by line, into ``cells``.

    Args:
        separator: The character between cells.
    """

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self.cells: list[str] = []
        self.plain = ""
        """Text of the cells that are not quoted."""
        self._open: list[str] | None = None  # the lines of the quoted cell that is not closed yet

    def feed(self, text: str) -> State:
        """Cut the next line."""
        position = 0
        if self._open is not None:
            position = self._quoted(text, 0)
        while 0 <= position <= len(text):
            quote = position
            while text.startswith(" ", quote):
                quote += 1
            if text.startswith(QUOTE, quote):
                self._open = []
                position = self._quoted(text, quote + 1)
            else:
                position = self._unquoted(text, position, position)
        if position < 0:
            return State.STRAY
        return State.COMPLETE if self._open is None else State.OPEN

    def _unquoted(self, text: str, begin: int, after: int) -> int:
        """Take the cell that ends at the first separator from ``after``; return what follows it."""
        end = text.find(self.separator, after)
        end = len(text) if end < 0 else end
        self.cells.append(text[begin:end])
        self.plain += text[begin:end]
        return end + 1

    def _quoted(self, text: str, begin: int) -> int:
        """Read a quoted cell on from ``begin``; return what follows it, or -1 for a stray quote."""
        assert self._open is not None
        close = text.find(QUOTE, begin)
        while close >= 0 and text.startswith(QUOTE * 2, close):
            close = text.find(QUOTE, close + 2)
        if close < 0:
            self._open.append(text[begin:])
            return len(text) + 1
        after = close + 1
        while text.startswith(" ", after):
            after += 1
        content = text[begin:close]
        if after == len(text) or text.startswith(self.separator, after):
            self.cells.append("\n".join([*self._open, content]).replace(QUOTE * 2, QUOTE))
            self._open = None
            return after + 1
        if self._open or self.separator in content:
            return -1  # the end of the cell is not known
        self._open = None
        return self._unquoted(text, begin - 1, after)


def _unusable(plain: str, text: str = "") -> DataError | None:
    """Return the error for characters that no cell may contain."""
    if "\0" in plain or "\0" in text:
        return DataError(
            tr("The row contains a NUL character."),
            hint=tr("The file may be damaged, or in another encoding."),
        )
    if "\r" in plain or "\n" in plain:
        return DataError(
            tr("A cell without quotes contains a line break."),
            found=shortened(plain),
            hint=tr("Put a cell that contains a line break in double quotes."),
        )
    return None


def _stray_quote(text: str) -> DataError:
    return DataError(
        tr("A quote is opened and not closed."),
        found=shortened(text),
        hint=tr('Remove the quote, or put the whole cell in quotes and write "" for one inside.'),
    )
