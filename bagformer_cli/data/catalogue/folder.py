"""Catalogues that are folders of images: each image is a product, its path in the folder the id."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from bagformer_cli.data.catalogue.products import Part, Product, digest_of, image_stamp, part_name
from bagformer_cli.data.image_files import ImageAccess
from bagformer_cli.data.images import has_image_mark, readable_endings
from bagformer_cli.errors import DataError, InputError, listed
from bagformer_cli.messages import tr
from bagformer_cli.opening import is_text, open_regular, shown

NO_IMAGES = {
    ".txt", ".md", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".xls", ".xml", ".html",
    ".htm", ".css", ".js", ".py", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".db", ".lnk",
    ".url", ".doc", ".docx", ".pdf", ".sha256", ".md5", ".npy", ".npz", ".arrow", ".parquet",
}  # fmt: skip
"""Endings of files that are no images and that nobody expects in an index: they are passed over.
All other files are named as left out."""


@dataclass(frozen=True, slots=True)
class FolderPart(Part):
    """Images of a folder.

    Args:
        folder: The folder.
        files: Paths of the files inside it.
        access: Which images may be read.
    """

    folder: Path
    files: tuple[str, ...]
    access: ImageAccess

    def products(self) -> Iterator[Product | InputError]:
        """Name the images; a file that is no image that can be read gives an error in its place."""
        endings = readable_endings()
        for name in self.files:
            path = str(self.folder / name)
            ending = PurePath(name).suffix.lower()
            if ending not in endings and not _is_image(path):
                yield _not_read(path, ending)
            elif not is_text(name):
                yield DataError(
                    tr("The file name is not UTF-8."),
                    where=shown(path),
                    hint=tr("Rename it. A zip file from Chinese Windows: `unzip -O gb18030`."),
                )
            else:
                yield Product(path, name, path, access=self.access)


def folder_parts(folder: Path, part_size: int, access: ImageAccess) -> tuple[FolderPart, ...]:
    """Divide a folder of images into parts of ``part_size`` files.

    Hidden files and folders are passed over, and files that nobody takes for images
    (:data:`NO_IMAGES`). Links to folders are not followed.

    Raises:
        InputError: No file is an image, by its ending or by its first bytes.
    """
    endings = readable_endings()
    names = []
    others: Counter[str] = Counter()
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            ending = PurePath(name).suffix.lower()
            if name.startswith("."):
                continue
            if ending in endings or ending not in NO_IMAGES:
                names.append(os.path.relpath(os.path.join(base, name), folder))
            if ending not in endings:
                others[shown(ending) or tr("no ending")] += 1
    names.sort()
    if not any(
        PurePath(name).suffix.lower() in endings or _is_image(str(folder / name)) for name in names
    ):
        raise InputError(
            tr("The folder has no images that can be read."),
            where=shown(folder),
            found=listed(f"{n} × {ending}" for ending, n in others.most_common(5)) or None,
            expected=listed(sorted(endings)),
        )
    return tuple(
        _part(number, folder, tuple(names[begin : begin + part_size]), access)
        for number, begin in enumerate(range(0, len(names), part_size))
    )


def _is_image(path: str) -> bool:
    """Say whether a file with another ending is an image: a JPEG may be called ``a.heic``."""
    try:
        with open_regular(path) as stream:
            return has_image_mark(stream.read(16))
    except InputError:
        return False


def _not_read(path: str, ending: str) -> DataError:
    return DataError(
        tr("Files with this ending are not read as images."),
        where=shown(path),
        found=shown(ending) or tr("no ending"),
        hint=tr("Convert it to JPEG or PNG."),
    )


def _part(number: int, folder: Path, files: tuple[str, ...], access: ImageAccess) -> FolderPart:
    digest = digest_of([(name, *image_stamp(str(folder / name))) for name in files])
    return FolderPart(part_name(number), digest, folder, files, access)
