"""Catalogues: products with an id, an image, a title and whatever else is known of them.

A catalogue is a folder of images, a CSV, TSV or JSONL table, MUGE's images file, a split of a
dataset in MUGE form, or a text file with a title on each line; all are cut into ``pieces``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.data.byte_ranges import stamp
from bagformer_cli.data.catalogue.parts import Piece, Product, digest_of, piece_name
from bagformer_cli.data.catalogue.product_lines import (
    images_of,
    is_images_file,
    split_of,
    titles_of,
)
from bagformer_cli.data.catalogue.product_table import look_over
from bagformer_cli.data.muge import MugeFolder, naming_of
from bagformer_cli.data.table import JSON_ENDINGS
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
TABLE_ENDINGS = {".csv", ".tsv", *JSON_ENDINGS}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue, looked over but not read.

    Args:
        source: What it was opened from.
        pieces: Its parts, in order.
        attributes: Name to one of ``product_table.TYPES``.
        count: How many products, or None where only reading tells.
        remarks: What is odd and not wrong, in sentences.
    """

    source: Path
    pieces: tuple[Piece, ...]
    attributes: dict[str, str]
    count: int | None = None
    remarks: tuple[str, ...] = ()

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
        found = Catalogue(path, titles_of(path), {})
    elif is_images_file(path):
        found = Catalogue(path, images_of(path), {})
    elif path.suffix.lower() in TABLE_ENDINGS:
        found = Catalogue(
            path, *look_over(path, root or path.parent, encoding, piece_size, types or {})
        )
    else:
        raise InputError(
            tr("This is no catalogue."),
            where=path,
            expected=tr("a folder of images, a CSV, TSV or JSONL table, or a dataset in MUGE form"),
        )
    if not found.pieces:
        raise InputError(tr("The catalogue is empty: there is no product in it."), where=path)
    return found


def _open_folder(path: Path, split: str | None, piece_size: int) -> Catalogue:
    if naming_of(path) is not None:
        return Catalogue(path, *split_of(MugeFolder(path), split))
    if split is not None:
        raise InputError(
            tr("A folder of images has no splits."), where=path, found=f"--split {split}"
        )
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")
    )
    found = []
    for begin in range(0, len(names), piece_size):
        chosen = tuple(names[begin : begin + piece_size])
        digest = digest_of([(name, *stamp(path / name)[:2]) for name in chosen])
        name = piece_name(begin // piece_size)
        found.append(Piece(name, _folder_products, path, digest, 0, len(chosen), 0, chosen))
    return Catalogue(path, tuple(found), {}, len(names))


def _folder_products(piece: Piece) -> Iterator[Product | InputError]:
    for name in piece.options:
        path = str(piece.source / name)
        yield Product(path, name, path)
