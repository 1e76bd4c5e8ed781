"""``xmr bench index``: search through an index against an exact scan: recall, time, build time.

Optionally LanceDB's own search over multi-vector columns is measured on the same vectors, at equal
recall.

Shapes: Q queries, N items × L vectors, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.bench.exact_search import queries_for, query_lengths
from bagformer_cli.bench.generated_catalogue import GeneratedCatalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.lancedb import LanceEngine
from bagformer_cli.index.row_columns import SideRows, to_rows
from bagformer_cli.index.row_vectors import vectors_column
from bagformer_cli.index.rows import Layout
from bagformer_cli.index.vector_cache import VectorCache
from bagformer_cli.interaction.topk import topk_rescored
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

K = 10  # results per query
QUERIES = 100
TURN = 10
"""Queries that one method answers before the next has its turn. Each method thus finds its own data
in the processor's caches, and a disturbance of the machine meets all of them."""
LANCEDB_SETTINGS = ((16, 10), (32, 20), (64, 50), (128, 200), (256, 500), (512, 1000))
"""LanceDB's nprobes and refine_factor, tried in order until one reaches our recall."""
CANDIDATES = (10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
"""Candidates of our first stage, tried in order until one reaches LanceDB's best recall."""


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one method.

    Attributes:
        name: The method.
        recall: Share of the ten exact results that it finds, mean over the queries.
        p50: Median wall time of a query, ms.
        p95: 95th percentile, ms.
        faster: The median of the exact scan divided by this one.
    """

    name: str
    recall: float
    p50: float
    p95: float
    faster: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """LanceDB's own search, and our fastest method that finds at least as much.

    Attributes:
        theirs: LanceDB's setting.
        ours: Our method.
        their_recall: Recall@10.
        our_recall: Recall@10, not lower.
        their_p50: Median wall time, ms.
        our_p50: Median wall time, ms.
        faster: Their time divided by ours.
    """

    theirs: str
    ours: str
    their_recall: float
    our_recall: float
    their_p50: float
    our_p50: float
    faster: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run.

    Attributes:
        items: N.
        length: L.
        dim: D.
        queries: Q.
        build: Wall time of each step of building, in seconds; empty if the index existed.
        rows: One for each method.
        comparisons: LanceDB's settings compared with our methods; empty without ``lancedb_lists``.
    """

    items: int
    length: int
    dim: int
    queries: int
    build: dict[str, float]
    rows: list[Row]
    comparisons: list[Comparison]


Search = Callable[[int], NDArray[Any]]
"""A method: the number of a query → the positions of its ten results."""


def run(
    folder: Path,
    catalogue: GeneratedCatalogue,
    *,
    queries: int = QUERIES,
    lancedb_lists: bool = False,
    progress: Progress = SILENT,
) -> Report:
    """Build an index of a generated catalogue and time searches, warm, in turns.

    Args:
        folder: The folder of the index; an existing index of the same catalogue is used.
        catalogue: The catalogue.
        queries: Q.
        lancedb_lists: Also measure LanceDB's own search over multi-vectors, in a second table
            (float16; its index takes minutes to build). Its nprobes and refine factor are raised
            until it finds what ours finds; ours is lowered to what its best setting finds.
        progress: Where to report.
    """
    build: dict[str, float] = {}
    engine = _index(folder / f"index-{catalogue.name}", catalogue, build, progress)
    cache = engine.updated_cache("image")
    cache.build_centroids(progress, min_bytes=0)  # for small catalogues too
    stored = cache.segments[0].vectors
    vectors = queries_for(stored, query_lengths(queries), catalogue.seed + 1)
    arrays = vectors.arrays()
    encoded = Queries(arrays, arrays.mean())
    exact = [_scan(stored, vectors[n]) for n in range(queries)]
    by_tokens = tr("index, tokens")
    methods: dict[str, Search] = {
        tr("exact scan alone"): lambda n: _scan(stored, vectors[n]),
        tr("index, exact"): lambda n: _search(engine, encoded, n, "exact"),
        by_tokens: lambda n: _search(engine, encoded, n, "tokens"),
        tr("index, single vectors, 200 candidates"): lambda n: _search(
            engine, encoded, n, "vector"
        ),
    }
    theirs: list[str] = []
    if lancedb_lists:
        table = _lancedb_table(folder / f"lists-{catalogue.name}", stored, build)
        target = _recall(methods[by_tokens], exact)
        for (probes, refine), search in _lancedb_methods(table, vectors):
            name = tr("LanceDB's multi-vectors, nprobes {n}, refine {k}", n=probes, k=refine)
            methods[name] = search
            theirs.append(name)
            if _recall(search, exact) >= target:
                break
        highest = max(_recall(methods[name], exact) for name in theirs)
        for count in CANDIDATES:
            fewer = _first_stage(cache, encoded, count)
            if _recall(fewer, exact) >= highest or count == CANDIDATES[-1]:
                methods[tr("index, tokens, {n} candidates", n=count)] = fewer
                break
    rows = _measure(methods, exact, progress)
    return Report(
        catalogue.items, catalogue.length, catalogue.dim, queries, build, rows,
        compare(rows, theirs),
    )  # fmt: skip


def _measure(
    methods: dict[str, Search], exact: list[NDArray[np.int64]], progress: Progress
) -> list[Row]:
    """Time all methods on all queries; the others are compared with the first method."""
    milliseconds: dict[str, list[float]] = {name: [] for name in methods}
    recalls: dict[str, list[float]] = {name: [] for name in methods}
    queries = len(exact)
    with progress.task(tr("Timing"), total=queries) as task:
        for search in methods.values():
            for n in range(min(5, queries)):  # compile, warm up
                search(n)
        for first in range(0, queries, TURN):
            turn = range(first, min(first + TURN, queries))
            for name, search in methods.items():
                for n in turn:
                    start = time.perf_counter()
                    found = search(n)
                    milliseconds[name].append(1000 * (time.perf_counter() - start))
                    recalls[name].append(len(np.intersect1d(found, exact[n])) / K)
            task.advance(len(turn))
    base = float(np.median(next(iter(milliseconds.values()))))
    return [
        Row(
            name,
            float(np.mean(recalls[name])),
            float(np.median(times)),
            float(np.percentile(times, 95)),
            base / float(np.median(times)),
        )
        for name, times in milliseconds.items()
    ]


def compare(rows: list[Row], theirs: list[str]) -> list[Comparison]:
    """Pair each of LanceDB's settings with our fastest method that finds at least as much."""
    pairs = []
    for row in rows:
        ours = [own for own in rows if own.name not in theirs and own.recall >= row.recall]
        if row.name in theirs and ours:
            best = min(ours, key=lambda own: own.p50)
            pairs.append(
                Comparison(
                    row.name, best.name, row.recall, best.recall, row.p50, best.p50,
                    row.p50 / best.p50,
                )
            )  # fmt: skip
    return pairs


def _recall(search: Search, exact: list[NDArray[np.int64]]) -> float:
    """Return the mean share of the ten exact results that a method finds."""
    return float(
        np.mean([len(np.intersect1d(search(n), best)) / K for n, best in enumerate(exact)])
    )


def _first_stage(cache: VectorCache, queries: Queries, count: int) -> Search:
    """The centroid first stage with exactly ``count`` candidates."""

    def search(n: int) -> NDArray[np.int64]:
        assert cache.centroids is not None
        query = queries.one(n)
        candidates = cache.centroids.candidates(query.tensors.values, count, cache.alive, 0.0, 0.0)
        positions: NDArray[np.int64] = cache.scan(query, K, candidates)[1][0]
        return positions

    return search


def _index(
    path: Path, catalogue: GeneratedCatalogue, build: dict[str, float], progress: Progress
) -> LanceEngine:
    if path.exists():
        return LanceEngine.open(str(path))
    layout = Layout("bench", catalogue.dim, sides=("image",))
    started = time.perf_counter()
    engine = LanceEngine.create(str(path), layout)
    first = 0
    for block in catalogue.blocks(progress):
        engine.upsert(_rows(layout, block, first))
        first += len(block)
    build["rows"] = time.perf_counter() - started
    started = time.perf_counter()
    engine.optimize(progress)
    build["optimize"] = time.perf_counter() - started
    return engine


def _rows(layout: Layout, block: MultiVectors, first: int) -> Any:
    products = [Product("bench", str(first + n)) for n in range(len(block))]
    present = np.ones(len(block), np.bool_)
    vectors = block.arrays()
    side = SideRows(present, vectors, vectors.mean())
    return to_rows(layout, products, [None] * len(block), {"image": side})


def _scan(stored: MultiVectors, query: MultiVectors) -> NDArray[np.int64]:
    positions: NDArray[np.int64] = topk_rescored(query, stored, K)[1][0].numpy()
    return positions


def _search(engine: LanceEngine, queries: Queries, n: int, method: Any) -> NDArray[np.int64]:
    one = queries.one(n)
    found = engine.recall("image", one, K, None, method, candidates=200)
    keys = found.keys[0]
    if not found.final:
        scores = engine.late_interaction("image", one, found.keys)[0]
        keys = keys[np.argsort(-scores)][:K]
    return engine.cache("image").positions(keys)


def _lancedb_table(path: Path, stored: MultiVectors, build: dict[str, float]) -> Any:
    """Write the same vectors as LanceDB searches them itself: float16, IVF, scalar quantization."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfSq

    database = lancedb.connect(str(path))
    if path.exists() and "lists" in database.list_tables().tables:
        return database.open_table("lists")
    kind = pa.list_(pa.list_(pa.float16(), stored.dim))
    schema = pa.schema([("place", pa.int64()), ("lists", kind)])
    started = time.perf_counter()
    table = database.create_table("lists", schema=schema)

    def batches() -> Iterator[Any]:
        for first in range(0, len(stored), 2048):
            block = stored[first : first + 2048].to(dtype=torch.float16)
            positions = pa.array(range(first, first + len(block)), pa.int64())
            vectors = vectors_column(block.values.numpy(), block.offsets.numpy(), kind)
            yield pa.record_batch([positions, vectors], schema=schema)

    table.add(pa.RecordBatchReader.from_batches(schema, batches()))
    table.create_index("lists", config=IvfSq(distance_type="cosine"))
    table.optimize()
    build["lancedb_lists"] = time.perf_counter() - started
    return table


def _lancedb_methods(table: Any, queries: MultiVectors) -> Iterator[tuple[tuple[int, int], Search]]:
    """Yield LanceDB's search at each of its settings."""
    for probes, refine in LANCEDB_SETTINGS:

        def search(n: int, probes: int = probes, refine: int = refine) -> NDArray[np.int64]:
            found = (
                table.search(queries[n].values.float().numpy(), vector_column_name="lists")
                .distance_type("cosine")
                .nprobes(probes)
                .refine_factor(refine)
                .limit(K)
                .select(["place", "_distance"])
                .to_arrow()
            )
            positions: NDArray[np.int64] = found["place"].to_numpy()
            return positions

        yield (probes, refine), search
