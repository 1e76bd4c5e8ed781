"""Catalogues that are CSV, TSV or JSONL tables: any columns, typed by their values.

Opening a table reads it once: to check the headings, to find the type of every attribute, and to
find the offsets at which parts of ``size`` products begin. A part then reads its own records only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.data.catalogue.products import Part, Product, Value, digest_of, part_name
from bagformer_cli.data.table import (
    COLUMNS,
    HEADLESS,
    JSON_ENDINGS,
    Record,
    Start,
    columns_of,
    read_records,
)
from bagformer_cli.errors import DataError, InputError, nearest
from bagformer_cli.messages import tr

ID_COLUMNS = ("id", "product_id", "sku", *COLUMNS["image_id"], *COLUMNS["query_id"], "编号")
RESERVED = ("thumbnail", "vector", "vectors", "scale", "count", "_rowid", "_distance", "_score")
"""Names that an index uses itself, alone or after ``image_`` and ``title_``."""

TYPES = ("bool", "int", "float", "str")
"""Types of attributes, from narrow to wide: an attribute has the widest type of its values."""


@dataclass(frozen=True, slots=True)
class TablePart(Part):
    """Records of a table.

    Args:
        source: The table.
        encoding: Encoding of the table.
        start: The first record.
        end: Offset of the first byte after the last record.
        root: Folder that relative image paths start from.
        types: Attribute to its type, one of :data:`TYPES`.
    """

    source: Path
    encoding: str
    start: Start
    end: int
    root: Path
    types: dict[str, str]

    def products(self) -> Iterator[Product | InputError]:
        """Read the records; one that is no product gives its error in its place."""
        records = read_records(self.source, self.encoding, known=ID_COLUMNS, start=self.start)
        for record in records:
            try:
                yield _product(record, self.root, self.types)
            except InputError as error:
                yield error
            if record.end >= self.end:
                return


@dataclass(frozen=True, slots=True)
class OpenedTable:
    """The result of one pass over a table.

    Args:
        parts: The parts of the catalogue.
        types: Attribute to its type.
        count: Number of products.
        remarks: Sentences about values that look like mistakes but are no errors.
    """

    parts: tuple[Part, ...]
    types: dict[str, str]
    count: int
    remarks: tuple[str, ...]


def open_table(
    path: Path, root: Path, encoding: str, part_size: int, settled: Mapping[str, str]
) -> OpenedTable:
    """Read a table once, to find its parts and the types of its attributes.

    Args:
        path: The table.
        root: Folder that relative image paths start from.
        encoding: Encoding of the table.
        part_size: Number of products in a part.
        settled: Types that the index already has for some attributes; they are kept.

    Raises:
        InputError: It has neither images nor titles, or a column name that the index uses itself.
        DataError: A line is broken.
    """
    seen: dict[str, _Seen] = {}
    bounds: list[tuple[int, int, int]] = []  # of each part: begin, end, lines before
    headings: list[str] | None = None

    def check(found: Sequence[str], where: str) -> None:
        nonlocal headings
        _check_headings(found, where)
        headings = headings or list(found)

    count = 0
    begin = end = line = first = 0
    for record in read_records(path, encoding, known=ID_COLUMNS, check=check):
        if record.error is None:
            for name, value in _attributes(record.values).items():
                seen.setdefault(name, _Seen()).add(value, record.where)
        if count % part_size == 0:
            if count:
                bounds.append((begin, end, first))
            begin, first = end, line
        end, line = record.end, record.line
        count += 1
    if count:
        bounds.append((begin, end, first))
    columns = None if path.suffix.lower() in JSON_ENDINGS else headings or HEADLESS
    types = {name: settled.get(name, TYPES[one.widest]) for name, one in seen.items()}
    remarks = tuple(
        tr(
            "'{name}' is stored as text, not numbers: {value} ({where}) is not a number.",
            name=name,
            where=one.where,
            value=repr(one.text),
        )
        for name, one in seen.items()
        if types[name] == "str" and one.numbers > one.count / 2
    )
    options = (str(root), encoding, columns, tuple(types.items()))
    parts = tuple(
        TablePart(
            part_name(number),
            digest_of([ByteRange(path, begin, end).digest(), options]),
            path,
            encoding,
            Start(begin, lines, columns if begin else None),  # the first part has them in it
            end,
            root,
            types,
        )
        for number, (begin, end, lines) in enumerate(bounds)
    )
    return OpenedTable(parts, types, count, remarks)


@dataclass
class _Seen:
    """The values of one attribute: how many, how many numbers, and the first that is text."""

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
                tr("This column name is reserved by the index."),
                where=where,
                found=name,
                hint=tr("Rename '{name}'.", name=name),
            )


def _product(record: Record, root: Path, types: dict[str, str]) -> Product:
    if record.error is not None:
        raise record.error
    values = record.values
    names = columns_of(values)
    image = _text(values, names.get("image"), record.where)
    title = _text(values, names.get("title"), record.where)
    if image is None and title is None:
        raise DataError(tr("The product has neither image nor title."), where=record.where)
    column = _id_column(values)
    identity = None if column is None else str(values[column]).strip()
    if column is not None and not identity:
        raise DataError(tr("The {name} is empty.", name=column), where=record.where)
    attributes = {
        name: _converted(value, types.get(name, "str"), name, record.where)
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
    """The columns that are not empty and are neither id nor image nor title."""
    names = columns_of(values)
    taken = {_id_column(values), names.get("image"), names.get("title")}
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
        for name, value in values.items()
        if name not in taken and value is not None and value != ""
    }


def _type_of(value: Any) -> int:
    """Index in :data:`TYPES` of the narrowest type that holds the value."""
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
        return (
            1 if digits == "0" or not digits.startswith("0") else 3
        )  # 00123 is a code, not a number
    try:
        float(text)
    except ValueError:
        return 3
    return 2 if text.lower().lstrip("+-") not in {"nan", "inf", "infinity"} else 3


def _converted(value: Any, kind: str, name: str, where: str) -> Value:
    if _type_of(value) > TYPES.index(kind):
        raise DataError(
            tr("The index stores the attribute '{name}' with another type.", name=name),
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
