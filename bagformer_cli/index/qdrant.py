"""An index in Qdrant: a server or a cluster, for catalogues that do not fit one machine.

``qdrant://host:6333/collection`` (``qdrants://`` for TLS; the key comes from ``QDRANT_API_KEY``).
Recall and late interaction are one request. On every shard the HNSW graph over single vectors
returns candidates, the shard scores their multi-vector embeddings (``max_sim``), and the server
merges the results. Scores by another rule are computed here (``qdrant_recall.py``). No graph is
built over the embeddings (``m=0``): it would cost more than the vectors and hardly find more.

``qdrant:///folder/collection`` is the client's local mode: exact, one process at a time, for tests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from qdrant_client import models as q

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import (
    Engine,
    Queries,
    RecallMethod,
    RecallResult,
    storable,
)
from bagformer_cli.index.filters import parse_filter
from bagformer_cli.index.qdrant_connection import (
    Collection,
    connect,
    is_local,
    point_id,
    qdrant_errors,
)
from bagformer_cli.index.qdrant_filters import key_of, qdrant_filter
from bagformer_cli.index.qdrant_points import (
    PAYLOAD_TYPES,
    points_of_rows,
    rows_of_points,
    vector_config,
)
from bagformer_cli.index.qdrant_recall import (
    recall_here,
    recall_on_server,
    scores_here,
    scores_on_server,
    vectors_of,
)
from bagformer_cli.index.qdrant_terms import (
    fill_terms,
    sparse_config,
    term_counts,
    term_hits,
    term_requests,
)
from bagformer_cli.index.ranking import TermHits
from bagformer_cli.index.rows import TERMS, Layout, Side
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.stored_arrays import RESIDUAL4

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook

KEY, UNFINISHED = "xmr", "xmr_unfinished"  # in the metadata of the collection
POINTS_AT_ONCE = 128
VALUES_AT_ONCE = 10_000


class QdrantEngine(Engine):
    """An index in Qdrant; see the module.

    Args:
        uri: The address of the collection.
        collection: The collection.
        layout: The layout of its rows.
    """

    def __init__(self, uri: str, collection: Collection, layout: Layout) -> None:
        self.uri, self.layout = uri, layout
        self._at = collection
        self._client, self._collection = collection

    @classmethod
    def create(
        cls, uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
    ) -> Self:
        """Create an empty collection.

        Args:
            uri: The address.
            layout: The layout of the rows.
            codebook: None; Qdrant cannot decode residual codes.
            **options: ``shards``: parts of the collection; choose more than there are nodes, so
                that nodes can be added. ``replicas``: copies of each part. ``consistency``: copies
                that must have stored a write before it counts; by default the majority.
        """
        if layout.dtype == RESIDUAL4:
            raise InputError(
                tr("Qdrant stores float16 vectors and cannot use residual codes."),
                where=uri,
                found=layout.dtype,
                hint=tr("Encode the catalogue again with another --dtype."),
            )
        place = connect(uri)
        client, collection = place
        with qdrant_errors(uri):
            if client.collection_exists(collection):
                raise InputError(
                    tr("There already is something here."),
                    where=uri,
                    hint=tr("Choose another collection, or add to this one with xmr index add."),
                )
            replicas = options.get("replicas")
            client.create_collection(
                collection,
                vectors_config=vector_config(layout),
                sparse_vectors_config={TERMS: sparse_config()} if layout.terms else None,
                shard_number=options.get("shards"),
                replication_factor=replicas,
                write_consistency_factor=options.get("consistency")
                or (None if replicas is None else replicas // 2 + 1),
                on_disk_payload=True,
                metadata={KEY: json.dumps(layout.to_json())},
            )
            if not is_local(uri):
                for name, kind in {"id": "str", **layout.attributes}.items():
                    client.create_payload_index(collection, key_of(name), PAYLOAD_TYPES[kind])
        return cls(uri, place, layout)

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open a collection."""
        place = connect(uri)
        client, collection = place
        with qdrant_errors(uri):
            if not client.collection_exists(collection):
                raise InputError(
                    tr("There is no index here."),
                    where=uri,
                    hint=tr("Create one: xmr index build CATALOGUE {uri}", uri=uri),
                )
            known = client.get_collection(collection).config.metadata or {}
        layout = Layout.from_schema(pa.schema([], {b"xmr": str(known.get(KEY, "")).encode()}))
        if layout is None:
            raise InputError(tr("This is not an index of xmr."), where=uri)
        return cls(uri, place, layout)

    # ------------------------------------------------------------------------------- writing

    def unfinished_sources(self) -> set[str]:
        """Return the sources whose build or add was interrupted, or is under way."""
        with qdrant_errors(self.uri):
            known = self._client.get_collection(self._collection).config.metadata or {}
        try:
            return set(map(str, json.loads(known.get(UNFINISHED) or "[]")))
        except ValueError:
            return set()

    def _mark(self, source: str, *, unfinished: bool) -> None:
        sources = self.unfinished_sources()
        left = sources | {source} if unfinished else sources - {source}
        if left != sources:
            with qdrant_errors(self.uri):
                self._client.update_collection(
                    self._collection, metadata={UNFINISHED: json.dumps(sorted(left))}
                )

    def upsert(self, rows: pa.RecordBatch | pa.Table) -> int:
        """Add rows, replacing those of the same id; return how many were replaced."""
        self.require_fitting(rows)
        points = points_of_rows(self.layout, rows)
        replaced = len(self.stored(rows["id"].to_pylist()))
        with qdrant_errors(self.uri):
            for begin in range(0, len(points), POINTS_AT_ONCE):
                part = points[begin : begin + POINTS_AT_ONCE]
                self._client.upsert(self._collection, part, wait=True)
        return replaced

    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> int:
        """Delete rows by id, or by a filter."""
        conditions: list[q.Filter] = []
        if ids := storable(ids):
            listed = q.HasIdCondition(has_id=[point_id(name) for name in ids])
            conditions.append(q.Filter(must=[listed]))
        if where is not None:
            conditions.append(self._filter(where))
        removed = 0
        with qdrant_errors(self.uri):
            for condition in conditions:
                removed += self._client.count(self._collection, condition, exact=True).count
                selector = q.FilterSelector(filter=condition)
                self._client.delete(self._collection, selector, wait=True)
        return removed

    def optimize(self, progress: Progress = SILENT) -> None:
        """Do nothing: the server optimizes by itself."""

    # ------------------------------------------------------------------------------- reading

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that rows have."""
        points = {point_id(name): name for name in storable(ids)}
        keys: list[Any] = list(points)
        found: set[str] = set()
        with qdrant_errors(self.uri):
            for begin in range(0, len(keys), VALUES_AT_ONCE):
                part = keys[begin : begin + VALUES_AT_ONCE]
                records = self._client.retrieve(self._collection, part, with_payload=False)
                found.update(points[str(record.id)] for record in records)
        return found

    def count(self, where: str | None = None) -> int:
        """Count all rows, or those that match a filter."""
        condition = None if where is None else self._filter(where)
        with qdrant_errors(self.uri):
            return int(self._client.count(self._collection, condition, exact=True).count)

    def recall(
        self,
        side: Side,
        queries: Queries,
        k: int,
        where: str | None,
        method: RecallMethod,
        *,
        candidates: int,
    ) -> RecallResult:
        """Find candidates by single vectors, or all products; score them by late interaction."""
        self.layout.require_side(side, self.uri)
        started = time.perf_counter()
        has_side = q.HasVectorCondition(has_vector=f"{side}_vectors")
        narrow = q.Filter(must=[has_side] if where is None else [has_side, self._filter(where)])
        recall = recall_on_server if queries.rule.is_maxsim else recall_here
        most = None if method == "exact" else candidates
        with qdrant_errors(self.uri):
            found = recall(self._at, queries, side, narrow, k, most)
        found.seconds["server"] = time.perf_counter() - started
        return found

    def late_interaction(
        self, side: Side, queries: Queries, keys: Sequence[NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """Score each query against its candidates, on the server if it can."""
        scores = scores_on_server if queries.rule.is_maxsim else scores_here
        with qdrant_errors(self.uri):
            return [
                scores(self._at, queries.one(number), side, own) for number, own in enumerate(keys)
            ]

    def vector_counts(self, side: Side, keys: NDArray[Any]) -> NDArray[np.int64]:
        """Return the number of vectors that each row has of a side; reads the vectors."""
        if not len(keys):
            return np.zeros(0, np.int64)
        with qdrant_errors(self.uri):
            return np.maximum(vectors_of(self._at, side, keys, self.layout.dim).lengths, 1)

    def find_terms(
        self, side: Side, queries: Sequence[Mapping[str, float]], k: int, where: str | None
    ) -> list[TermHits]:
        """Find rows by the terms of their titles, in one request for all queries."""
        conditions: list[Any] = [q.HasVectorCondition(has_vector=f"{side}_vectors")]
        conditions += [] if where is None else [self._filter(where)]
        requests = term_requests(queries, k, q.Filter(must=conditions))
        with qdrant_errors(self.uri):
            answers = self._client.query_batch_points(self._collection, requests)
        return list(map(term_hits, answers))

    def term_counts(self) -> dict[str, int]:
        """Return the number of titles that have each term; reads the whole collection."""
        with qdrant_errors(self.uri):
            return term_counts(self._at)

    def fill_terms(self, make: Callable[[list[str]], list[str | None]]) -> int:
        """Add the terms of titles that have none."""
        with qdrant_errors(self.uri):
            filled = fill_terms(self._at, make)
            if not self.layout.terms:
                self.layout = replace(self.layout, terms=True)
                stored = {KEY: json.dumps(self.layout.to_json())}
                self._client.update_collection(self._collection, metadata=stored)
        return filled

    def fetch(self, keys: NDArray[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return columns of rows, in order."""
        if not len(keys):
            return []
        with qdrant_errors(self.uri):
            # Qdrant would read an odd column name as a path. So only "thumbnail" is ever named.
            wanted = "thumbnail" in columns or q.PayloadSelectorExclude(exclude=["thumbnail"])
            found = self._client.retrieve(self._collection, list(keys), with_payload=wanted)
        return rows_of_points(found, keys, columns)

    def info(self) -> dict[str, Any]:
        """Return what the server reports about the collection."""
        with qdrant_errors(self.uri):
            about = self._client.get_collection(self._collection)
            sides = {
                side: self._client.count(
                    self._collection,
                    q.Filter(must=[q.HasVectorCondition(has_vector=f"{side}_vectors")]),
                    exact=True,
                ).count
                for side in self.layout.sides
            }
        params = about.config.params
        return {
            "engine": "qdrant",
            "unfinished": self.incomplete,
            "sides": sides,
            "status": str(about.status.value),
            "shards": params.shard_number,
            "replicas": params.replication_factor,
            "bytes": 0,
        }

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # -------------------------------------------------------------------------------- inside

    def _filter(self, where: str) -> q.Filter:
        dates = [name for name, kind in self.layout.attributes.items() if kind == "date"]
        return qdrant_filter(parse_filter(where, self.layout), self._values, dates)

    def _values(self, name: str) -> Iterator[Any]:
        """Yield an attribute's value of every row; reads the whole collection."""
        with qdrant_errors(self.uri):
            for points in self._at.pages(VALUES_AT_ONCE, payload=[key_of(name)]):
                yield from ((point.payload or {}).get(name) for point in points)
