"""Catalogues that are CSV, TSV or JSONL tables: any columns, typed by what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.data.catalogue.parts import (
    Piece,
    Product,
    Value,
    bytes_digest,
    digest_of,
    piece_name,
)
from bagformer_cli.data.table import COLUMNS, JSON_ENDINGS, Record, columns_of, read_records
from bagformer_cli.errors import DataError, InputError, nearest
from bagformer_cli.messages import tr

ID_COLUMNS = ("id", "product_id", "sku", *COLUMNS["image_id"], *COLUMNS["query_id"], "编号")
RESERVED = ("thumbnail", "vector", "vectors", "scale", "count", "_rowid", "_distance", "_score")
"""Names that an index uses itself, alone or behind ``image_`` and ``title_``."""

TYPES = ("bool", "int", "float", "str")
"""What an attribute may be; where its values differ, the last of theirs in this order."""


def look_over(
    path: Path, root: Path, encoding: str, piece_size: int, settled: Mapping[str, str]
) -> tuple[tuple[Piece, ...], dict[str, str], int, tuple[str, ...]]:
    """One pass over a table: pieces, types of attributes, number of products, what is odd.

    Args:
        path: The table.
        root: What relative image paths start from.
        encoding: Of the table.
        piece_size: Products in a piece.
        settled: Types of attributes that are settled already.

    Raises:
        InputError: It has neither images nor titles, or a name that the index uses itself.
        DataError: A line is broken.
    """
    types: dict[str, _Seen] = {}
    found: list[tuple[int, int, int]] = []  # begin, end, lines before
    header: list[str] | None = None

    def check(headings: Sequence[str], where: str) -> None:
        nonlocal header
        _check_headings(headings, where)
        header = header or list(headings)

    count = 0
    begin = end = line = first = 0
    for record in read_records(path, encoding, known=ID_COLUMNS, check=check):
        if record.wrong is None:
            for name, value in _attributes(record.values).items():
                types.setdefault(name, _Seen()).add(value, record.where)
        if count % piece_size == 0:
            if count:
                found.append((begin, end, first))
            begin, first = end, line
        end, line = record.end, record.line
        count += 1
    if count:
        found.append((begin, end, first))
    headings = None if path.suffix.lower() in JSON_ENDINGS else header or ["image", "title"]
    kinds = {name: settled.get(name, TYPES[seen.widest]) for name, seen in types.items()}
    odd = tuple(
        tr("'{name}' is text, not numbers, because of {where}: {value}",
           name=name, where=seen.where, value=repr(seen.text))
        for name, seen in types.items()
        if kinds[name] == "str" and seen.numbers > seen.count / 2
    )  # fmt: skip
    options = (str(root), encoding, headings, tuple(kinds.items()))
    made = [
        Piece(
            piece_name(number),
            _products,
            path,
            digest_of([bytes_digest(path, begin, end), options]),
            begin,
            end,
            first,
            options,
        )
        for number, (begin, end, first) in enumerate(found)
    ]
    return tuple(made), kinds, count, odd


@dataclass
class _Seen:
    """What an attribute's values were: how many, how many numbers, and the first that was none."""

    widest: int = 0
    count: int = 0
    numbers: int = 0
    where: str = ""
    text: Any = None

    def add(self, value: Any, where: str) -> None:
        kind = _type_of(value)
        self.count += 1
        self.numbers += TYPES[kind] in ("int", "float")
        self.widest = max(self.widest, kind)
        if TYPES[kind] == "str" and not self.where:
            self.where, self.text = where, value


def _check_headings(headings: Sequence[str], where: str) -> None:
    names = columns_of(headings)
    if "image" not in names and "title" not in names:
        near = nearest("image", headings) or nearest("title", headings)
        raise InputError(
            tr("The table has neither images nor titles."),
            where=where,
            found=", ".join(headings),
            expected=tr("one of: {names}", names=", ".join(COLUMNS["image"] + COLUMNS["title"])),
            hint=tr("Rename '{name}'.", name=near) if near else None,
        )
    for name in headings:
        plain = name.lower().removeprefix("image_").removeprefix("title_")
        if plain in RESERVED:
            raise InputError(
                tr("The index uses this name itself."),
                where=where,
                found=name,
                hint=tr("Rename '{name}'.", name=name),
            )


def _products(piece: Piece) -> Iterator[Product | InputError]:
    root, encoding, header, kinds = piece.options
    types = dict(kinds)
    records = read_records(
        piece.source,
        encoding,
        known=ID_COLUMNS,
        header=header if piece.begin else None,  # the first piece has the headings in it
        begin=piece.begin,
        line=piece.line,
    )
    for record in records:
        try:
            yield _product(record, Path(root), types)
        except InputError as error:
            yield error
        if record.end >= piece.end:
            return


def _product(record: Record, root: Path, types: dict[str, str]) -> Product:
    if record.wrong is not None:
        raise record.wrong
    values = record.values
    names = columns_of(values)
    image = _text(values, names.get("image"), record.where)
    title = _text(values, names.get("title"), record.where)
    if image is None and title is None:
        raise DataError(tr("The product has neither image nor title."), where=record.where)
    number = _id_column(values)
    identity = None if number is None else str(values[number]).strip()
    if number is not None and not identity:
        raise DataError(tr("The {name} is empty.", name=number), where=record.where)
    attributes = {
        name: _as(value, types.get(name, "str"), name, record.where)
        for name, value in _attributes(values).items()
    }
    path = None if image is None else str(root / image)
    return Product(
        record.where, identity or image or str(record.line), path, None, title, attributes
    )


def _text(values: dict[str, Any], name: str | None, where: str) -> str | None:
    value = None if name is None else values.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(tr("'{field}' is not text.", field=name), where=where, found=repr(value))
    return value.strip() or None


def _id_column(values: dict[str, Any]) -> str | None:
    plain = {name.lower(): name for name in values}
    return next((plain[name] for name in ID_COLUMNS if name in plain), None)


def _attributes(values: dict[str, Any]) -> dict[str, Any]:
    """The columns that are neither id nor image nor title and hold something."""
    names = columns_of(values)
    taken = {_id_column(values), names.get("image"), names.get("title")}
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
        for name, value in values.items()
        if name not in taken and value is not None and value != ""
    }


def _type_of(value: Any) -> int:
    """The place of the narrowest type in :data:`TYPES` that holds the value."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return 1 if -(2**63) <= value < 2**63 else 3
    if isinstance(value, float):
        return 2
    text = str(value).strip()
    if text.lower() in {"true", "false"}:
        return 0
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        return 1 if digits == "0" or not digits.startswith("0") else 3  # 00123 is a name
    try:
        float(text)
    except ValueError:
        return 3
    return 2 if text.lower().lstrip("+-") not in {"nan", "inf", "infinity"} else 3


def _as(value: Any, kind: str, name: str, where: str) -> Value:
    if _type_of(value) > TYPES.index(kind):
        raise DataError(
            tr("The attribute '{name}' is of another type in the index.", name=name),
            where=where,
            found=repr(value),
            expected=kind,
        )
    match kind:
        case "bool":
            return value if isinstance(value, bool) else str(value).strip().lower() == "true"
        case "int":
            return int(value)
        case "float":
            return float(value)
        case _:
            return str(value)
