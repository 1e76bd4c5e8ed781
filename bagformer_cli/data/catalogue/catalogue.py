"""Open a catalogue: products with an id, an image, a title and further columns.

A catalogue is one of

- a folder of images;
- a CSV, TSV, JSONL or Excel table (``table.py``);
- MUGE's images file, or a split of a dataset in MUGE form (``lines.py``);
- a text file with one title per line, or MUGE's queries file (``lines.py``).

Each is divided into parts, which are read by any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from bagformer_cli.data.catalogue.folder import folder_parts
from bagformer_cli.data.catalogue.lines import images_of, is_images_file, split_of, titles_of
from bagformer_cli.data.catalogue.products import Part, Product, Remarks
from bagformer_cli.data.catalogue.table import TableOptions, open_table
from bagformer_cli.data.columns import are_headings
from bagformer_cli.data.downloads import Download
from bagformer_cli.data.image_files import ImageAccess
from bagformer_cli.data.muge import MugeFolder, naming_of
from bagformer_cli.data.table import JSON_ENDINGS
from bagformer_cli.data.table_formats import unreadable_kind
from bagformer_cli.data.table_headings import SEPARATORS
from bagformer_cli.data.workbook import ENDINGS
from bagformer_cli.errors import InputError, PathError, listed
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular, require_regular, require_text

TABLE_ENDINGS = {".csv", ".tsv", *JSON_ENDINGS, *ENDINGS}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue that is opened; iterating reads its products.

    Args:
        source: The file or folder.
        parts: Its parts, in order.
        attributes: Attribute to its type, one of ``bool``, ``float``, ``date``, ``str``.
        count: Number of products; None: known only after reading.
        remarks: Notes and warnings about its values.
    """

    source: Path
    parts: tuple[Part, ...]
    attributes: dict[str, str]
    count: int | None = None
    remarks: Remarks = field(default_factory=Remarks)

    def __iter__(self) -> Iterator[Product | InputError]:
        for part in self.parts:
            yield from part.products()


def open_catalogue(
    source: str | Path,
    *,
    split: str | None = None,
    root: Path | None = None,
    encoding: str = "utf-8",
    part_size: int = 2048,
    titles: bool = False,
    types: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    numbers: Sequence[str] = (),
    download: Download = "public",
    sheet: str | None = None,
) -> Catalogue:
    """Open a catalogue: find its parts and its attributes.

    Args:
        source: A file or folder; see the module.
        split: Split of a dataset in MUGE form; None: ``valid`` if it is there, else the first.
        root: Folder that relative image paths of a table start from, and that all images must be
            inside; None: the table's folder, and images may be anywhere.
        encoding: Encoding of a table.
        part_size: Number of products in a part of a table or folder. Parts of other files are
            byte ranges: 32 MiB of images, 1 MiB of titles.
        titles: The source is a text file of titles.
        types: Types that an index already has for some attributes.
        columns: Role (``image``, ``title``, ``id``) to the heading of a table's column, where the
            user named it.
        numbers: Columns of a table that are read as numbers; other values of them stay empty.
        download: Which addresses of images are downloaded.
        sheet: Name or number of a workbook's sheet; None: the first one.

    Raises:
        InputError: There is no such catalogue, or it is empty.
        DataError: A line of the table is broken.
    """
    path = Path(source)
    for name in (path, root or path):
        require_text(name)
    if root is not None and not root.is_dir():
        raise InputError(
            tr("--root names no folder."),
            where=root,
            hint=tr("It is the folder that relative image paths of the table start from."),
        )
    access = ImageAccess(root, download)
    if path.is_dir():
        if titles:
            raise PathError(tr("This is a folder; a file was expected."), path, "folder")
        found = _open_folder(path, split, part_size, access)
    elif not path.is_file():
        if path.exists():
            require_regular(path, path.stat())
        expected = tr(
            "a folder of images, a CSV, TSV, JSONL or .xlsx table, or a dataset in MUGE form"
        )
        raise PathError(tr("There is no such catalogue."), path, "missing", expected)
    elif titles or path.suffix.lower() == ".txt":
        if not titles:
            _refuse_table(path)
        found = Catalogue(path, titles_of(path), {})
    elif is_images_file(path):
        found = Catalogue(path, images_of(path), {})
    elif path.suffix.lower() in TABLE_ENDINGS:
        table = open_table(
            path,
            TableOptions(
                root or path.parent,
                encoding,
                part_size,
                types or {},
                columns or {},
                access,
                sheet,
                tuple(numbers),
            ),
        )
        found = Catalogue(path, table.parts, table.types, table.count, table.remarks)
    else:
        raise unreadable_kind(path) or InputError(
            tr("This file is not a catalogue."),
            where=path,
            expected=tr(
                "a folder of images, a CSV, TSV, JSONL or .xlsx table, or a dataset in MUGE form"
            ),
        )
    if split is not None and not path.is_dir():
        raise InputError(
            tr("Only a dataset in MUGE form has splits."),
            where=path,
            found=f"--split {split}",
            hint=tr("Leave out --split."),
        )
    if not found.parts:
        raise InputError(
            tr("The catalogue is empty: it has no products."),
            where=path,
            expected=tr("images, with endings such as .jpg or .png")
            if path.is_dir()
            else tr("at least one product"),
        )
    return found


def _refuse_table(path: Path) -> None:
    """Refuse a ``.txt`` that is a table, as Excel's "Unicode text": each row would be a title.

    Raises:
        InputError: The first line has headings.
    """
    with open_regular(path) as stream:
        head = stream.read(1 << 14)
    for encoding, separator in product(("utf-8-sig", "utf-16", "gb18030"), SEPARATORS):
        lines = head.decode(encoding, "replace").splitlines()
        cells = [cell.strip(' "') for cell in lines[0].split(separator)] if lines else []
        if are_headings(cells):
            raise InputError(
                tr("This text file is a table; a .txt is read as one title per line."),
                where=f"{path}:1",
                found=listed(cells)[:200],
                hint=tr("Rename it to {name}.", name=path.with_suffix(".csv").name),
            )


def _open_folder(path: Path, split: str | None, part_size: int, access: ImageAccess) -> Catalogue:
    if naming_of(path) is not None:
        return Catalogue(path, *split_of(MugeFolder(path), split))
    if split is not None:
        raise InputError(
            tr("A folder of images has no splits."),
            where=path,
            found=f"--split {split}",
            hint=tr("Leave out --split."),
        )
    parts = folder_parts(path, part_size, access)
    return Catalogue(path, parts, {}, sum(len(part.files) for part in parts))
