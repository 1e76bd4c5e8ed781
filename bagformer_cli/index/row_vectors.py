"""Read and make the Arrow columns of a product's vectors (``rows.py`` describes the columns).

Shapes: n rows, N vectors in all, D dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bagformer_cli.index.rows import Side
    from bagformer_cli.vectors.multi_vectors import MultiVectors
    from bagformer_cli.vectors.residual_codes import Codebook


def side_vectors(
    rows: pa.RecordBatch | pa.Table, side: Side, codebook: Codebook | None = None
) -> MultiVectors:
    """Read the multi-vector embeddings of one side; a row without it gets an empty one."""
    import torch

    from bagformer_cli.vectors.multi_vectors import MultiVectors

    column = _joined(rows.column(f"{side}_vectors"))
    width = column.type.value_type.list_size
    lengths = np.asarray(column.value_lengths().fill_null(0), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    flat = column.flatten().flatten().to_numpy(zero_copy_only=False)
    values = torch.from_numpy(np.array(flat).reshape(-1, width))
    scales = None
    if values.dtype == torch.int8:
        stored = _joined(rows.column(f"{side}_scale")).fill_null(0.0)
        scales = torch.from_numpy(np.array(stored.to_numpy(zero_copy_only=False), np.float32))
    return MultiVectors(values, torch.from_numpy(offsets), scales, codebook)


def single_vectors(rows: pa.RecordBatch | pa.Table, side: Side) -> NDArray[np.float32]:
    """Read the single vectors of one side: [n, D], zeros for a row without it."""
    column = _joined(rows.column(f"{side}_vector"))
    dim = column.type.list_size
    result = np.zeros((len(column), dim), np.float32)
    present = np.asarray(column.is_valid())
    result[present] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return result


def vectors_column(
    values: NDArray[Any], offsets: NDArray[np.int64], type_: pa.DataType
) -> pa.Array:
    """Make an Arrow column of multi-vector embeddings from [N, D] and [n+1]; copies nothing."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    inner = pa.FixedSizeListArray.from_arrays(flat, type=type_.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), inner, type=type_)


def _joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
