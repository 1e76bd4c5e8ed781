"""Requests of Qdrant's REST interface as objects of its engine (qdrant-edge), and answers back.

Only what ``bagformer_cli.index.qdrant`` sends; anything else raises ``NotImplementedError``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models as rest

DISTANCES = {rest.Distance.COSINE: edge.Distance.Cosine, rest.Distance.DOT: edge.Distance.Dot}
PAYLOAD_TYPES = {
    rest.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    rest.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
    rest.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    rest.PayloadSchemaType.BOOL: edge.PayloadSchemaType.Bool,
    rest.PayloadSchemaType.DATETIME: edge.PayloadSchemaType.Datetime,
}


def shard_config(asked: rest.CreateCollection) -> edge.EdgeConfig:
    """Translate the configuration of a collection."""
    assert isinstance(asked.vectors, dict)
    return edge.EdgeConfig(
        vectors={name: _vector_params(own) for name, own in asked.vectors.items()},
        sparse_vectors={name: _sparse(own) for name, own in (asked.sparse_vectors or {}).items()},
        wal_enabled=False,
    )


def _vector_params(asked: rest.VectorParams) -> edge.EdgeVectorParams:
    _require(asked.datatype == rest.Datatype.FLOAT16, "a datatype other than float16")
    many = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    graph = asked.hnsw_config
    return edge.EdgeVectorParams(
        size=asked.size,
        distance=DISTANCES[asked.distance],
        datatype=edge.VectorStorageDatatype.Float16,
        on_disk=asked.on_disk,
        multivector_config=many if asked.multivector_config else None,
        hnsw_config=edge.HnswIndexConfig(graph.m or 0, 100, 10_000) if graph else None,
    )


def _sparse(asked: rest.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    _require(asked.modifier == rest.Modifier.IDF, "sparse vectors without idf")
    return edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)


def point(asked: rest.PointStruct) -> edge.Point:
    """Translate a point."""
    assert isinstance(asked.vector, dict)
    return edge.Point(asked.id, _vectors(asked.vector), asked.payload)


def point_vectors(asked: rest.PointVectors) -> edge.PointVectors:
    """Translate vectors for a point that is there."""
    assert isinstance(asked.vector, dict)
    return edge.PointVectors(asked.id, _vectors(asked.vector))


def _vectors(named: dict[str, Any]) -> dict[str, Any]:
    return {name: _vector(own) for name, own in named.items()}


def _vector(asked: Any) -> Any:
    if isinstance(asked, rest.NearestQuery):
        return _vector(asked.nearest)
    if isinstance(asked, rest.SparseVector):
        return edge.SparseVector(asked.indices, asked.values)
    _require(isinstance(asked, list), f"{type(asked).__name__} as a vector")
    return asked


def query(asked: rest.QueryRequest) -> edge.QueryRequest:
    """Translate a search."""
    stages = asked.prefetch or []
    return edge.QueryRequest(
        limit=10 if asked.limit is None else asked.limit,
        query=_nearest(asked),
        prefetches=[_prefetch(s) for s in (stages if isinstance(stages, list) else [stages])],
        filter=narrowed(asked.filter),
        with_vector=asked.with_vector or False,
        with_payload=selected(asked.with_payload),
    )


def _prefetch(asked: rest.Prefetch) -> edge.Prefetch:
    assert asked.limit is not None
    return edge.Prefetch(asked.limit, _nearest(asked), filter=narrowed(asked.filter))


def _nearest(asked: rest.QueryRequest | rest.Prefetch) -> Any:
    return edge.Query.Nearest(_vector(asked.query), asked.using)


def selected(asked: Any) -> Any:
    """Translate which fields of the payload are returned."""
    if isinstance(asked, rest.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(asked.include)
    if isinstance(asked, rest.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(asked.exclude)
    return asked or False


def narrowed(asked: rest.Filter | None) -> edge.Filter | None:
    """Translate a filter."""
    return None if asked is None else condition(asked)


def condition(asked: Any) -> Any:
    """Translate a filter, or one of its conditions."""
    match asked:
        case rest.Filter():
            _require(asked.min_should is None, "min_should")
            return edge.Filter(
                must=_conditions(asked.must),
                should=_conditions(asked.should),
                must_not=_conditions(asked.must_not),
            )
        case rest.IsEmptyCondition():
            return edge.IsEmptyCondition(asked.is_empty.key)
        case rest.IsNullCondition():
            return edge.IsNullCondition(asked.is_null.key)
        case rest.HasIdCondition():
            return edge.HasIdCondition(set(asked.has_id))
        case rest.HasVectorCondition():
            return edge.HasVectorCondition(asked.has_vector)
        case rest.FieldCondition(key=key, match=None, range=limits) if limits is not None:
            return edge.FieldCondition(key, range=_range(limits))
        case rest.FieldCondition(key=key, match=match, range=None) if match is not None:
            return edge.FieldCondition(key, match=_match(match))
    raise NotImplementedError(repr(asked))


def _conditions(asked: Any) -> list[Any] | None:
    if asked is None:
        return None
    return [condition(part) for part in (asked if isinstance(asked, list) else [asked])]


def _range(asked: rest.Range | rest.DatetimeRange) -> Any:
    limits = {name: value for name, value in asked if value is not None}
    if isinstance(asked, rest.DatetimeRange):
        return edge.RangeDateTime(**{name: str(value) for name, value in limits.items()})
    return edge.RangeFloat(**limits)


def _match(asked: Any) -> Any:
    match asked:
        case rest.MatchValue():
            truth = isinstance(asked.value, bool)  # the engine takes a plain True for 1
            return edge.MatchValue(np.bool_(asked.value) if truth else asked.value)
        case rest.MatchAny():
            return edge.MatchAny(asked.any)
        case rest.MatchPrefix():
            return edge.MatchPrefix(asked.prefix)
        case rest.MatchSubstring():
            return edge.MatchSubstring(asked.substring)
    raise NotImplementedError(repr(asked))


def answer(found: Any) -> dict[str, Any]:
    """Translate a point that was found or read."""
    vectors = found.vector
    if isinstance(vectors, dict):
        vectors = {
            name: {"indices": own.indices, "values": own.values}
            if isinstance(own, edge.SparseVector)
            else own
            for name, own in vectors.items()
        }
    made = {"id": str(found.id), "payload": found.payload, "vector": vectors}
    if isinstance(found, edge.ScoredPoint):
        made |= {"score": found.score, "version": found.version}
    return made


def _require(supported: bool, what: str) -> None:
    if not supported:
        raise NotImplementedError(what)
