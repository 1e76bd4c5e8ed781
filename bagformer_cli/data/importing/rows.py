"""Rows of a table for ``xmr data import``: an image and a title that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.data.columns import accepted_headings, columns_of
from bagformer_cli.data.muge import SPLITS
from bagformer_cli.data.muge_lines import parse_id
from bagformer_cli.data.table import read_records
from bagformer_cli.errors import DataError, InputError, nearest
from bagformer_cli.messages import tr


@dataclass(frozen=True, slots=True)
class Row:
    """An image path and a title, with their ids and split if the table has them."""

    where: str
    image: str
    title: str
    image_id: int | None = None
    query_id: int | None = None
    split: str | None = None


def read_rows(source: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """Read the (image, title) rows of a CSV, TSV or JSONL table.

    Raises:
        InputError: The file cannot be read, or a column is missing.
        DataError: A line is broken; the error names it.
    """
    for record in read_records(source, encoding, check=_require_image_and_title):
        if record.error is not None:
            raise record.error
        columns = columns_of(record.values)
        yield _row({name: record.values[own] for name, own in columns.items()}, record.where)


def _require_image_and_title(headings: Sequence[str], where: str) -> None:
    names = columns_of(headings)
    if "image" not in names and "title" not in names:
        raise InputError(
            tr("The table has neither images nor titles."),
            where=where,
            found=", ".join(headings),
            expected=tr(
                "a column of image paths ({images}) and one of titles ({titles})",
                images=accepted_headings("image"),
                titles=accepted_headings("title"),
            ),
            hint=tr("Rename the columns, or write a first line `image,title` above the others."),
        )
    for name in ("image", "title"):
        if name not in names:
            near = nearest(name, headings)
            raise InputError(
                tr("There is no column '{name}'.", name=name),
                where=where,
                found=", ".join(headings),
                expected=tr("one of: {names}", names=accepted_headings(name)),
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
    try:
        return parse_id(value.strip() if isinstance(value, str) else value, name, text=True)
    except DataError as error:
        error.where = where
        raise
