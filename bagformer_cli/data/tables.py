"""A CSV, TSV or JSONL table of (image path, title), read line by line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.data.muge import SPLITS
from bagformer_cli.errors import DataError, InputError, nearest
from bagformer_cli.messages import tr

COLUMNS = {
    "image": ("image", "image_path", "path", "file", "图片"),
    "title": ("title", "text", "query_text", "caption", "标题"),
    "image_id": ("image_id", "item_id"),
    "query_id": ("query_id", "text_id"),
    "split": ("split",),
}
"""What a column may be called; only image and title must be there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: an image and a title that belong together."""

    where: str
    image: str
    title: str
    image_id: int | None = None
    query_id: int | None = None
    split: str | None = None


def read_table(source: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """The lines of a CSV, TSV or JSONL table.

    Raises:
        InputError: It cannot be read, or a column is missing.
        DataError: A line is broken; the error names it.
    """
    codec = "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding
    try:
        text = source.read_bytes().decode(codec)
    except OSError as error:
        raise InputError(
            tr("The file cannot be read."), where=source, found=error.strerror
        ) from error
    except LookupError:
        raise InputError(tr("There is no such encoding."), found=encoding) from None
    except UnicodeDecodeError as error:
        raise InputError(
            tr("The file is not {encoding} text.", encoding=encoding),
            where=source,
            found=tr("byte {byte} at position {n}", byte=error.object[error.start], n=error.start),
            hint=tr("A table from Excel in China: try --encoding gb18030"),
        ) from None
    if source.suffix.lower() in {".jsonl", ".json", ".ndjson"}:
        return _read_jsonl(source, text)
    return _read_csv(source, text, "\t" if source.suffix.lower() == ".tsv" else ",")


def _read_csv(source: Path, text: str, delimiter: str) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names: dict[str, int] | None = None
    try:
        for cells in lines:
            where = f"{source}:{lines.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _columns([cell.strip() for cell in cells])
                if names:
                    _require(names, where, cells)
                    continue
                names = {"image": 0, "title": 1}
            values = {name: cells[i] for name, i in names.items() if i < len(cells)}
            yield _row(values, where)
    except csv.Error as error:
        raise DataError(
            tr("The line is not CSV."), where=f"{source}:{lines.line_num}", found=error
        ) from None


def _read_jsonl(source: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise DataError(
                tr("The line is not a JSON object."),
                where=where,
                found=repr(line[:60]),
                expected='{"image": "a.jpg", "title": "…"}',
            )
        keys = list(values)
        names = _columns(keys)
        _require(names, where, keys)
        yield _row({name: values[keys[i]] for name, i in names.items()}, where)


def _columns(headings: list[str]) -> dict[str, int]:
    """Which column is which; empty where none has a name that is known."""
    plain = [heading.lower() for heading in headings]
    found = {}
    for name, spellings in COLUMNS.items():
        for spelling in spellings:
            if spelling in plain:
                found[name] = plain.index(spelling)
                break
    return found


def _require(names: dict[str, int], where: str, headings: Iterable[str]) -> None:
    for name in ("image", "title"):
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
