"""Catalogues with one product per line: MUGE's images files and queries files, and plain titles.

Parts are byte ranges of the file. A part of an images file also reads the split's queries (for
titles), ``attributes.jsonl`` (for columns) and ``ids.jsonl`` (for ids), once per process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bagformer_cli.data.attributes import COLUMNS, FILE_NAME, Attributes, read_attributes
from bagformer_cli.data.byte_ranges import (
    ByteRange,
    byte_ranges,
    decode_line,
    digests_and_numbers,
    file_stamp,
)
from bagformer_cli.data.catalogue.products import Part, Product, digest_of, part_name
from bagformer_cli.data.muge import QUERIES_NAME, SPLITS, MugeFolder, iter_queries
from bagformer_cli.data.muge_lines import parse_image_line, parse_query_line
from bagformer_cli.data.product_ids import FILE_NAME as IDS
from bagformer_cli.data.product_ids import ids_of
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr
from bagformer_cli.text.characters import is_blank

IMAGE_BYTES, TITLE_BYTES = 32 << 20, 1 << 20  # bytes of a part


@dataclass(frozen=True, slots=True)
class ImagesPart(Part):
    """Images of a MUGE images file.

    Args:
        lines: The byte range.
        first: Number of the first line in the range, from 1.
        queries: The queries file that gives titles; None: no titles.
        split: The split in ``attributes.jsonl`` that gives attributes; None: no attributes.
    """

    lines: ByteRange
    first: int
    queries: Path | None = None
    split: str | None = None

    def products(self) -> Iterator[Product | InputError]:
        """Read the images with the first title that names each."""
        path = self.lines.path
        titles = _titles(self.queries) if self.queries else {}
        known = _attributes(path.parent, self.split) if self.split else Attributes({}, {})
        shop_ids = ids_of(path.parent).images if self.queries else {}
        for at, line in enumerate(self.lines.lines(), self.first):
            if line.blank:
                continue
            try:
                number, data = parse_image_line(line.content)
            except DataError as error:
                error.where = f"{path}:{at}"
                yield error
                continue
            name = f"{path}#{number}"
            own = shop_ids.get(number)
            yield Product(
                name,
                str(number) if own is None else own.id,
                name,
                data,
                titles.get(number),
                known.columns(number),
            )


@dataclass(frozen=True, slots=True)
class TitlesPart(Part):
    """Titles of a text file, or of a MUGE queries file.

    Args:
        lines: The byte range.
        first: Number of the first line in the range, from 1.
        queries: The lines are those of a queries file.
    """

    lines: ByteRange
    first: int
    queries: bool

    def products(self) -> Iterator[Product | InputError]:
        """Read the titles; the id is the query's, or the number of the line."""
        path = self.lines.path
        for number, line in enumerate(self.lines.lines(skip_blank_end=True), self.first):
            where = f"{path}:{number}"
            if self.queries and line.blank:
                continue
            try:
                if self.queries:
                    query = parse_query_line(line.content, items=False)
                    identity, title = query.query_id, query.text
                else:
                    identity, title = number, decode_line(line.content, where).strip()
            except DataError as error:
                error.where = where
                yield error
                continue
            if not is_blank(title):
                yield Product(where, str(identity), title=title)
            else:
                yield DataError(tr("The title is empty."), where=where)


def titles_of(path: Path) -> tuple[Part, ...]:
    """Divide a text file with one title per line, or MUGE's queries file, into parts."""
    endings = tuple(name.partition("}")[2] for name in QUERIES_NAME.values())
    queries = path.name.endswith(endings)
    ranges = byte_ranges(path, TITLE_BYTES)
    # Earlier versions read a whole queries file as its first part: the other digests must differ.
    how = ["by line"] if queries and len(ranges) > 1 else []
    return tuple(
        TitlesPart(part_name(n), digest_of([digest, how, []]), lines, first, queries)
        for n, (lines, (digest, first)) in enumerate(
            zip(ranges, digests_and_numbers(ranges), strict=True)
        )
    )


def images_of(path: Path) -> tuple[Part, ...]:
    """Divide MUGE's images file into parts, without titles."""
    return _image_parts(path, None, None)


def split_of(folder: MugeFolder, split: str | None) -> tuple[tuple[Part, ...], dict[str, str]]:
    """Divide a split of a dataset in MUGE form into parts.

    Args:
        folder: The dataset.
        split: Name of the split; None: ``valid`` if the dataset has it, else its first split.

    Returns:
        The parts, and the types of the attributes (empty without ``attributes.jsonl``).
    """
    if split is None:
        split = "valid" if "valid" in folder.splits else next(iter(folder.splits), SPLITS[0])
    folder.require(split)
    has_attributes = (folder.path / FILE_NAME).is_file()
    types = dict.fromkeys(COLUMNS.values(), "str") if has_attributes else {}
    parts = _image_parts(
        folder.images_path(split), folder.queries_path(split), split if has_attributes else None
    )
    return parts, types


def is_images_file(path: Path) -> bool:
    """Say whether a file is MUGE's images file: it starts with a number, a tab and base64."""
    if path.suffix.lower() != ".tsv":
        return False
    with open(path, "rb") as stream:
        raw = stream.readline(1 << 16)
    head, _, payload = raw.partition(b"\t")
    return head.isdigit() and len(payload) > 64 and b" " not in payload and b"." not in payload


def _image_parts(path: Path, queries: Path | None, split: str | None) -> tuple[Part, ...]:
    options = [None if queries is None else str(queries), split]
    stamps = [] if queries is None else [file_stamp(queries)]
    if queries is not None and (path.parent / IDS).is_file():
        stamps.append(file_stamp(path.parent / IDS))
    ranges = byte_ranges(path, IMAGE_BYTES)
    return tuple(
        ImagesPart(part_name(n), digest_of([digest, options, stamps]), lines, first, queries, split)
        for n, (lines, (digest, first)) in enumerate(
            zip(ranges, digests_and_numbers(ranges), strict=True)
        )
    )


@lru_cache(maxsize=2)
def _titles(queries: Path) -> dict[int, str]:
    """Image id to the first query that it answers."""
    titles: dict[int, str] = {}
    for query in iter_queries(queries):
        for image in query.item_ids:
            titles.setdefault(image, query.text)
    return titles


@lru_cache(maxsize=2)
def _attributes(folder: Path, split: str) -> Attributes:
    return read_attributes(folder, split)
