"""Items of a file of vectors, as its reader returns them: ids, unchecked vectors, and their places.

Shapes: n items, N vectors, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.muge_lines import parse_id
from bagformer_cli.errors import DataError, shortened
from bagformer_cli.messages import tr
from bagformer_cli.opening import is_text
from bagformer_cli.text.characters import is_blank

Side = Literal["text", "image"]

ID_NAMES: dict[Side, tuple[str, ...]] = {
    "text": ("text_id", "query_id", "id"),
    "image": ("image_id", "item_id", "id"),
}

VECTOR_NAMES = ("feature", "vector", "vectors", "features", "embedding", "embeddings")

BLOCK = 1024
"""Items of a block."""


class Block(NamedTuple):
    """Some items of a file.

    Attributes:
        path: The file.
        ids: n ids.
        values: [N, D] float32, not checked.
        lengths: [n] vectors of each item.
        rows: [n] line or row of each item, from 1.
    """

    path: Path
    ids: list[int | str]
    values: NDArray[np.float32]
    lengths: NDArray[np.int64]
    rows: NDArray[np.int64]

    def place(self, at: int) -> str:
        """Name the line or row of an item, for a message."""
        return place_in(self.path, int(self.rows[at]))


def place_in(path: Path, row: int) -> str:
    """Name a line of a text file, or a row of another file, for a message.

    >>> place_in(Path("a.jsonl"), 3), place_in(Path("a.npz"), 3)
    ('a.jsonl:3', 'a.npz, row 3')
    """
    if path.suffix == ".jsonl":
        return f"{path}:{row}"
    return tr("{path}, row {n}", path=path, n=row)


def item_id(value: Any, name: str) -> int | str:
    """Check an id: a whole number, or a text that is not blank."""
    if isinstance(value, str):
        if not is_blank(value) and is_text(value):
            return value
        raise DataError(
            tr("'{field}' is an empty or broken text.", field=name),
            found=shortened(ascii(value)),
            expected=tr("a whole number, or a text with a visible character"),
        )
    return parse_id(value, name)


def item_ids(found: list[Any], path: Path, before: int) -> list[int | str]:
    """Check the ids of rows; ``before`` rows of the file come before them.

    Raises:
        DataError: One is no id.
    """
    made: list[int | str] = []
    for at, value in enumerate(found):
        try:
            made.append(item_id(value, "id"))
        except DataError as error:
            error.where = place_in(path, before + at + 1)
            raise
    return made


def damaged_file(path: Path, error: Exception) -> DataError:
    """Return the error for a file that a library cannot read."""
    return DataError(
        tr("The file is damaged, or of another kind than its name says."),
        where=path,
        found=shortened(str(error).strip().partition("\n")[0] or type(error).__name__),
    )
