"""Products, and pieces of catalogues that can be read alone, in any process.

Each piece has a digest of what it is read from, so that work on a catalogue is resumable and can be
spread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from bagformer_cli.data.byte_ranges import stamp
from bagformer_cli.errors import InputError

Value = str | int | float | bool


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
        read: Reads it.
        source: The folder or file.
        digest: Changes where what the piece is read from changes (images that a table or a folder
            names: their name, and in a folder their size and time).
        begin: First byte, or first file.
        end: One past the last.
        line: Lines before the first byte.
        options: What else reading needs.
    """

    name: str
    read: Reader
    source: Path
    digest: str
    begin: int
    end: int
    line: int = 0
    options: tuple[Any, ...] = ()

    def products(self) -> Iterator[Product | InputError]:
        """The products of the piece; what is broken gives its error in its place."""
        return self.read(self)


Reader: TypeAlias = Callable[[Piece], Iterator[Product | InputError]]
"""Gives the products of a piece; what is broken gives its error in its place."""


def byte_pieces(path: Path, read: Reader, options: tuple[Any, ...], size: int) -> tuple[Piece, ...]:
    """Pieces of so many bytes; a line belongs to the piece in which it begins."""
    total = path.stat().st_size
    inputs = [stamp(Path(options[0]))] if options and options[0] else []
    return tuple(
        Piece(
            piece_name(number),
            read,
            path,
            digest_of([bytes_digest(path, begin, min(total, begin + size)), options, inputs]),
            begin,
            begin + size,
            0,
            options,
        )
        for number, begin in enumerate(range(0, total, size))
    )


def piece_name(number: int) -> str:
    """Of a catalogue's piece."""
    return f"part-{number:05}"


def digest_of(values: Any) -> str:
    """Stands for what a piece is read from."""
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()[:16]


def bytes_digest(path: Path, begin: int, end: int) -> str:
    """Stands for a range of bytes: their hash."""
    found = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        stream.seek(begin)
        left = end - begin
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            found.update(chunk)
            left -= len(chunk)
    return found.hexdigest()
