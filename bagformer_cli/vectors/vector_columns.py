"""Read tables with a column of ids and a column of vectors: Parquet files and Lance data sets.

Shapes: n items, N vectors, D dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagformer_cli.errors import DataError, PathError, listed, shortened
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular, require_moderate, require_plain_folder
from bagformer_cli.vectors.vector_blocks import (
    BLOCK,
    ID_NAMES,
    VECTOR_NAMES,
    Block,
    Side,
    damaged_file,
    item_ids,
    place_in,
)


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
            raise damaged_file(path, error) from error


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
        raise damaged_file(path, error) from error


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
    return Block(path, item_ids(ids.to_pylist(), path, before), values, lengths, rows)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    return np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), np.int64)
