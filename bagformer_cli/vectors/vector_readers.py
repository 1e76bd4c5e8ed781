"""Read files of vectors in blocks, one function per format; ``vector_files.py`` checks the values.

Shapes: n items, N vectors, D dimensions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagformer_cli.data.byte_ranges import ByteRange, decode_line
from bagformer_cli.data.muge_lines import parse_id
from bagformer_cli.errors import DataError, InputError, PathError, listed, shortened
from bagformer_cli.messages import tr
from bagformer_cli.opening import (
    is_text,
    load_array,
    open_regular,
    require_moderate,
    require_moderate_zip,
    require_plain_folder,
)
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


def read_jsonl(path: Path, side: Side) -> Iterator[Block]:
    """Read JSON lines, one item each; blank lines are left out."""
    ids: list[int | str] = []
    values: list[NDArray[np.float32]] = []
    rows: list[int] = []

    def block() -> Block:
        lengths = np.array([len(one) for one in values], np.int64)
        joined = np.concatenate(values)
        return Block(path, [*ids], joined, lengths, np.array(rows, np.int64))

    dim = None
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if line.blank:
            continue
        try:
            identity, vectors = _parse(line.content, side)
            if dim is not None and vectors.shape[1] != dim:
                raise DataError(
                    tr("The vector has another dimension than the ones before."),
                    found=vectors.shape[1],
                    expected=dim,
                )
        except DataError as error:
            error.where = place_in(path, number)
            raise
        dim = vectors.shape[1]
        ids.append(identity)
        values.append(vectors)
        rows.append(number)
        if len(ids) == BLOCK:
            yield block()
            ids, values, rows = [], [], []
    if ids:
        yield block()


def _parse(raw: bytes, side: Side) -> tuple[int | str, NDArray[np.float32]]:
    """Parse one line to an id and vectors [n, D]."""
    example = f'{{"{ID_NAMES[side][0]}": 7, "feature": [0.1, 0.2]}}'
    try:
        line = json.loads(decode_line(raw))
    except (ValueError, RecursionError):
        line = None
    if not isinstance(line, dict):
        raise DataError(
            tr("The line is not a JSON object."),
            found=shortened(raw[:60].decode("utf-8", "replace")),
            expected=example,
        )
    id_name = _named(line, ID_NAMES[side], example)
    identity = _identity(line[id_name], id_name)
    feature = line[_named(line, VECTOR_NAMES, example)]
    return identity, _matrix(feature)


def _named(line: Mapping[str, Any], names: tuple[str, ...], example: str) -> str:
    for name in names:
        if name in line:
            return name
    raise DataError(
        tr("The field '{field}' is missing.", field=names[0]),
        found=shortened(listed(line) or "{}"),
        expected=example,
    )


def _identity(value: Any, name: str) -> int | str:
    """Check an id: a whole number, or a text that is not blank."""
    if isinstance(value, str) and not is_blank(value) and is_text(value):
        return value
    return parse_id(value, name)


def _matrix(feature: Any) -> NDArray[np.float32]:
    """Make [n, D] of a list of numbers, or of a list of such lists."""
    is_list = isinstance(feature, list) and len(feature) > 0
    rows = feature if is_list and isinstance(feature[0], list) else [feature]
    right = is_list and all(
        isinstance(row, list) and row and all(type(x) in (int, float) for x in row) for row in rows
    )
    if not right or len({len(row) for row in rows}) > 1:
        raise DataError(
            tr("This is not a vector, nor a list of vectors of one dimension."),
            found=shortened(json.dumps(feature, ensure_ascii=False)[:80]),
            expected=tr("a list of numbers, or a list of such lists"),
        )
    try:
        with np.errstate(over="ignore"):  # it becomes infinity, which the caller refuses
            return np.array(rows, np.float64).astype(np.float32)
    except OverflowError:  # a whole number that float64 does not hold
        return np.full((len(rows), len(rows[0])), np.inf, np.float32)


def read_parquet(path: Path, side: Side) -> Iterator[Block]:
    """Read a Parquet file by groups of rows; other columns are not read."""
    with open_regular(path) as stream:
        try:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            chosen = _column(names, ID_NAMES[side], path), _column(names, VECTOR_NAMES, path)
            about = file.metadata
            numbers = sum(
                about.row_group(group).column(column).num_values
                for group in range(about.num_row_groups)
                for column in range(about.num_columns)
                if about.schema.column(column).path.partition(".")[0] == chosen[1]
            )  # equal values take no space in the file
            require_moderate(4 * numbers, os.fstat(stream.fileno()).st_size, path)
            row = 0
            for batch in file.iter_batches(batch_size=BLOCK, columns=list(chosen)):
                if batch.num_rows:
                    yield _of_columns(path, batch.column(chosen[0]), batch.column(chosen[1]), row)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error


def read_lance(path: Path, side: Side) -> Iterator[Block]:
    """Read a Lance data set, a folder ``NAME.lance``, by groups of rows."""
    import lancedb

    if not path.is_dir():
        reason = "file" if path.exists() else "missing"
        raise PathError(tr("There is no Lance data set here."), path, reason)
    require_plain_folder(path)
    try:
        table = lancedb.connect(str(path.parent)).open_table(path.stem)
        names = table.schema.names
        chosen = _column(names, ID_NAMES[side], path), _column(names, VECTOR_NAMES, path)
        row = 0
        for batch in table.search().select(list(chosen)).to_batches(BLOCK):
            if batch.num_rows:
                yield _of_columns(path, batch.column(chosen[0]), batch.column(chosen[1]), row)
            row += batch.num_rows
    except (RuntimeError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _column(names: list[str], wanted: tuple[str, ...], path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise DataError(
        tr("The table has none of the expected columns."),
        where=path,
        found=shortened(listed(names)),
        expected=listed(wanted),
    )


def _of_columns(path: Path, ids: pa.Array, vectors: pa.Array, before: int) -> Block:
    """Make a block of a column of ids and a column of lists of numbers, or of lists of these."""
    for column in (ids, vectors):
        if column.null_count:
            at = int(np.flatnonzero(np.asarray(column.is_null()))[0])
            raise DataError(
                tr("The row has no id or no vector."),
                where=place_in(path, before + at + 1),
            )
    n = len(ids)
    inner, outer = vectors, None
    if _is_list(vectors.type) and _is_list(vectors.type.value_type):
        outer = _lengths(vectors)
        inner = vectors.flatten()
    if not _is_list(inner.type) or not _is_number(inner.type.value_type):
        raise DataError(
            tr("This is not a vector, nor a list of vectors of one dimension."),
            where=path,
            found=str(vectors.type),
            expected=tr("a list of numbers, or a list of such lists"),
        )
    lengths = np.ones(n, np.int64) if outer is None else outer
    dims = _lengths(inner)
    dim = int(dims[0]) if len(dims) else 0
    wrong = np.flatnonzero(dims != dim)
    numbers = inner.flatten()
    if len(wrong) or numbers.null_count or not dim:
        vector = int(wrong[0]) if len(wrong) else 0
        item = int(np.repeat(np.arange(n), lengths)[vector]) if len(dims) else 0
        raise DataError(
            tr("A vector lacks a value, or has another dimension than the ones before."),
            where=place_in(path, before + item + 1),
            found=int(dims[vector]) if len(dims) else 0,
            expected=dim or None,
        )
    with np.errstate(over="ignore"):
        values = numbers.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
    rows = np.arange(before + 1, before + n + 1)
    return Block(path, _identities(ids.to_pylist(), path, before), values, lengths, rows)


def _identities(found: list[Any], path: Path, before: int) -> list[int | str]:
    made: list[int | str] = []
    for at, value in enumerate(found):
        try:
            made.append(_identity(value, "id"))
        except DataError as error:
            error.where = place_in(path, before + at + 1)
            raise
    return made


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    return np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), np.int64)


def read_arrays(path: Path, side: Side) -> Iterator[Block]:
    """Read ``.npz``, ``.safetensors`` or ``.npy`` with its neighbours."""
    open_regular(path).close()  # a missing file is another error than a damaged one
    try:
        arrays = _ARRAYS[path.suffix.lower()](path)
    except InputError:
        raise
    except Exception as error:  # numpy, zipfile and safetensors have exceptions of many kinds
        raise _damaged(path, error) from error
    yield from _of_arrays(path, arrays)


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    with open_regular(path) as stream, np.load(stream, allow_pickle=False) as found:
        if not isinstance(found, np.lib.npyio.NpzFile) or found.zip is None:
            raise ValueError("no zip file")
        require_moderate_zip(found.zip, path)
        names = [name for name in ("ids", "vectors", "offsets") if name in found]
        return {name: found[name] for name in names}


def _npy(path: Path) -> dict[str, NDArray[Any]]:
    files = {"vectors": path}
    files |= {name: path.with_suffix(f".{name}.npy") for name in ("ids", "offsets")}
    arrays = {}
    for name, file in files.items():
        if name == "vectors" or file.exists():
            arrays[name] = load_array(file)
    return arrays


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = [name for name in ("ids", "vectors", "offsets") if name in file.keys()]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    return {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in tensors.items()
    }


_ARRAYS: dict[str, Callable[[Path], dict[str, NDArray[Any]]]] = {
    ".npz": _npz, ".npy": _npy, ".safetensors": _safetensors,
}  # fmt: skip


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> Iterator[Block]:
    """Check the shapes of ids, vectors and offsets, then yield blocks."""
    for name in ("ids", "vectors"):
        if name not in arrays:
            missing = path.with_suffix(".ids.npy") if path.suffix == ".npy" else name
            raise DataError(
                tr("The array '{name}' is missing.", name=missing),
                where=path,
                found=listed(arrays) or None,
                expected="ids [n], vectors [n, D]",
            )
    ids, vectors = arrays["ids"], arrays["vectors"]
    offsets = arrays.get("offsets", np.arange(len(ids) + 1) if ids.ndim == 1 else np.zeros(0))
    if (
        ids.ndim != 1
        or ids.dtype.kind not in "iuU"
        or vectors.ndim != 2
        or vectors.shape[1] == 0
        or vectors.dtype.kind not in "fiu"
        or offsets.dtype.kind not in "iu"
        or offsets.shape != (len(ids) + 1,)
        or offsets[0] != 0
        or offsets[-1] != len(vectors)
        or bool((np.diff(offsets.astype(np.int64)) < 0).any())
    ):
        raise DataError(
            tr("The arrays do not fit each other."),
            where=path,
            found="; ".join(
                f"{name} {one.dtype} {list(one.shape)}" for name, one in arrays.items()
            ),
            expected="ids [n], vectors [n, D] / vectors [N, D] + offsets [n + 1]",
        )
    offsets = offsets.astype(np.int64)
    for begin in range(0, len(ids), BLOCK):
        end = min(begin + BLOCK, len(ids))
        with np.errstate(over="ignore"):
            values = np.asarray(vectors[offsets[begin] : offsets[end]], np.float32)
        named = _identities(ids[begin:end].tolist(), path, begin)
        rows = np.arange(begin + 1, end + 1)
        yield Block(path, named, values, np.diff(offsets[begin : end + 1]), rows)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        tr("The file is damaged, or of another kind than its name says."),
        where=path,
        found=shortened(str(error).strip().partition("\n")[0] or type(error).__name__),
    )


READERS: dict[str, Callable[[Path, Side], Iterator[Block]]] = {
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".npz": read_arrays,
    ".npy": read_arrays,
    ".safetensors": read_arrays,
    ".lance": read_lance,
}
"""The function that reads a file, by the ending of its name."""
