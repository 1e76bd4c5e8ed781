"""An index in Qdrant: a server, or a cluster of them, for catalogues beyond one machine.

``qdrant://host:6333/collection`` (``qdrants://`` for TLS; the key from ``QDRANT_API_KEY``). Recall
and late interaction are one request: the one-vector HNSW index fetches candidates on every shard,
and the shards score their lists (``max_sim``) and merge. The lists get no index of their own
(``m=0``): a graph over them would cost far more than the vectors and find hardly more.

``qdrant:///folder/collection`` is the client's local mode: exact, one process at a time, for tests.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from qdrant_client import QdrantClient
from qdrant_client import models as q

from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.index.engine import Engine, Found, Queries, Recall, damaged
from bagformer_cli.index.filters import parse_filter
from bagformer_cli.index.qdrant_filters import key_of, qdrant_filter
from bagformer_cli.index.rows import Layout, Side, side_one, side_vectors
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.residual_codes import RESIDUAL4, Codebook

KEY = "xmr"
NAMESPACE = uuid.UUID("6d75f9a2-6b0e-4c57-9c5e-3f1f0a2b7d11")
POINTS_AT_ONCE = 128
TIMEOUT = 60
_SCHEMA = {
    "str": q.PayloadSchemaType.KEYWORD,
    "int": q.PayloadSchemaType.INTEGER,
    "float": q.PayloadSchemaType.FLOAT,
    "bool": q.PayloadSchemaType.BOOL,
}


class QdrantEngine(Engine):
    """See the module.

    Args:
        uri: Where the collection is.
        client: Connected to it.
        collection: Its name.
        layout: Of the rows.
    """

    def __init__(self, uri: str, client: QdrantClient, collection: str, layout: Layout) -> None:
        self.uri, self.layout = uri, layout
        self._client, self._collection = client, collection

    @classmethod
    def create(
        cls, uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
    ) -> Self:
        """Make an empty collection.

        Args:
            uri: Where.
            layout: Of the rows.
            codebook: None: Qdrant knows no such codes.
            **options: ``shards``: parts that the collection is cut into, more than there are nodes
                so that it can grow; ``replicas``: copies of each; ``consistency``: of them that
                must have written before a write counts.
        """
        if layout.dtype == RESIDUAL4:
            raise InputError(
                tr("Qdrant keeps lists as float16: residual codes make nothing smaller there."),
                where=uri,
                found=layout.dtype,
                hint=tr("Encode with another --dtype."),
            )
        client, collection = _connect(uri)
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
        with _errors(uri):
            if client.collection_exists(collection):
                raise InputError(
                    tr("There is something at this place already."),
                    where=uri,
                    hint=tr("Choose another collection, or add to it with xmr index add."),
                )
            replicas = options.get("replicas")
            client.create_collection(
                collection,
                vectors_config=vectors,
                shard_number=options.get("shards"),
                replication_factor=replicas,
                write_consistency_factor=options.get("consistency")
                or (None if replicas is None else replicas // 2 + 1),
                on_disk_payload=True,
                metadata={KEY: json.dumps(asdict(layout))},
            )
            if not _is_local(uri):
                for name, kind in {"id": "str", **layout.attributes}.items():
                    if '"' not in name:  # which no filter can name either
                        client.create_payload_index(collection, key_of(name), _SCHEMA[kind])
        return cls(uri, client, collection, layout)

    @classmethod
    def open(cls, uri: str, **options: Any) -> Self:
        """Open a collection."""
        client, collection = _connect(uri)
        with _errors(uri):
            if not client.collection_exists(collection):
                raise InputError(
                    tr("There is no index here."),
                    where=uri,
                    hint=tr("Make one: xmr index build CATALOGUE {uri}", uri=uri),
                )
            known = client.get_collection(collection).config.metadata or {}
        layout = Layout.of(pa.schema([], {b"xmr": str(known.get(KEY, "")).encode()}))
        if layout is None:
            raise InputError(tr("This is not an index of xmr."), where=uri)
        return cls(uri, client, collection, layout)

    # ------------------------------------------------------------------------------- writing

    def upsert(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows, replacing those of the same id."""
        self.check(rows)
        columns = {name: rows[name].to_pylist() for name in ("id", "title", "image", "thumbnail",
                                                            *self.layout.attributes)}  # fmt: skip
        sides = {
            side: (side_one(rows, side), side_vectors(rows, side).to(dtype=torch.float32))
            for side in self.layout.sides
        }
        points = []
        for row, name in enumerate(columns["id"]):
            vectors: dict[str, Any] = {}
            for side, (one, lists) in sides.items():
                own = lists[row].values
                if len(own):
                    vectors[f"{side}_vector"] = one[row].tolist()
                    vectors[f"{side}_vectors"] = own.tolist()
            payload = {key: values[row] for key, values in columns.items()}
            if payload["thumbnail"] is not None:
                payload["thumbnail"] = base64.b64encode(payload["thumbnail"]).decode()
            points.append(q.PointStruct(id=point_id(name), vector=vectors, payload=payload))
        with _errors(self.uri):
            for begin in range(0, len(points), POINTS_AT_ONCE):
                part = points[begin : begin + POINTS_AT_ONCE]
                self._client.upsert(self._collection, part, wait=True)

    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> int:
        """Delete rows."""
        conditions: list[q.Filter] = []
        if ids:
            there = q.HasIdCondition(has_id=[point_id(name) for name in ids])
            conditions.append(q.Filter(must=[there]))
        if where is not None:
            conditions.append(self._filter(where))
        removed = 0
        with _errors(self.uri):
            for condition in conditions:
                removed += self._client.count(self._collection, condition, exact=True).count
                selector = q.FilterSelector(filter=condition)
                self._client.delete(self._collection, selector, wait=True)
        return removed

    def optimize(self, progress: Progress = SILENT) -> None:
        """Nothing: the server does it by itself."""

    # ------------------------------------------------------------------------------- reading

    def count(self, where: str | None = None) -> int:
        """Rows, or those that an expression is true of."""
        condition = None if where is None else self._filter(where)
        with _errors(self.uri):
            return int(self._client.count(self._collection, condition, exact=True).count)

    def recall(
        self,
        side: Side,
        queries: Queries,
        k: int,
        where: str | None,
        method: Recall,
        *,
        candidates: int,
    ) -> Found:
        """Candidates by one vector, and their late interaction, in one request."""
        self.layout.require_side(side, self.uri)
        started = time.perf_counter()
        there = q.HasVectorCondition(has_vector=f"{side}_vectors")
        narrow = q.Filter(must=[there] if where is None else [there, self._filter(where)])
        lists = queries.vectors.to("cpu", torch.float32).to_list()
        requests = []
        for one, own in zip(queries.one.float().tolist(), lists, strict=True):
            first = q.Prefetch(query=one, using=f"{side}_vector", limit=candidates, filter=narrow)
            requests.append(
                q.QueryRequest(
                    prefetch=None if method == "exact" else first,
                    query=own.tolist(),
                    using=f"{side}_vectors",
                    filter=narrow if method == "exact" else None,
                    limit=k,
                )
            )
        with _errors(self.uri):
            answers = self._client.query_batch_points(self._collection, requests)
        keys = [np.array([str(point.id) for point in answer.points], object) for answer in answers]
        scores = [np.array([p.score for p in answer.points], np.float32) for answer in answers]
        note = (
            tr("every list compared, by the server")
            if method == "exact"
            else tr(
                "one vector each, then the lists of {n} candidates; by the server", n=candidates
            )
        )
        seconds = {"server": time.perf_counter() - started}
        return Found(keys, scores, True, "exact" if method == "exact" else "vector", note, seconds)

    def late(
        self, side: Side, queries: Queries, keys: Sequence[NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """The late interaction of candidates, by the server."""
        result = []
        for own, chosen in zip(queries.vectors.to_list(), keys, strict=True):
            with _errors(self.uri):
                answer = self._client.query_points(
                    self._collection,
                    query=own.tolist(),
                    using=f"{side}_vectors",
                    query_filter=q.Filter(must=[q.HasIdCondition(has_id=list(chosen))]),
                    limit=max(1, len(chosen)),
                )
            scores = {str(point.id): point.score for point in answer.points}
            result.append(np.array([scores[key] for key in chosen], np.float32))
        return result

    def rows(self, keys: NDArray[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of rows, in order."""
        if not len(keys):
            return []
        with _errors(self.uri):
            # Qdrant would read the name of a column as a path: what is not wanted is named instead.
            wanted = "thumbnail" in columns or q.PayloadSelectorExclude(exclude=["thumbnail"])
            found = self._client.retrieve(self._collection, list(keys), with_payload=wanted)
        payloads = {str(record.id): record.payload or {} for record in found}
        rows = []
        for key in keys:
            row = {name: payloads[key].get(name) for name in columns}
            if (thumbnail := row.get("thumbnail")) is not None:
                row["thumbnail"] = base64.b64decode(thumbnail)
            rows.append(row)
        return rows

    def info(self) -> dict[str, Any]:
        """What the server says of the collection."""
        with _errors(self.uri):
            about = self._client.get_collection(self._collection)
            sides = {
                side: self._client.count(
                    self._collection,
                    q.Filter(must=[q.HasVectorCondition(has_vector=f"{side}_vectors")]),
                    exact=True,
                ).count
                for side in self.layout.sides
            }
        lists = about.config.params
        return {
            "engine": "qdrant",
            "sides": sides,
            "status": str(about.status.value),
            "shards": lists.shard_number,
            "replicas": lists.replication_factor,
            "bytes": 0,
        }

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # -------------------------------------------------------------------------------- inside

    def _filter(self, where: str) -> q.Filter:
        return qdrant_filter(parse_filter(where, self.layout))


def point_id(name: str) -> str:
    """A product's id as Qdrant wants it: a UUID that follows from it."""
    return str(uuid.uuid5(NAMESPACE, name))


def _is_local(uri: str) -> bool:
    return uri.startswith("qdrant:///")


def _connect(uri: str) -> tuple[QdrantClient, str]:
    scheme, _, rest = uri.partition("://")
    place, _, collection = rest.rpartition("/")
    if not collection or not place:
        raise InputError(
            tr("The address lacks its collection."),
            found=uri,
            expected="qdrant://host:6333/collection",
        )
    with _errors(uri):
        if _is_local(uri):
            return QdrantClient(path=place), collection
        return (
            QdrantClient(
                url=f"{'https' if scheme == 'qdrants' else 'http'}://{place}",
                api_key=os.environ.get("QDRANT_API_KEY"),
                timeout=TIMEOUT,
                check_compatibility=False,
            ),
            collection,
        )


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """What the client raises, as this project's errors."""
    try:
        yield
    except (XmrError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise damaged(uri, error) from error
