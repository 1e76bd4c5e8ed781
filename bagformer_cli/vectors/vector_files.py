"""Files of vectors that any program can write: ids, and one or many vectors for each.

::

    .jsonl        {"text_id": 7, "feature": [0.1, …]}   Chinese-CLIP's form; images have image_id
                  {"text_id": 7, "feature": [[0.1, …], [0.3, …]]}   many vectors
    .parquet      a column id, a column vector: a list of numbers, or a list of such lists
    .npz          ids [n]; vectors [n, D], or vectors [N, D] with offsets [n + 1]
    .safetensors  the same three tensors
    .npy          vectors [n, D]; the ids in FILE.ids.npy, and perhaps FILE.offsets.npy
    .lance        a folder with the columns of .parquet

A file is read in blocks and checked while it is read: every error names the file, the line or row,
and the id. Vectors become float32 of unit length, because scores here are cosines.

Shapes: n items, N vectors, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.errors import DataError, InputError, shortened
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.vector_blocks import Block, Side, place_in
from bagformer_cli.vectors.vector_readers import READERS

_UNIT = 1e-3
"""How far a vector's length may be from 1 before it counts as scaled; float16 is off by 5e-4."""


@dataclass(frozen=True)
class VectorItems:
    """The content of a file of vectors, in its order.

    Attributes:
        path: The file.
        ids: [n] the ids as the file has them: whole numbers, or texts.
        vectors: Unit vectors of the n items, float32.
        places: Line or row of the item at a position, for messages.
        scaled: Number of vectors that had another length than 1.
    """

    path: Path
    ids: list[int | str]
    vectors: MultiVectors
    places: Callable[[int], str]
    scaled: int


class _Checked(NamedTuple):
    """A checked block: unit vectors, and how many of them had another length."""

    values: NDArray[np.float32]
    scaled: int


def read_vector_file(path: str | Path, side: Side) -> VectorItems:
    """Read a file of vectors whole.

    Args:
        path: The file; its ending decides how it is read.
        side: Whether the items are texts or images; it decides how their id may be called.

    Raises:
        InputError: The file cannot be read or has an unknown ending.
        DataError: A line or row is wrong: no id, an id that occurs twice, no vector, another
            dimension, NaN or infinity, or a vector of zeros.
    """
    ids: list[int | str] = []
    first_row: dict[int | str, int] = {}
    values: list[NDArray[np.float32]] = []
    lengths: list[NDArray[np.int64]] = []
    numbers: list[NDArray[np.int64]] = []
    scaled = 0
    for block in read_blocks(path, side):
        if values and block.values.shape[1] != values[0].shape[1]:
            raise _wrong(
                block, 0, tr("The vector has another dimension than the ones before."),
                str(block.values.shape[1]), str(values[0].shape[1]),
            )  # fmt: skip
        checked = _check(block)
        for at, identity in enumerate(block.ids):
            number = int(block.rows[at])
            if first_row.setdefault(identity, number) != number:
                raise _wrong(
                    block, at, tr("The id {id} occurs twice.", id=identity),
                    tr("first in {place}", place=place_in(block.path, first_row[identity])),
                )  # fmt: skip
        ids += block.ids
        values.append(checked.values)
        lengths.append(block.lengths)
        numbers.append(block.rows)
        scaled += checked.scaled
    if not ids:
        raise DataError(tr("The file holds no vectors."), where=path)
    rows = np.concatenate(numbers)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])
    packed = MultiVectors(torch.from_numpy(_joined(values)), torch.from_numpy(offsets))
    return VectorItems(
        Path(path), ids, packed, lambda at: place_in(Path(path), int(rows[at])), scaled
    )


def read_blocks(path: str | Path, side: Side) -> Iterator[Block]:
    """Read a file of vectors in blocks of some thousand items, without checking the values.

    Raises:
        InputError: The file cannot be read or has an unknown ending.
        DataError: A line or row has no id or no vector.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            tr("The ending of the file does not say how its vectors are stored."),
            where=path,
            expected=" ".join(READERS),
        )
    return reader(path, side)


def _check(block: Block) -> _Checked:
    """Scale a block's vectors to unit length.

    Raises:
        DataError: An item has no vector, or a vector is zero or not finite.
    """
    empty = np.flatnonzero(block.lengths == 0)
    if len(empty):
        raise _wrong(block, int(empty[0]), tr("The item has no vector."))
    wide = block.values.astype(np.float64)  # the square of a large float32 overflows
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    item_of_vector = np.repeat(np.arange(len(block.ids)), block.lengths)
    broken = np.flatnonzero(~np.isfinite(norms))
    if len(broken):
        row = block.values[broken[0]]
        found = row[~np.isfinite(row)]
        raise _wrong(
            block, int(item_of_vector[broken[0]]), tr("A vector has a value that is not a number."),
            str(found[0]) if len(found) else None, tr("finite numbers"),
        )  # fmt: skip
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise _wrong(
            block, int(item_of_vector[zero[0]]),
            tr("A vector is zero: it has no direction, so no cosine can be computed."),
        )  # fmt: skip
    scaled = int((np.abs(norms - 1) > _UNIT).sum())
    return _Checked((wide / norms[:, None]).astype(np.float32), scaled)


def _wrong(
    block: Block, at: int, message: str, found: str | None = None, expected: str | None = None
) -> DataError:
    """Make the error for an item of a block; it names file, line or row, and id."""
    return DataError(
        message,
        where=tr("{place}, id {id}", place=block.place(at), id=shortened(block.ids[at])),
        found=found,
        expected=expected,
    )


def _joined(values: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join blocks and free each as soon as it is copied, so that little is held twice."""
    count = sum(len(block) for block in values)
    joined = np.empty((count, values[0].shape[1]), np.float32)
    begin = 0
    while values:
        block = values.pop(0)
        joined[begin : begin + len(block)] = block
        begin += len(block)
    return joined
