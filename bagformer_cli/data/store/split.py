"""One split of a preprocessed dataset, memory-mapped: images, queries and their tokens.

Shapes: Q queries, N images, M answers (pairs of a query and an image).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.data.images import decode
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import tr
from bagformer_cli.opening import load_array
from bagformer_cli.text.bags import TokenBags

TOKEN_ARRAYS = {
    "ids": np.int32,
    "token_offsets": np.int64,
    "bag_starts": np.int64,
    "bag_ends": np.int64,
    "bag_offsets": np.int64,
}
"""The files of a tokens folder and their types; they are the fields of ``TokenBags``."""


class Shards:
    """The rows of several Arrow files as one table, memory-mapped.

    Args:
        paths: The files, in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.batches = [batch for path in self.paths for batch in read_batches(path)]
        lengths = [batch.num_rows for batch in self.batches]
        self.starts = np.cumsum([0, *lengths])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def numbers(self, column: str) -> NDArray[np.int64]:
        """Load a column of whole numbers into memory: 8 bytes per row."""
        parts = [batch.column(column).to_numpy() for batch in self.batches]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def value(self, column: str, row: int) -> Any:
        """Look up one value: an Arrow scalar that points into the mapped file."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        batch = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.batches[batch].column(column)[row - int(self.starts[batch])]

    def values(self, column: str, begin: int, end: int) -> list[Any]:
        """Load rows ``begin`` to ``end`` of a column as Python objects."""
        found: list[Any] = []
        batch = int(np.searchsorted(self.starts, begin, side="right")) - 1
        while begin < end:
            start, stop = int(self.starts[batch]), min(end, int(self.starts[batch + 1]))
            part = self.batches[batch].column(column).slice(begin - start, stop - begin)
            found += part.to_pylist()
            begin, batch = stop, batch + 1
        return found


class Texts(Sequence[str]):
    """The texts of the queries, read from the file on access."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            if step == 1:
                return self._shards.values("text", begin, end)
            return [self[i] for i in range(begin, end, step)]
        row = int(index) + (len(self) if index < 0 else 0)
        text: str = self._shards.value("text", row).as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for batch in self._shards.batches:
            yield from batch.column("text").to_pylist()


class Split:
    """A split, opened for reading; cheap to open and to send to another process.

    Args:
        path: Folder of the split in the store.
        tokens: Folder of its tokens; None: it has none.
        name: ``train``, ``valid`` or ``test``.
        dataset: The dataset's folder; None: the folder that the store is in.
    """

    def __init__(
        self, path: Path, tokens: Path | None, name: str, dataset: Path | None = None
    ) -> None:
        self.path, self.name = path, name
        self.dataset = path.parents[1] if dataset is None else dataset
        self._tokens_path = tokens
        self._queries = shards_of(path, "queries")

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self.path, self._tokens_path, self.name, self.dataset)

    @cached_property
    def digests(self) -> dict[str, str | None]:
        """Digests of the files that the split was made of; ``images`` is None without images."""
        found: dict[str, str | None] = json.loads(
            (self.path / "split.json").read_text(encoding="utf-8")
        )
        return found

    @property
    def _has_images(self) -> bool:
        return self.digests["images"] is not None

    @cached_property
    def _images(self) -> Shards:
        if not self._has_images:
            raise InputError(
                tr("The split '{split}' was preprocessed without its images.", split=self.name),
                where=self.path,
                hint=tr("Run xmr preprocess without --text-only."),
            )
        return shards_of(self.path, "images")

    # ---------------------------------------------------------------------------------- images

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """[N] ids of the images, in the order of their file."""
        return self._images.numbers("image_id")

    @cached_property
    def image_hash(self) -> NDArray[np.int64]:
        """[N] hash of each image file's bytes; equal images have equal hashes."""
        return self._images.numbers("hash")

    def image_bytes(self, position: int) -> bytes:
        """Read the image file at a position (0 to N - 1; not an id)."""
        data: bytes = self._images.value("image", position).as_py()
        return data

    def image(
        self, position: int, size_hint: int | None = None, *, as_original: bool = False
    ) -> Image.Image:
        """Decode the image at a position; see :func:`~bagformer_cli.data.images.decode`.

        Raises:
            DataError: It cannot be decoded: it was damaged after preprocessing.
        """
        data = self.image_bytes(position)
        try:
            return decode(data, size_hint, as_original=as_original)
        except DataError as error:
            number = self._images.value("image_id", position)
            error.where = tr("{place}, image {id}", place=self.path, id=number)
            if image_hash(data) != self.image_hash[position]:
                error.hint = tr("Delete the folder {path} and run the command again.",
                                path=self.path)  # fmt: skip
            raise

    # --------------------------------------------------------------------------------- queries

    @cached_property
    def query_ids(self) -> NDArray[np.int64]:
        """[Q] ids of the queries, in the order of their file."""
        return self._queries.numbers("query_id")

    @cached_property
    def texts(self) -> Texts:
        """[Q] texts of the queries."""
        return Texts(self._queries)

    @cached_property
    def _answers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of the answering images and their offsets, without images that were left out."""
        ids, offsets = items_of(self._queries)
        if not self._has_images:
            return ids, offsets
        there = np.isin(ids, self.image_ids)
        kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(there)])
        return ids[there], kept[offsets]

    @property
    def item_offsets(self) -> NDArray[np.int64]:
        """[Q + 1] query q is answered by ``items[item_offsets[q]:item_offsets[q + 1]]``."""
        return self._answers[1]

    @property
    def item_ids(self) -> NDArray[np.int64]:
        """[M] ids of the images that answer the queries."""
        return self._answers[0]

    @cached_property
    def items(self) -> NDArray[np.int64]:
        """[M] positions of the images that answer the queries."""
        return positions_of(self.item_ids, self.image_ids)

    @cached_property
    def tokens(self) -> TokenBags:
        """Tokens and bags of the Q queries, memory-mapped."""
        if self._tokens_path is None:
            raise InputError(
                tr("The titles were preprocessed without tokens."),
                where=self.path,
                hint=tr("Run xmr preprocess."),
            )
        return load_tokens(self._tokens_path)


def image_hash(data: bytes) -> int:
    """Hash the bytes of an image file to a signed whole number of 64 bits."""
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def shards_of(split: Path, name: str) -> Shards:
    """Open the ``images`` or ``queries`` shards of a split's folder."""
    return Shards(sorted(split.glob(f"{name}-*.arrow")))


def load_tokens(folder: Path) -> TokenBags:
    """Map the arrays of a tokens folder into memory, after a check that they fit each other.

    Raises:
        DataError: An array is damaged.
    """
    arrays = {}
    for name, dtype in TOKEN_ARRAYS.items():
        path = folder / f"{name}.npy"
        try:
            # A plain array over the same mapping; np.memmap itself is slow to index.
            array = np.asarray(load_array(path, mapped=True))
        except (InputError, OSError, ValueError, EOFError) as error:
            raise damaged(path) from error
        if array.dtype != dtype or array.ndim != 1:
            raise damaged(path, f"{array.dtype} {list(array.shape)}")
        arrays[name] = array
    tokens = TokenBags(**arrays)
    if not is_sound(tokens):
        raise damaged(folder, tr("the arrays do not fit each other"))
    return tokens


def is_sound(tokens: TokenBags) -> bool:
    """Check all offsets and bags: later code reads with them, partly without a check."""
    ids = len(tokens.ids)
    starts, ends = tokens.bag_starts, tokens.bag_ends
    return (
        len(tokens.token_offsets) == len(tokens.bag_offsets)
        and len(starts) == len(ends)
        and are_offsets(tokens.token_offsets, ids)
        and are_offsets(tokens.bag_offsets, len(starts))
        and bool((starts <= ends).all())
        and int(starts.min(initial=0)) >= 0
        and int(ends.max(initial=0)) <= ids
        and int(tokens.ids.min(initial=0)) >= 0
    )


def are_offsets(offsets: NDArray[np.int64], end: int) -> bool:
    """Say whether offsets rise from 0 to ``end``.

    >>> are_offsets(np.array([0, 2, 2, 5]), 5), are_offsets(np.array([0, 9, 5]), 5)
    (True, False)
    """
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != end:
        return False
    return bool((offsets[1:] >= offsets[:-1]).all())


def items_of(queries: Shards) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Collect the ids of the answering images [M], and the offsets of each query's [Q + 1]."""
    columns = [batch.column("item_ids") for batch in queries.batches]
    none = np.zeros(0, np.int64)
    ids = np.concatenate([none, *(column.flatten().to_numpy() for column in columns)])
    lengths = [np.diff(column.offsets.to_numpy()) for column in columns]
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]), dtype=np.int64)
    return ids, offsets


def positions_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the position of each of ``wanted`` in ``ids`` (all different); -1 if it is not there.

    >>> positions_of(np.array([30, 7]), np.array([10, 20, 30]))
    array([ 2, -1])
    """
    if not len(ids):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(ids)
    places = np.searchsorted(ids, wanted, sorter=order)
    positions = order[np.minimum(places, len(ids) - 1)]
    return np.where(ids[positions] == wanted, positions, -1).astype(np.int64)


def read_batches(path: Path) -> list[pa.RecordBatch]:
    """Map the batches of an Arrow file into memory, after a check of all offsets in them.

    Raises:
        DataError: The file is damaged.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)  # Arrow itself follows offsets without a check
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path) from error
    return batches


def damaged(path: Path, found: str | None = None) -> DataError:
    """Make the error for a file of a store that cannot be used."""
    return DataError(
        tr("A file of the preprocessed dataset is damaged."),
        where=path,
        found=found,
        hint=tr("Run xmr preprocess: it makes the file again."),
    )
