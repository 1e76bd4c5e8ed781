"""Numbers for the images and queries of a table whose own ids may be any text.

MUGE's files want whole numbers. An id that is one stays; every other image or query gets the next
free number, and ``ids.jsonl`` keeps its id (``data/product_ids.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

from bagformer_cli.data.importing.rows import Row
from bagformer_cli.data.muge_lines import MAX_ID
from bagformer_cli.data.product_ids import ImageName, ProductIds
from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr


class Names:
    """The ids that the rows of a table give to its images, or to its queries.

    Args:
        column: The column of the ids, for errors.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._given: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def give(self, key: str, name: str | None, where: str) -> None:
        """Note that a row gives an image or a query (``key``) an id; None: it gives none.

        Raises:
            DataError: The key has another id already, or the id belongs to another key.
        """
        if name is None:
            return
        known = self._given.get(key, name)
        owner = self._owners.get(name, key)
        if known != name or owner != key:
            raise DataError(
                tr("The {name} contradicts an earlier row.", name=self._column),
                where=where,
                found=f"{name}: {key}",
                expected=f"{known}: {owner}",
            )
        self._given[key] = name
        self._owners[name] = key

    def get(self, key: str) -> str | None:
        """Return the id of an image or a query; None if no row gives one."""
        return self._given.get(key)

    def has(self, name: str) -> bool:
        """Say whether an image or a query has this id."""
        return name in self._owners


def image_names(rows: Iterable[Row], given: Names) -> dict[str, ImageName]:
    """Name every image that has an id, or a product with an id.

    The second image of a product has ``#2`` after the id, the third ``#3``. An image of several
    products is named after the first.

    Args:
        rows: The rows.
        given: The ids of images that the rows give.

    Returns:
        Image path to its name.
    """
    names: dict[str, ImageName] = {}
    taken: set[str] = set()
    for row in rows:
        if row.image in names:
            continue
        own = given.get(row.image)
        if own is None and row.product is None:
            continue
        name, count = own or row.product or "", 1
        while own is None and (name in taken or given.has(name)):
            count += 1
            name = f"{row.product}#{count}"
        taken.add(name)
        names[row.image] = ImageName(name, row.product or name, row.image)
    return names


def numbers_of(keys: Iterable[str], names: dict[str, str]) -> dict[str, int]:
    """Give every key a number: its name if that is a whole number, else the next free one from 1.

    >>> numbers_of(["a", "b", "c"], {"a": "SKU-7", "b": "1"})
    {'a': 2, 'b': 1, 'c': 3}

    Args:
        keys: Keys (titles or image paths) in the order of their first row.
        names: Key to its name; every name belongs to one key.
    """
    own = {key: int(name) for key, name in names.items() if _is_number(name)}
    taken = set(own.values())
    numbers: dict[str, int] = {}
    free = 0
    for key in keys:
        if key in own:
            numbers[key] = own[key]
            continue
        free += 1
        while free in taken:
            free += 1
        numbers[key] = free
    return numbers


def ids_to_keep(
    images: dict[str, ImageName],
    image_numbers: dict[str, int],
    queries: dict[str, str],
    query_numbers: dict[str, int],
) -> ProductIds:
    """Collect the names that their numbers do not say; empty if the numbers say everything."""
    differ = any(
        name.id != str(image_numbers[image]) or name.product != name.id
        for image, name in images.items()
    )
    ids = ProductIds()
    if differ:
        ids.images.update({image_numbers[image]: name for image, name in images.items()})
    ids.queries.update(
        {
            query_numbers[title]: name
            for title, name in queries.items()
            if name != str(query_numbers[title])
        }
    )
    return ids


def _is_number(name: str) -> bool:
    """True for a whole number as Python writes it: ``0077`` is a code."""
    digits = name.isascii() and name.isdigit() and len(name) < 20
    return digits and str(int(name)) == name and int(name) <= MAX_ID
