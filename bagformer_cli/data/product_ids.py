"""``ids.jsonl``: an optional file of a MUGE folder with the ids that a shop uses itself.

MUGE's files number images and queries. ``xmr data import`` writes this file if the ids of its table
are no such numbers, or if a product has several images. An index of the folder then shows the
shop's ids, and ``xmr eval --products ids.jsonl`` counts the images of one product once.

The first line is a header. Then comes one line per image, and one per query that has an id::

    {"format": "xmr-ids", "version": 1}
    {"image_id": 1, "id": "SKU-77", "product": "SKU-77", "file": "a.jpg"}
    {"image_id": 2, "id": "SKU-77#2", "product": "SKU-77", "file": "b.jpg"}
    {"query_id": 1, "id": "Q-red"}

``id`` is different for every image: the second image of a product has ``#2`` after the id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr

FILE_NAME = "ids.jsonl"
_SHORTENED = re.compile(r"\d(\.\d+)?[Ee]\+\d\d")
_FORMAT, _VERSION = "xmr-ids", 1


def require_all_digits(identity: str, where: str | None = None) -> None:
    """Refuse an id whose last digits Excel replaced with an exponent when it saved a CSV.

    >>> require_all_digits("3E10")

    Raises:
        DataError: It is such an id: different products would have the same one.
    """
    if identity[-4:-2] in {"E+", "e+"} and _SHORTENED.fullmatch(identity):
        raise DataError(
            tr("Excel has shortened this id; its last digits are lost."),
            where=where,
            found=identity,
            hint=tr("In Excel, format the column as text before the ids are put in."),
        )


@dataclass(frozen=True, slots=True)
class ImageName:
    """The name of an image in a shop.

    Args:
        id: Its id, different for every image.
        product: The id of the product that it shows.
        file: The path or address that the table gave.
    """

    id: str
    product: str
    file: str


@dataclass(frozen=True, slots=True)
class ProductIds:
    """The shop's ids of a dataset's images and queries; those without one are not listed."""

    images: dict[int, ImageName] = field(default_factory=dict)
    queries: dict[int, str] = field(default_factory=dict)


def id_lines(ids: ProductIds) -> Iterable[str]:
    """Write the lines of the file, without line ends."""
    yield json.dumps({"format": _FORMAT, "version": _VERSION})
    for number, name in ids.images.items():
        line = {"image_id": number, "id": name.id, "product": name.product, "file": name.file}
        yield json.dumps(line, ensure_ascii=False)
    for number, text in ids.queries.items():
        yield json.dumps({"query_id": number, "id": text}, ensure_ascii=False)


def ids_of(folder: Path) -> ProductIds:
    """Read the ids of a dataset's folder; none if it has no such file.

    Raises:
        DataError: The file is broken.
    """
    path = folder / FILE_NAME
    return read_ids(path) if path.is_file() else ProductIds()


@lru_cache(maxsize=2)
def read_ids(path: Path) -> ProductIds:
    """Read a file of ids.

    Raises:
        InputError: It cannot be read.
        DataError: A line is broken.
    """
    found = ProductIds()
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if line.content.strip():
            try:
                _add(found, json.loads(line.content), number == 1)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise DataError(
                    tr("A line of the file of ids is broken."),
                    where=f"{path}:{number}",
                    found=repr(line.content[:60].decode("utf-8", "replace")),
                    expected='{"image_id": 1, "id": "…", "product": "…", "file": "…"}',
                ) from None
    return found


def _add(found: ProductIds, line: dict[str, Any], first: bool) -> None:
    if first:
        if line["format"] != _FORMAT or line["version"] != _VERSION:
            raise ValueError
    elif "image_id" in line:
        texts = [line[name] for name in ("id", "product", "file")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
        found.images[int(line["image_id"])] = ImageName(*texts)
    else:
        found.queries[int(line["query_id"])] = str(line["id"])
