"""Catalogues with a product on each line: MUGE's images files and splits, and plain titles."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from bagformer_cli.data.byte_ranges import line_at
from bagformer_cli.data.catalogue.parts import Piece, Product, Value, byte_pieces
from bagformer_cli.data.muge import QUERIES_NAME, SPLITS, MugeFolder, iter_queries
from bagformer_cli.data.muge_lines import parse_image_line, read_lines
from bagformer_cli.data.table import JSON_ENDINGS
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr

_IMAGE_BYTES, _TITLE_BYTES = 32 << 20, 1 << 20  # of a piece


def titles_of(path: Path) -> tuple[Piece, ...]:
    """Pieces of a text file with a title on each line, or of MUGE's queries file."""
    return byte_pieces(path, _title_products, (), _TITLE_BYTES)


def images_of(path: Path) -> tuple[Piece, ...]:
    """Pieces of MUGE's images file, without titles."""
    return byte_pieces(path, _image_products, (None, None), _IMAGE_BYTES)


def split_of(folder: MugeFolder, split: str | None) -> tuple[tuple[Piece, ...], dict[str, str]]:
    """Pieces of a split of a dataset in MUGE form, and its attributes where it was drawn.

    Args:
        folder: The dataset.
        split: None: ``valid`` where it is there, else the first.
    """
    if split is None:
        split = "valid" if "valid" in folder.splits else next(iter(folder.splits), SPLITS[0])
    folder.require(split)
    queries = folder.queries_path(split)
    images = folder.images_path(split)
    drawn = folder.path / "attributes.jsonl"
    options = (str(queries), split if drawn.is_file() else None)
    attributes = {"category": "str", "colour": "str", "pattern": "str"} if options[1] else {}
    return byte_pieces(images, _image_products, options, _IMAGE_BYTES), attributes


def is_images_file(path: Path) -> bool:
    """Whether it is MUGE's images file: a number, a tab, base64."""
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
    from bagformer_cli.demo.attributes import read_attributes
    from bagformer_cli.demo.kinds import KINDS
    from bagformer_cli.demo.palette import COLOURS, PATTERNS

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
