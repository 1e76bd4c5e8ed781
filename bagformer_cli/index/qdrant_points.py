"""Rows as points of a Qdrant collection, and back.

::

    column                         point
    image_vector, image_vectors    vectors of the same names; none if the product has no image
    title_terms                    sparse vector of the same name
    id, title, image, price …      payload; its id is a UUID made of the product's id
    thumbnail                      payload, in base64
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray
from qdrant_client import models as q

from bagformer_cli.index.qdrant_connection import point_id
from bagformer_cli.index.qdrant_terms import title_vector
from bagformer_cli.index.row_vectors import side_vectors, single_vectors
from bagformer_cli.index.rows import TERMS, Layout

PAYLOAD_TYPES = {
    "str": q.PayloadSchemaType.KEYWORD,
    "int": q.PayloadSchemaType.INTEGER,
    "float": q.PayloadSchemaType.FLOAT,
    "bool": q.PayloadSchemaType.BOOL,
    "date": q.PayloadSchemaType.DATETIME,
}
"""Type of an attribute to the type of its index in Qdrant."""


def vector_config(layout: Layout) -> dict[str, q.VectorParams]:
    """Describe the vectors of each side: single ones with a graph, multi-vector ones without."""
    vectors: dict[str, q.VectorParams] = {}
    for side in layout.sides:
        vectors[f"{side}_vector"] = q.VectorParams(
            size=layout.dim, distance=q.Distance.COSINE, datatype=q.Datatype.FLOAT16
        )
        vectors[f"{side}_vectors"] = q.VectorParams(
            size=layout.dim,
            distance=q.Distance.DOT,
            datatype=q.Datatype.FLOAT16,
            on_disk=True,
            multivector_config=q.MultiVectorConfig(comparator=q.MultiVectorComparator.MAX_SIM),
            hnsw_config=q.HnswConfigDiff(m=0),
        )
    return vectors


def points_of_rows(layout: Layout, rows: pa.RecordBatch | pa.Table) -> list[q.PointStruct]:
    """Make a point of each row."""
    names = ["id", "title", "image", "thumbnail", *layout.attributes]
    names += [TERMS] if layout.terms else []
    columns = {name: rows[name].to_pylist() for name in names}
    sides = {
        side: (single_vectors(rows, side), list(side_vectors(rows, side).arrays()))
        for side in layout.sides
    }
    points = []
    for row, name in enumerate(columns["id"]):
        vectors: dict[str, Any] = {}
        for side, (single, embeddings) in sides.items():
            own = embeddings[row]
            if len(own):
                vectors[f"{side}_vector"] = single[row].tolist()
                vectors[f"{side}_vectors"] = own.tolist()
        if layout.terms and (terms := title_vector(columns[TERMS][row])) is not None:
            vectors[TERMS] = terms
        payload = {key: values[row] for key, values in columns.items()}
        if payload["thumbnail"] is not None:
            payload["thumbnail"] = base64.b64encode(payload["thumbnail"]).decode()
        points.append(q.PointStruct(id=point_id(name), vector=vectors, payload=payload))
    return points


def rows_of_points(
    points: Sequence[Any], keys: NDArray[Any], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return columns of points that were read, in the order of ``keys``; None where one is gone."""
    payloads = {str(record.id): record.payload or {} for record in points}
    rows = []
    for key in keys:
        row = {name: payloads.get(key, {}).get(name) for name in columns}
        if (thumbnail := row.get("thumbnail")) is not None:
            row["thumbnail"] = base64.b64decode(thumbnail)
        rows.append(row)
    return rows
