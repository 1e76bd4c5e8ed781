"""Combine products and their vectors into rows, one Arrow column after the other.

Rows of two products, of which the second has no image (``Layout.schema`` has all columns)::

    id   title  …  image_vector  image_vectors  image_count  image_scale
    p1   红裙      [D]           [n, D]         n            0.01
    p2   蓝裙      null          null           null         null

Shapes: n rows, m of them with a side, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bagformer_cli.config.expected import type_word
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.errors import DataError
from bagformer_cli.index.row_vectors import vectors_column
from bagformer_cli.index.rows import ATTRIBUTE_TYPES, Layout, Side
from bagformer_cli.messages import tr
from bagformer_cli.vectors.arrays import Vectors

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook


@dataclass
class SideRows:
    """The vectors of one side of n rows, of which m have this side.

    Args:
        present: [n] bool, which rows have this side.
        vectors: The multi-vector embeddings of those m rows, in order, float32.
        single: [m, D] one vector for each of them.
    """

    present: NDArray[np.bool_]
    vectors: Vectors
    single: NDArray[np.float32]


def to_rows(
    layout: Layout,
    products: Sequence[Product],
    thumbnails: Sequence[bytes | None],
    sides: Mapping[Side, SideRows],
    codebook: Codebook | None = None,
    terms: Sequence[str | None] | None = None,
) -> pa.RecordBatch:
    """Combine products and their vectors into rows.

    Args:
        layout: The layout of the rows.
        products: n products.
        thumbnails: n small image files.
        sides: The vectors of each side; a missing side is null in every row.
        codebook: The codebook of the layout, if it has one.
        terms: The terms of n titles, if the layout has terms; None: they are null in every row.

    Raises:
        InputError: The codebook is not the layout's.
        DataError: An attribute's value has another type; the error names the product.
    """
    columns: list[pa.Array] = [
        pa.array([product.id for product in products], pa.string()),
        pa.array([product.title for product in products], pa.string()),
        pa.array([product.image for product in products], pa.string()),
        pa.array(list(thumbnails), pa.binary()),
    ]
    for name, kind in layout.attributes.items():
        columns.append(_attribute(products, name, kind))
    for side in layout.sides:
        columns += _side_columns(layout, sides.get(side), len(products), codebook)
    if layout.terms:
        columns.append(pa.array(terms or [None] * len(products), pa.string()))
    return pa.record_batch(columns, schema=layout.schema)


def _side_columns(
    layout: Layout, rows: SideRows | None, n: int, codebook: Codebook | None
) -> list[pa.Array]:
    """Make the columns of one side: single vector, embedding, count and, for int8, scale."""
    single_type = pa.list_(pa.float16(), layout.dim)
    if rows is None:
        columns = [pa.nulls(n, single_type), pa.nulls(n, layout.vectors_type)]
        columns.append(pa.nulls(n, pa.int32()))
        return [*columns, pa.nulls(n, pa.float32())] if layout.dtype == "int8" else columns
    vectors = layout.to_stored(rows.vectors, codebook)
    missing = pa.array(~rows.present)
    lengths = np.zeros(n, np.int64)
    lengths[rows.present] = vectors.lengths
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    embeddings = vectors_column(vectors.values, offsets, layout.vectors_type)
    single = np.zeros((n, layout.dim), np.float16)
    single[rows.present] = rows.single
    columns = [
        pa.FixedSizeListArray.from_arrays(
            pa.array(single.reshape(-1)), type=single_type, mask=missing
        ),
        pc.if_else(missing, pa.nulls(n, layout.vectors_type), embeddings),
        pa.array(lengths.astype(np.int32), mask=~rows.present),
    ]
    if vectors.scales is not None:
        scales = np.zeros(n, np.float32)
        scales[rows.present] = vectors.scales
        columns.append(pa.array(scales, mask=~rows.present))
    return columns


def _attribute(products: Sequence[Product], name: str, kind: str) -> pa.Array:
    values = [product.attributes.get(name) for product in products]
    try:
        return pa.array(values, ATTRIBUTE_TYPES[kind])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    for product, value in zip(products, values, strict=True):
        try:
            pa.array([value], ATTRIBUTE_TYPES[kind])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            raise DataError(
                tr("The attribute '{name}' has another type in the index.", name=name),
                where=product.where,
                found=repr(value),
                expected=type_word(kind),
            ) from None
    raise AssertionError(name)  # pragma: no cover - one of them was refused above
