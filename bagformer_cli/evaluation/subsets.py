"""Named parts of a split, for example folds of 1,000 images each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import DataError, InputError, cannot_read
from bagformer_cli.evaluation.metrics import Positives
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

MOST_BYTES = 1 << 30  # of the file


@dataclass(frozen=True)
class Subset:
    """Some images of a split and the queries that they answer.

    Attributes:
        images: Positions of the images in the split, ascending.
        queries: Positions of the queries with an answer among the images, ascending.
    """

    images: NDArray[np.int64]
    queries: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split, images: NDArray[np.int64]) -> Subset:
        """Make the subset of these image positions."""
        images = np.unique(images)
        owner = np.repeat(np.arange(len(split.query_ids)), np.diff(split.item_offsets))
        return cls(images, np.unique(owner[np.isin(split.items, images)]))

    def positives(self, split: Split) -> Positives:
        """Return the answers of each query, as positions in the subset."""
        owner = np.repeat(np.arange(len(split.query_ids)), np.diff(split.item_offsets))
        inside = np.isin(split.items, self.images)
        rows = np.searchsorted(self.queries, owner[inside])
        columns = np.searchsorted(self.images, split.items[inside])
        offsets = np.searchsorted(rows, np.arange(len(self.queries) + 1))
        return Positives(offsets.astype(np.int64), columns, len(self.images))


def read_subsets(path: str | Path, split: Split) -> dict[str, Subset]:
    """Read a file of image ids, one per line, optionally followed by a tab and a subset name.

    Args:
        path: The file, UTF-8.
        split: The split that the images belong to.

    Returns:
        Name to subset, in the order of the file. Ids without a name form the subset ``items``.

    Raises:
        InputError: The file cannot be read or names no image.
        DataError: A line is not an id, or the split has no such image.
    """
    path = Path(path)
    try:
        lines = read_regular(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise cannot_read(path, error) from error
    position_of = {number: i for i, number in enumerate(split.image_ids.tolist())}
    found: dict[str, list[int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, _, name = line.partition("\t")
        position = position_of.get(int(key)) if key.strip().isdecimal() else None
        if position is None:
            raise DataError(
                tr("A line of the items file names no image of the split."),
                where=f"{path}:{number}",
                found=line[:60],
                expected=tr("an image id (, tab, name of a subset)"),
            )
        found.setdefault(name.strip() or "items", []).append(position)
    if not found:
        raise InputError(
            tr("The items file names no image."),
            where=path,
            expected=tr("an image id (, tab, name of a subset)"),
        )
    return {name: Subset.of(split, np.array(positions)) for name, positions in found.items()}
