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
from contextlib import suppress

from bagformer_cli.errors import DataError, shortened
from bagformer_cli.messages import tr

_TAOBAO = re.compile(r"[\w.-]*:[0-9]+:[0-9]+:[^|;]*\|")
_NEXT_ADDRESS = re.compile(r"[\s;,|，；、]+(?=(?:https?:)?//)", re.I)
_NEXT_FILE = re.compile(r"[\n;,|，；、]+")
_FILE = re.compile(r".*\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|heic)", re.I | re.S)
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
