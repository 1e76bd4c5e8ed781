"""CSV, TSV and JSONL tables, read line by line, from any byte where a record begins.

Two readers stand on it: ``xmr data import`` wants (image path, title) and ids; a catalogue
(``data/product_table.py``) wants whatever columns there are.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bagformer_cli.data.muge import SPLITS
from bagformer_cli.errors import DataError, InputError, cannot_read, nearest
from bagformer_cli.messages import tr

COLUMNS = {
    "image": ("image", "image_path", "path", "file", "图片"),
    "title": ("title", "text", "query_text", "caption", "标题"),
    "image_id": ("image_id", "item_id"),
    "query_id": ("query_id", "text_id"),
    "split": ("split",),
}
"""What a column may be called; only image and title must be there."""

JSON_ENDINGS = {".jsonl", ".json", ".ndjson"}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a table, as it stands there.

    Args:
        where: File and line.
        values: Column name to value: text in a CSV, anything in a JSONL.
        line: Number of its last line in the file, from 1.
        end: Offset of the byte behind it.
        wrong: What keeps it from being read, or None.
    """

    where: str
    values: dict[str, Any]
    line: int
    end: int
    wrong: DataError | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: an image and a title that belong together."""

    where: str
    image: str
    title: str
    image_id: int | None = None
    query_id: int | None = None
    split: str | None = None


Check = Callable[[Sequence[str], str], None]


def read_records(
    source: Path,
    encoding: str = "utf-8",
    *,
    headless: Sequence[str] = ("image", "title"),
    known: Collection[str] = (),
    check: Check | None = None,
    header: Sequence[str] | None = None,
    begin: int = 0,
    line: int = 0,
) -> Iterator[Record]:
    """The records of a table; it streams.

    Args:
        source: A ``.csv``, ``.tsv`` or JSONL file.
        encoding: Of the table (Excel in China often writes ``gb18030``).
        headless: The columns of a CSV whose first line has no heading that is known.
        known: Headings that are known beside :data:`COLUMNS`.
        check: Told the headings and where they stand (of a JSONL: of every line; of a CSV also
            where the first line looks like headings that nobody knows); may refuse.
        header: The headings, where reading starts behind them.
        begin: The byte to start from: 0, or where a record begins.
        line: How many lines stand before that byte.

    Raises:
        InputError: It cannot be read, it is in another encoding, or ``check`` refuses it.
        DataError: A line is no record; the error names it.
    """
    codec = "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" and not begin else encoding
    try:
        stream = open(source, "rb")  # noqa: SIM115 - the message below is for opening alone
    except OSError as error:
        raise cannot_read(source, error) from error
    with stream:
        stream.seek(begin)
        lines = _Lines(source, stream, codec, begin, line)
        if source.suffix.lower() in JSON_ENDINGS:
            yield from _objects(lines, check)
        else:
            yield from _cells(lines, header, headless, known, check)


def read_table(source: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """The (image, title) lines of a CSV, TSV or JSONL table.

    Raises:
        InputError: It cannot be read, or a column is missing.
        DataError: A line is broken; the error names it.
    """
    for record in read_records(source, encoding, check=_require_both):
        if record.wrong is not None:
            raise record.wrong
        names = columns_of(record.values)
        yield _row({name: record.values[own] for name, own in names.items()}, record.where)


def columns_of(headings: Iterable[str]) -> dict[str, str]:
    """Which of the headings is the image, the title ...; empty where none has a known name."""
    plain = {heading.lower(): heading for heading in headings}
    found = {}
    for name, spellings in COLUMNS.items():
        for spelling in spellings:
            if spelling in plain:
                found[name] = plain[spelling]
                break
    return found


class _Lines:
    """Decoded lines, and how far the file is read; what ``csv.reader`` takes."""

    def __init__(
        self, source: Path, stream: BinaryIO, codec: str, position: int, number: int
    ) -> None:
        self.source, self._stream, self._codec = source, stream, codec
        self.position, self.number = position, number

    @property
    def where(self) -> str:
        return f"{self.source}:{self.number}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline()
        if not raw:
            raise StopIteration
        self.number += 1
        first = self.position == 0
        self.position += len(raw)
        try:
            text = raw.decode(self._codec if first else self._codec.removesuffix("-sig"))
        except LookupError:
            raise InputError(tr("There is no such encoding."), found=self._codec) from None
        except UnicodeDecodeError as error:
            raise InputError(
                tr("The file is not {encoding} text.", encoding=self._codec.removesuffix("-sig")),
                where=self.where,
                found=tr(
                    "byte {byte} at column {column}",
                    byte=error.object[error.start],
                    column=error.start,
                ),
                hint=tr("A table from Excel in China: try --encoding gb18030"),
            ) from None
        return text


def _cells(
    lines: _Lines,
    header: Sequence[str] | None,
    headless: Sequence[str],
    known: Collection[str],
    check: Check | None,
) -> Iterator[Record]:
    delimiter = "\t" if lines.source.suffix.lower() == ".tsv" else ","
    names = header
    try:
        for cells in csv.reader(lines, delimiter=delimiter):
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = [cell.strip() for cell in cells]
                named = columns_of(names) or any(name.lower() in known for name in names)
                if check is not None and (named or _is_word(names[0])):
                    check(names, lines.where)
                if named:
                    continue
                names = headless
            values = dict(zip(names, cells, strict=False))
            wrong = None
            if any(cell.strip() for cell in cells[len(names) :]) and list(names) != list(headless):
                wrong = DataError(
                    tr("The line has more cells than there are headings."),
                    where=lines.where,
                    found=len(cells),
                    expected=len(names),
                    hint=tr("A cell with a comma in it goes in double quotes."),
                )
            yield Record(lines.where, values, lines.number, lines.position, wrong)
    except csv.Error as error:
        raise DataError(tr("The line is not CSV."), where=lines.where, found=error) from None


def _is_word(cell: str) -> bool:
    """Whether it is a heading that nobody knows rather than an image's path: ``name``, ``名称``."""
    return cell.isidentifier() and not any(character.isdigit() for character in cell)


def _objects(lines: _Lines, check: Check | None) -> Iterator[Record]:
    for text in lines:
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise DataError(
                tr("The line is not a JSON object."),
                where=lines.where,
                found=repr(text.rstrip("\r\n")[:60]),
                expected='{"image": "a.jpg", "title": "…"}',
            )
        if check is not None:
            check(list(values), lines.where)
        yield Record(lines.where, values, lines.number, lines.position)


def _require_both(headings: Sequence[str], where: str) -> None:
    names = columns_of(headings)
    if "image" not in names and "title" not in names:
        raise InputError(
            tr("The table has neither images nor titles."),
            where=where,
            found=", ".join(headings),
            expected=tr(
                "a column of image paths ({images}) and one of titles ({titles})",
                images=", ".join(COLUMNS["image"]),
                titles=", ".join(COLUMNS["title"]),
            ),
            hint=tr("Rename the columns, or write a first line `image,title` above the others."),
        )
    require(("image", "title"), headings, where)


def require(wanted: Iterable[str], headings: Sequence[str], where: str) -> None:
    """Make sure that columns of those names, in any spelling, are there.

    Raises:
        InputError: One is not; the nearest heading is named.
    """
    names = columns_of(headings)
    for name in wanted:
        if name not in names:
            near = nearest(name, headings)
            raise InputError(
                tr("There is no column '{name}'.", name=name),
                where=where,
                found=", ".join(headings),
                expected=tr("one of: {names}", names=", ".join(COLUMNS[name])),
                hint=tr("Rename '{name}'.", name=near) if near else None,
            )


def _row(values: dict[str, Any], where: str) -> Row:
    for name in ("image", "title"):
        value = values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise DataError(tr("The {name} is empty.", name=name), where=where, found=repr(value))
    split = values.get("split") or None
    if split is not None and split not in SPLITS:
        raise DataError(
            tr("There is no such split."), where=where, found=split, expected=", ".join(SPLITS)
        )
    return Row(
        where,
        values["image"].strip(),
        values["title"].strip(),
        _id(values.get("image_id"), "image_id", where),
        _id(values.get("query_id"), "query_id", where),
        split,
    )


def _id(value: object, name: str, where: str) -> int | None:
    if value is None or value == "":
        return None
    number = -1
    if type(value) is int:
        number = value
    elif isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        number = int(value) if len(value) < 20 else -1
    if not 0 <= number < 2**63:
        raise DataError(
            tr("'{field}' is not a whole number.", field=name),
            where=where,
            found=repr(value),
            expected=tr("a whole number, 0 to 2^63 - 1"),
        )
    return number
