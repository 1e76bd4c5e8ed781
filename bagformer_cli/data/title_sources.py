"""Sources of titles for ``xmr bags`` and ``xmr dict``: a file, a pipe, or a column of a table.

They read a file with one title per line several times and in several processes. Anything else
becomes such a file first, in a temporary folder.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bagformer_cli.data.columns import accepted_headings, columns_of, require_chosen
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.table import JSON_ENDINGS, Record, read_records
from bagformer_cli.data.workbook import is_workbook
from bagformer_cli.errors import DataError, InputError, cannot_read, listed, shortened
from bagformer_cli.file_kinds import require_text_file
from bagformer_cli.files import disk_errors
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.temporary import scratch_folder
from bagformer_cli.text.characters import is_blank

PIPE_SECONDS = 10
"""How long a named pipe is read before its first byte."""

_LINE_BREAKS = re.compile(r"\s*[\r\n]\s*")
_PICTURE = re.compile(r"[./\\]")  # the first column of a table without headings holds images
_TEXT_TABLES = {".csv", ".tsv", *JSON_ENDINGS}


@contextmanager
def title_file(
    source: Path,
    encoding: str = "utf-8",
    *,
    chosen: Mapping[str, str] | None = None,
    sheet: str | None = None,
    progress: Progress = SILENT,
) -> Iterator[Path]:
    """Give a file with one title per line.

    Args:
        source: Such a file; a pipe; ``-`` for the standard input; or a CSV, TSV, JSONL or Excel
            table, whose titles are read; a line break in a title becomes a blank. A table of one
            column without a heading is a file of titles.
        encoding: Encoding of a table.
        chosen: ``title`` to the heading of its column, where the user named it.
        sheet: Name or number of a workbook's sheet; None: the first one.
        progress: Receives the rows of a table that are left out.

    Raises:
        InputError: The pipe cannot be read, nobody writes to it, or the table has no titles.
    """
    if str(source) == "-" or source.is_fifo() or source.is_socket():
        with scratch_folder() as folder:
            copy = folder / "titles.txt"
            _copy_pipe(source, copy)
            yield copy
    elif is_workbook(source) or _is_text_table(source, encoding, chosen or {}):
        check = partial(_require_titles, chosen=chosen or {})
        records = read_records(source, encoding, chosen=chosen, check=check, sheet=sheet)
        with scratch_folder() as folder:
            _write_titles(records, source, folder / "titles.txt", progress)
            yield folder / "titles.txt"
    else:
        if source.is_file():  # others are refused where the file is read
            require_text_file(source, tr("one title on each line"))
        yield source


def _is_text_table(source: Path, encoding: str, chosen: Mapping[str, str]) -> bool:
    """False for a text file, and for one column of which nothing says what it holds."""
    ending = source.suffix.lower()
    if ending not in _TEXT_TABLES or not source.is_file():
        return False
    headings: list[str] = []
    records = read_records(
        source, encoding, chosen=chosen, check=lambda found, _: headings.extend(found)
    )
    first = next(records, None)
    if first is None or ending in JSON_ENDINGS:
        return True
    if len(first.values) == 1:
        return "title" in columns_of(first.values, chosen)
    if first.line == 1 and not _PICTURE.search(str(first.values.get("image"))):
        found = headings or list(map(str, first.values.values()))
        _require_titles(found, first.where, chosen)
    return True


def _write_titles(records: Iterator[Record], source: Path, out: Path, progress: Progress) -> None:
    left_out = LeftOut(progress)
    count = 0
    with disk_errors(out), open(out, "w", encoding="utf-8", newline="\n") as stream:
        for record in records:
            try:
                stream.write(f"{_title(record)}\n")
                count += 1
            except DataError as error:
                error.where = record.where
                left_out(error)
    left_out.finish()
    if not count:
        raise left_out.nothing_left(tr("No title of this table can be used."), source)


def _title(record: Record) -> str:
    if record.error is not None:
        raise record.error
    value = record.values.get(record.columns["title"])
    if not isinstance(value, str) or is_blank(value):
        raise DataError(tr("The {name} is empty.", name=tr("title")), found=shortened(value))
    return _LINE_BREAKS.sub(" ", value.strip())


def _require_titles(headings: Sequence[str], where: str, chosen: Mapping[str, str]) -> None:
    require_chosen(headings, where, chosen)
    if "title" not in columns_of(headings, chosen):
        raise InputError(
            tr("There is no column '{name}'.", name="title"),
            where=where,
            found=shortened(listed(headings), 200),
            expected=tr("one of: {names}", names=accepted_headings("title")),
            hint=tr(
                "Name the column: --column title=…; or end the name of a file with one title per "
                "line in .txt."
            ),
        )


def _copy_pipe(source: Path, copy: Path) -> None:
    try:
        with disk_errors(copy), _stream(source) as stream, open(copy, "wb") as out:
            shutil.copyfileobj(stream, out)
    except OSError as error:
        raise cannot_read(source, error) from error


def _stream(path: Path) -> BinaryIO:
    """Open the standard input, a pipe of the shell (``<(command)``) or a named pipe."""
    if str(path) == "-":
        return open(0, "rb", closefd=False)
    if str(path).startswith(("/dev/", "/proc/")):
        return open(path, "rb")  # its writer runs: the shell made both
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # without the flag it waits for a writer
    stream = os.fdopen(handle, "rb")
    with selectors.DefaultSelector() as waiting:  # select.select refuses handles above 1,023
        waiting.register(handle, selectors.EVENT_READ)
        ready = waiting.select(PIPE_SECONDS)
    if not ready:
        stream.close()
        raise InputError(
            tr("Nobody writes to this pipe."),
            where=path,
            found=tr("nothing for {n} seconds", n=PIPE_SECONDS),
        )
    os.set_blocking(handle, True)
    return stream
