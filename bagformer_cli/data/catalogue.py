"""Catalogues: products with an id, an image, a title and whatever else is known of them.

A catalogue is a folder of images, a CSV, TSV or JSONL table, MUGE's images file, a split of a
dataset in MUGE form, or a text file with a title on each line. It is cut into *pieces* that can be
read alone, in any process, each with a digest of what it is read from: so work on a catalogue is
resumable and can be spread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from bagformer_cli.data.lines import parse_image_line, read_lines
from bagformer_cli.data.muge import QUERIES_NAME, SPLITS, MugeFolder, iter_queries, naming_of
from bagformer_cli.data.spans import line_at, stamp
from bagformer_cli.data.tables import COLUMNS, JSON_ENDINGS, Record, columns_of, read_records
from bagformer_cli.errors import DataError, InputError, nearest
from bagformer_cli.messages import tr

Value = str | int | float | bool
Kind = Literal["folder", "table", "images", "titles"]

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
TABLE_ENDINGS = {".csv", ".tsv", *JSON_ENDINGS}
ID_COLUMNS = ("id", "product_id", "sku", *COLUMNS["image_id"], *COLUMNS["query_id"], "编号")
RESERVED = ("thumbnail", "vector", "vectors", "scale", "count", "_rowid", "_distance", "_score")
"""Names that an index uses itself, alone or behind ``image_`` and ``title_``."""

TYPES = ("bool", "int", "float", "str")
"""What an attribute may be; where its values differ, the last of theirs in this order."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product.

    Args:
        where: File and line it comes from.
        id: Its name in the catalogue.
        image: Where its image is: a path, or what to call it; None: it has none.
        data: The image file's content; None: it is at ``image``.
        title: Its title, or None.
        attributes: What else is known: price, category ...
    """

    where: str
    id: str
    image: str | None = None
    data: bytes | None = None
    title: str | None = None
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a catalogue.

    Args:
        name: Of the piece, and of what is made from it.
        kind: How it is read.
        source: The folder or file.
        digest: Changes where what the piece is read from changes (images that a table or a folder
            names: their name, and in a folder their size and time).
        begin: First byte, or first file.
        end: One past the last.
        line: Lines before the first byte.
        options: What else reading needs.
    """

    name: str
    kind: Kind
    source: Path
    digest: str
    begin: int
    end: int
    line: int = 0
    options: tuple[Any, ...] = ()

    def products(self) -> Iterator[Product | InputError]:
        """The products of the piece; what is broken gives its error in its place."""
        match self.kind:
            case "folder":
                return _folder_products(self)
            case "table":
                return _table_products(self)
            case "images":
                return _image_products(self)
            case "titles":
                return _title_products(self)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue, looked over but not read.

    Args:
        source: What it was opened from.
        pieces: Its parts, in order.
        attributes: Name to one of :data:`TYPES`.
        count: How many products, or None where only reading tells.
    """

    source: Path
    pieces: tuple[Piece, ...]
    attributes: dict[str, str]
    count: int | None = None

    def __iter__(self) -> Iterator[Product | InputError]:
        for piece in self.pieces:
            yield from piece.products()


def open_catalogue(
    source: str | Path,
    *,
    split: str | None = None,
    root: Path | None = None,
    encoding: str = "utf-8",
    piece_size: int = 2048,
    titles: bool = False,
    types: Mapping[str, str] | None = None,
) -> Catalogue:
    """Look a catalogue over: its pieces and its attributes.

    Args:
        source: See the module.
        split: Of a dataset in MUGE form; None: ``valid`` where it is there, else the first.
        root: What relative image paths of a table start from; None: the table's folder.
        encoding: Of a table.
        piece_size: Products in a piece (of MUGE's images file: 32 MiB a piece).
        titles: The source is a text file of titles.
        types: Of attributes whose type is settled already, by the index they go to.

    Raises:
        InputError: There is no such catalogue, or nothing is in it.
        DataError: A line of the table is broken.
    """
    path = Path(source)
    if path.is_dir():
        if titles:
            raise InputError(tr("This is a folder; a file was expected."), where=path)
        found = _open_folder(path, split, piece_size)
    elif not path.is_file():
        raise InputError(
            tr("There is no such catalogue."),
            where=path,
            expected=tr("a folder of images, a CSV, TSV or JSONL table, or a dataset in MUGE form"),
        )
    elif titles or path.suffix.lower() == ".txt":
        found = Catalogue(path, _byte_pieces(path, "titles", (), 1 << 20), {})
    elif _is_images_file(path):
        found = Catalogue(path, _byte_pieces(path, "images", (None, None), _IMAGE_BYTES), {})
    elif path.suffix.lower() in TABLE_ENDINGS:
        found = _open_table(path, root or path.parent, encoding, piece_size, types or {})
    else:
        raise InputError(
            tr("This is no catalogue."),
            where=path,
            expected=tr("a folder of images, a CSV, TSV or JSONL table, or a dataset in MUGE form"),
        )
    if not found.pieces:
        raise InputError(tr("The catalogue is empty: there is no product in it."), where=path)
    return found


# ---------------------------------------------------------------------------------------- folders


def _open_folder(path: Path, split: str | None, piece_size: int) -> Catalogue:
    if naming_of(path) is not None:
        return _open_split(MugeFolder(path), split)
    if split is not None:
        raise InputError(
            tr("A folder of images has no splits."), where=path, found=f"--split {split}"
        )
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")
    )
    pieces = []
    for begin in range(0, len(names), piece_size):
        chosen = tuple(names[begin : begin + piece_size])
        digest = _digest([(name, *stamp(path / name)[:2]) for name in chosen])
        pieces.append(
            Piece(_name(begin // piece_size), "folder", path, digest, 0, len(chosen), 0, chosen)
        )
    return Catalogue(path, tuple(pieces), {}, len(names))


def _folder_products(piece: Piece) -> Iterator[Product | InputError]:
    for name in piece.options:
        path = str(piece.source / name)
        yield Product(path, name, path)


# ----------------------------------------------------------------------------------------- tables


def _open_table(
    path: Path, root: Path, encoding: str, piece_size: int, settled: Mapping[str, str]
) -> Catalogue:
    """One pass over the table: where pieces begin, and what type each attribute has."""
    types: dict[str, int] = {}
    pieces: list[tuple[int, int, int]] = []  # begin, end, lines before
    header: list[str] | None = None

    def check(headings: Sequence[str], where: str) -> None:
        nonlocal header
        _check_headings(headings, where)
        header = header or list(headings)

    count = 0
    begin = end = line = first = 0
    for record in read_records(path, encoding, known=ID_COLUMNS, check=check):
        for name, value in _attributes(record.values).items():
            types[name] = max(types.get(name, 0), _type_of(value))
        if count % piece_size == 0:
            if count:
                pieces.append((begin, end, first))
            begin, first = end, line
        end, line = record.end, record.line
        count += 1
    if count:
        pieces.append((begin, end, first))
    headings = None if path.suffix.lower() in JSON_ENDINGS else header or ["image", "title"]
    kinds = {name: settled.get(name, TYPES[place]) for name, place in types.items()}
    options = (str(root), encoding, headings, tuple(kinds.items()))
    made = [
        Piece(
            _name(number),
            "table",
            path,
            _digest([_bytes_digest(path, begin, end), options]),
            begin,
            end,
            first,
            options,
        )
        for number, (begin, end, first) in enumerate(pieces)
    ]
    return Catalogue(path, tuple(made), kinds, count)


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


def _table_products(piece: Piece) -> Iterator[Product | InputError]:
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


# ----------------------------------------------------------------------- MUGE's files, and titles

_IMAGE_BYTES = 32 << 20


def _open_split(folder: MugeFolder, split: str | None) -> Catalogue:
    if split is None:
        split = "valid" if "valid" in folder.splits else next(iter(folder.splits), SPLITS[0])
    folder.require(split)
    queries = folder.queries_path(split)
    images = folder.images_path(split)
    drawn = folder.path / "attributes.jsonl"
    options = (str(queries), split if drawn.is_file() else None)
    attributes = {"category": "str", "colour": "str", "pattern": "str"} if options[1] else {}
    return Catalogue(folder.path, _byte_pieces(images, "images", options, _IMAGE_BYTES), attributes)


def _is_images_file(path: Path) -> bool:
    if path.suffix.lower() != ".tsv":
        return False
    with open(path, "rb") as stream:
        raw = stream.readline(1 << 16)
    head, _, payload = raw.partition(b"\t")
    return head.isdigit() and len(payload) > 64 and b" " not in payload and b"." not in payload


def _image_products(piece: Piece) -> Iterator[Product | InputError]:
    queries, split = piece.options
    titles = _titles_of(queries) if queries else {}
    drawn = _drawn_attributes(str(piece.source.parent), split) if split else {}
    for raw, begin in read_lines(piece.source, piece.begin, piece.end):
        try:
            number, data = parse_image_line(raw)
        except DataError as error:
            error.where = f"{piece.source}:{line_at(piece.source, begin)}"
            yield error
            continue
        name = f"{piece.source}#{number}"
        yield Product(name, str(number), name, data, titles.get(number), drawn.get(number, {}))


@lru_cache(maxsize=2)
def _titles_of(queries: str) -> dict[int, str]:
    """Image id to the first query that it answers."""
    titles: dict[int, str] = {}
    for query in iter_queries(queries):
        for image in query.item_ids:
            titles.setdefault(image, query.text)
    return titles


@lru_cache(maxsize=2)
def _drawn_attributes(folder: str, split: str) -> dict[int, dict[str, Value]]:
    """Of a drawn dataset: kind, colour and pattern of the first thing in each picture."""
    from bagformer_cli.data.demo.attributes import read_attributes
    from bagformer_cli.data.demo.catalogue import KINDS
    from bagformer_cli.data.demo.palette import COLOURS, PATTERNS

    kinds = {kind.key: kind.name for kind in KINDS}
    colours = {colour.key: colour.name for colour in COLOURS}
    patterns = {pattern.key: pattern.name for pattern in PATTERNS}
    found: dict[int, dict[str, Value]] = {}
    for number, things in read_attributes(folder, split).images.items():
        first = things[0]
        found[number] = {
            "category": kinds.get(first.kind, first.kind),
            "colour": colours.get(str(first.colour), str(first.colour)),
            "pattern": patterns.get(str(first.pattern), str(first.pattern)),
        }
    return found


def _title_products(piece: Piece) -> Iterator[Product | InputError]:
    queries = piece.source.name.endswith(tuple(n.partition("}")[2] for n in QUERIES_NAME.values()))
    if queries and piece.source.suffix.lower() in JSON_ENDINGS:
        if piece.begin == 0:
            for query in iter_queries(piece.source):
                yield Product(f"{piece.source}:{query.query_id}", str(query.query_id), None, None,
                              query.text)  # fmt: skip
        return
    number = 0
    for raw, begin in read_lines(piece.source, piece.begin, piece.end):
        number = number + 1 if number else line_at(piece.source, begin)
        where = f"{piece.source}:{number}"
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            yield DataError(
                tr("The line is not UTF-8."),
                where=where,
                found=tr(
                    "byte {byte} at column {column}", byte=raw[error.start], column=error.start
                ),
                hint=tr("Save the file as UTF-8."),
            )
            continue
        if text:
            yield Product(where, str(number), None, None, text)
        else:
            yield DataError(tr("The title is empty."), where=where)


def _byte_pieces(path: Path, kind: Kind, options: tuple[Any, ...], size: int) -> tuple[Piece, ...]:
    """Pieces of so many bytes; a line belongs to the piece in which it begins."""
    total = path.stat().st_size
    inputs = [stamp(Path(options[0]))] if options and options[0] else []
    return tuple(
        Piece(
            _name(number),
            kind,
            path,
            _digest([_bytes_digest(path, begin, min(total, begin + size)), options, inputs]),
            begin,
            begin + size,
            0,
            options,
        )
        for number, begin in enumerate(range(0, total, size))
    )


def _name(number: int) -> str:
    return f"part-{number:05}"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()[:16]


def _bytes_digest(path: Path, begin: int, end: int) -> str:
    """Stands for a range of bytes: their hash."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        stream.seek(begin)
        left = end - begin
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
