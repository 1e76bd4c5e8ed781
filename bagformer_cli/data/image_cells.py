"""Cells that name several images of a product: the first one is the product's.

===================================================  ==========================
cell                                                 its first image
===================================================  ==========================
``a.jpg``                                            ``a.jpg``
``https://a.cn/1.jpg,https://a.cn/2.jpg``            ``https://a.cn/1.jpg``
``a.jpg;b.jpg``                                      ``a.jpg``
``c0ffee:1:0:|https://a.cn/1.jpg;f00d:1:1:|…``        ``https://a.cn/1.jpg``
===================================================  ==========================

The last form is that of Taobao's and Tmall's exports: name, kind, position and address of each
image. Without addresses the images are ``.tbi`` files in a folder of the export.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bagformer_cli.errors import DataError, listed, shell_word, shortened
from bagformer_cli.messages import tr

_TAOBAO = re.compile(r"[\w.-]*:[0-9]+:[0-9]+:[^|;]*\|")
_NEXT_ADDRESS = re.compile(r"[\s;,|，；、]+(?=(?:https?:)?//)", re.I)
_NEXT_FILE = re.compile(r"[\n;,|，；、]+")
_FILE = re.compile(r".*\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|heic)", re.I | re.S)
_FILE_NAMED = re.compile(rf"{_FILE.pattern}(?:$|[?#!;,_@])", re.I | re.S)
_ADDRESS = re.compile(r"(?:https?:)?//", re.I)
_ROWS_LOOKED_AT = 1000  # for columns that may hold images
_LONGEST_CELL = 8192  # characters
_SEVERAL = re.compile(r"[\n;,|，；、]|//")
_ENDS = " \t\r\n;,|，；、"


def first_image(cell: str) -> tuple[str, int]:
    """Return the first image that a cell names, and how many it names.

    >>> first_image("x:1:0:|https://a.cn/1.jpg;y:1:1:|https://a.cn/2.jpg;")
    ('https://a.cn/1.jpg', 2)
    >>> first_image("红裙, 大码.jpg")
    ('红裙, 大码.jpg', 1)

    Raises:
        DataError: It names images of a Taobao export without their addresses. The caller adds
            the row.
    """
    if _SEVERAL.search(cell) is None:
        return cell, 1
    if _TAOBAO.match(cell):
        images = [image.partition("|")[2] for image in _taobao_images(cell)]
        named = [image.strip(_ENDS) for image in images if image.strip(_ENDS)]
        if not named:
            raise DataError(
                tr("The cell names images of a Taobao export without their addresses."),
                found=shortened(cell),
                hint=tr(
                    "Export the products with image addresses, or rename the .tbi files of the "
                    "export to .jpg and write their names into the table."
                ),
            )
        return named[0], len(named)
    if "//" in cell:
        addresses = _NEXT_ADDRESS.split(cell)
        return (addresses[0].rstrip(_ENDS), len(addresses)) if len(addresses) > 1 else (cell, 1)
    files = [part.strip() for part in _NEXT_FILE.split(cell) if part.strip()]
    if len(files) > 1 and all(map(_FILE.fullmatch, files)):
        return files[0], len(files)
    return cell, 1


class ImageColumns:
    """The columns of a table that may hold images: where none does, the user shall know of it."""

    def __init__(self) -> None:
        self._heading: str | None = None  # of the recognised column
        self._found = False
        self._looked_at = 0
        self._files: dict[str, int] = {}  # column to the number of cells that name image files
        self._addresses: dict[str, int] = {}

    def add(self, heading: str | None, cell: str, attributes: Mapping[str, Any]) -> None:
        """Take in one row: its image cell, and its attributes if it has none.

        Args:
            heading: The heading of the column of images; None: none is recognised.
            cell: Its cell; empty: no image.
            attributes: The other columns.
        """
        self._heading = heading or self._heading
        self._found = self._found or bool(cell)
        if self._found or self._looked_at >= _ROWS_LOOKED_AT:
            return
        self._looked_at += 1
        for name, value in attributes.items():
            if isinstance(value, str) and name:
                counts = self._files if names_image_file(value) else self._addresses
                if counts is self._files or _ADDRESS.match(value):
                    counts[name] = counts.get(name, 0) + 1

    @property
    def remark(self) -> str | None:
        """The sentence that names the columns that look like images; None: there are images."""
        if self._found:
            return None
        likely = [
            name
            for counts in (self._files, self._addresses)
            for name in sorted(counts, key=lambda name: -counts[name])
        ]
        if self._heading is not None:
            message = tr(
                "The column of images, '{name}', is empty: the products get no image.",
                name=self._heading,
            )
        else:
            message = tr("No column of images was recognised: the products get no image.")
        if not likely:
            hint = tr("If a column holds images, name it: --column image=HEADING")
        else:
            hint = tr(
                "Columns with values that look like images: {names}. Name the one to read: "
                "--column image={heading}",
                names=listed(dict.fromkeys(likely)),
                heading=shell_word(likely[0]),
            )
        return tr("{sentence} {hint}", sentence=message, hint=hint)


def names_image_file(cell: str) -> bool:
    """Say whether a cell is a path or an address that ends like an image file.

    >>> [names_image_file(one) for one in ("a/1.JPG", "https://a.cn/1.jpg?w=9", "红裙")]
    [True, True, False]
    """
    return len(cell) <= _LONGEST_CELL and _FILE_NAMED.match(cell) is not None


class SeveralImages:
    """The rows of a table that name more than one image."""

    def __init__(self) -> None:
        self._count, self._first = 0, ""

    def add(self, cell: str, where: str) -> None:
        """Take in the image cell of one row."""
        with suppress(DataError):  # the row is left out when it is read
            if first_image(cell)[1] > 1:
                self._count += 1
                self._first = self._first or where

    @property
    def remark(self) -> str | None:
        """The sentence that counts these rows; None: every row names one image at most."""
        if not self._count:
            return None
        return tr(
            "Rows that name several images: {n}, the first is {where}. The first image of "
            "each row is read.",
            n=self._count,
            where=self._first,
        )


def _taobao_images(cell: str) -> list[str]:
    """Divide a cell of a Taobao export into its images; an address may contain a semicolon."""
    begins = [0, *(found.start() + 1 for found in re.finditer(rf"[;,]{_TAOBAO.pattern}", cell))]
    return [cell[begin:end] for begin, end in zip(begins, [*begins[1:], len(cell)], strict=True)]
