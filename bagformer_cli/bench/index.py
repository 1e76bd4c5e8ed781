"""Search through the index, beside the exact scan: recall, time, and what building it takes.

Shapes: Q queries, N items × L vectors, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bagformer_cli.bench.exact_search import clustered, queries_for, query_lengths
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.index.encode import mean_vectors
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.lancedb import LanceEngine
from bagformer_cli.index.rows import Layout, SideRows, to_batch
from bagformer_cli.index.vector_cache import Mirror
from bagformer_cli.interaction.topk import topk_rescored
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

K = 10
QUERIES = 100
TURN = 10  # queries of a way before the next has its turn: what one finds in the caches is its own
WORDS, KINDS, WORDS_OF_A_KIND = 4096, 1000, 96
SPREAD = 0.5  # length of a vector's own part, beside its word's of 1
SETTINGS = ((16, 10), (32, 20), (64, 50), (128, 200), (256, 500), (512, 1000))
"""LanceDB's nprobes and refine_factor, each tried until one has the recall that ours has."""
FEWER = (10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
"""Lists that ours scores, until it has the recall that LanceDB's best setting has."""
Products = Literal["parts", "kinds"]


@dataclass(frozen=True, slots=True)
class Row:
    """One way of searching.

    Attributes:
        name: What was run.
        recall: Share of the exact ten best that it found, mean over the queries.
        p50: Median wall time of a query, ms.
        p95: 95th percentile, ms.
        faster: The exact scan's median by this one's.
    """

    name: str
    recall: float
    p50: float
    p95: float
    faster: float


@dataclass(frozen=True, slots=True)
class Beside:
    """LanceDB's own search over lists and ours, at one recall or ours above it.

    Attributes:
        theirs: What LanceDB ran.
        ours: What we ran.
        their_recall: Recall@10.
        our_recall: Recall@10, not lower.
        their_p50: Median wall time, ms.
        our_p50: Median wall time, ms.
        faster: Theirs by ours.
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
    """Everything of one run; seconds of building are wall time.

    ``beside`` has LanceDB's own search next to ours at equal recall, where it was asked for.
    """

    items: int
    length: int
    dim: int
    queries: int
    build: dict[str, float]
    rows: list[Row]
    beside: list[Beside]


def run(
    folder: Path,
    *,
    items: int = 50_000,
    length: int = 32,
    dim: int = 256,
    queries: int = QUERIES,
    products: Products = "parts",
    lancedb_lists: bool = False,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Report:
    """Build an index of clustered products and time searches, warm, in turns.

    Args:
        folder: Where the index lies; one that is there is used.
        items: N.
        length: L.
        dim: D.
        queries: Q.
        products: ``parts``: see :func:`composed`. ``kinds``: the harder set of the exact search's
            bench, where products of a kind differ by noise alone, so that a first stage can tell
            the kind and nothing more.
        lancedb_lists: Also LanceDB's own search over lists, in a second table (float16; its index
            takes minutes to build), at ever more of nprobes and refine until it finds what ours
            finds; and ours, lowered to what its best setting finds.
        seed: Of everything random.
        progress: Where to report.
    """
    place = folder / f"index-{products}-{items}x{length}x{dim}-{seed}"
    build: dict[str, float] = {}
    make = composed if products == "parts" else clustered
    engine = _index(place, make(items, length, dim, seed, progress), dim, build, progress)
    mirror = engine._mirror("image")
    mirror.refresh()
    mirror.index_tokens(progress, least=0)  # of few products as well
    stored = mirror.segments[0].vectors
    asked = queries_for(stored, query_lengths(queries), seed + 1)
    whole = Queries(asked, mean_vectors(asked))
    exact = [_scan(stored, asked[n]) for n in range(queries)]
    ways: dict[str, Callable[[int], NDArray[Any]]] = {
        tr("exact scan alone"): lambda n: _scan(stored, asked[n]),
        tr("index, exact"): lambda n: _search(engine, whole, n, "exact"),
        tr("index, tokens"): lambda n: _search(engine, whole, n, "tokens"),
        tr("index, one vector, 200 candidates"): lambda n: _search(engine, whole, n, "vector"),
    }
    theirs: list[str] = []
    if lancedb_lists:
        table = _lists_table(
            folder / f"lists-{products}-{items}x{length}x{dim}-{seed}", stored, build
        )
        own = _recall(ways[tr("index, tokens")], exact)
        highest = 0.0
        with progress.task(tr("Looking for settings"), total=len(SETTINGS)) as task:
            for probes, refine in SETTINGS:
                name = tr("LanceDB's lists, nprobes {n}, refine {k}", n=probes, k=refine)
                ways[name] = _lists_search(table, asked, probes, refine)
                theirs.append(name)
                highest = max(highest, _recall(ways[name], exact))
                task.advance()
                if highest >= own:
                    break
        for count in FEWER:
            fewer = _few(mirror, asked, count)
            if _recall(fewer, exact) >= highest or count == FEWER[-1]:
                ways[tr("index, tokens, {n} lists scored", n=count)] = fewer
                break
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    hits: dict[str, list[float]] = {name: [] for name in ways}
    with progress.task(tr("Timing"), total=queries) as task:
        for way in ways.values():
            for n in range(min(5, queries)):  # warms caches, compiles
                way(n)
        for first in range(0, queries, TURN):
            turn = range(first, min(first + TURN, queries))
            for name, way in ways.items():
                for n in turn:
                    start = time.perf_counter()
                    found = way(n)
                    seconds[name].append(1000 * (time.perf_counter() - start))
                    hits[name].append(len(np.intersect1d(found, exact[n])) / K)
            task.advance(len(turn))
    base = float(np.median(seconds[tr("exact scan alone")]))
    rows = [
        Row(
            name,
            float(np.mean(hits[name])),
            float(np.median(times)),
            float(np.percentile(times, 95)),
            base / float(np.median(times)),
        )
        for name, times in seconds.items()
    ]
    return Report(items, length, dim, queries, build, rows, _beside(rows, theirs))


def _beside(rows: list[Row], theirs: list[str]) -> list[Beside]:
    """For each of LanceDB's settings the quickest of ours that finds no less."""
    found = []
    for row in rows:
        ours = [own for own in rows if own.name not in theirs and own.recall >= row.recall]
        if row.name in theirs and ours:
            best = min(ours, key=lambda own: own.p50)
            found.append(
                Beside(
                    row.name, best.name, row.recall, best.recall, row.p50, best.p50,
                    row.p50 / best.p50,
                )
            )  # fmt: skip
    return found


def _recall(way: Callable[[int], NDArray[Any]], exact: list[NDArray[np.int64]]) -> float:
    """The mean share of the ten best that a way finds."""
    return float(np.mean([len(np.intersect1d(way(n), best)) / K for n, best in enumerate(exact)]))


def _few(mirror: Mirror, asked: MultiVectors, count: int) -> Callable[[int], NDArray[np.int64]]:
    """The first stage with so many candidates and no more."""

    def search(n: int) -> NDArray[np.int64]:
        assert mirror.tokens is not None
        query = asked[n]
        values, alive = query.values, mirror.alive
        chosen = mirror.tokens.candidates(values, count, alive, 0.0, 0.0)
        places: NDArray[np.int64] = mirror.scan(query, K, chosen)[1][0]
        return places

    return search


def composed(
    items: int, length: int, dim: int, seed: int = 0, progress: Progress = SILENT
) -> Iterator[MultiVectors]:
    """Products as their pictures have them: of a kind, each with some of the parts of its kind.

    There are 4,096 visual words; a kind has 96 of them (a sleeve, a buckle, white ground), a
    product 32 of those, each vector its word plus noise. Kinds are of very different size (the
    largest a hundred times the median). int8, a block at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    words = F.normalize(torch.randn(WORDS, dim, generator=generator), dim=-1)
    noise = F.normalize(torch.randn(1 << 16, dim, generator=generator), dim=-1) * SPREAD
    kinds = torch.stack(
        [torch.randperm(WORDS, generator=generator)[:WORDS_OF_A_KIND] for _ in range(KINDS)]
    )
    weights = 1 / torch.arange(1, KINDS + 1).float()
    with progress.task(tr("Writing"), total=items) as task:
        for first in range(0, items, 2048):
            n = min(2048, items - first)
            kind = torch.multinomial(weights, n, replacement=True, generator=generator)
            order = torch.rand(n, WORDS_OF_A_KIND, generator=generator).argsort(1)
            chosen = words[torch.gather(kinds[kind], 1, order[:, :length])]
            own = torch.randint(len(noise), (n, length), generator=generator)
            yield MultiVectors.from_dense(F.normalize(chosen + noise[own], dim=-1)).quantize()
            task.advance(n)


def _index(
    place: Path,
    blocks: Iterator[MultiVectors],
    dim: int,
    build: dict[str, float],
    progress: Progress,
) -> LanceEngine:
    if place.exists():
        return LanceEngine.open(str(place))
    layout = Layout("bench", dim, sides=("image",))
    started = time.perf_counter()
    engine = LanceEngine.create(str(place), layout)
    first = 0
    for block in blocks:
        engine.upsert(_rows(layout, block, first))
        first += len(block)
    build["rows"] = time.perf_counter() - started
    started = time.perf_counter()
    engine.optimize(progress)
    build["optimize"] = time.perf_counter() - started
    return engine


def _rows(layout: Layout, block: MultiVectors, first: int) -> Any:
    products = [Product("bench", str(first + n)) for n in range(len(block))]
    there = np.ones(len(block), np.bool_)
    side = SideRows(there, block, mean_vectors(block))
    return to_batch(layout, products, [None] * len(block), {"image": side})


def _scan(stored: MultiVectors, query: MultiVectors) -> NDArray[np.int64]:
    places: NDArray[np.int64] = topk_rescored(query, stored, K)[1][0].numpy()
    return places


def _search(engine: LanceEngine, queries: Queries, n: int, method: Any) -> NDArray[np.int64]:
    one = Queries(queries.vectors[n], queries.one[n : n + 1])
    found = engine.recall("image", one, K, None, method, candidates=200)
    keys = found.keys[0]
    if not found.late:
        scores = engine.late("image", one, found.keys)[0]
        keys = keys[np.argsort(-scores)][:K]
    return engine._mirror("image").positions(keys)


def _lists_table(place: Path, stored: MultiVectors, build: dict[str, float]) -> Any:
    """The same lists as LanceDB searches them by itself: float16, IVF with scalar quantization."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfSq

    database = lancedb.connect(str(place))
    if place.exists() and "lists" in database.list_tables().tables:
        return database.open_table("lists")
    kind = pa.list_(pa.list_(pa.float16(), stored.dim))
    schema = pa.schema([("place", pa.int64()), ("lists", kind)])
    started = time.perf_counter()
    table = database.create_table("lists", schema=schema)

    def batches() -> Iterator[Any]:
        from bagformer_cli.index.rows import column_lists

        for first in range(0, len(stored), 2048):
            block = stored[first : first + 2048].to(dtype=torch.float16)
            places = pa.array(range(first, first + len(block)), pa.int64())
            lists = column_lists(block.values.numpy(), block.offsets.numpy(), kind)
            yield pa.record_batch([places, lists], schema=schema)

    table.add(pa.RecordBatchReader.from_batches(schema, batches()))
    table.create_index("lists", config=IvfSq(distance_type="cosine"))
    table.optimize()
    build["lancedb_lists"] = time.perf_counter() - started
    return table


def _lists_search(
    table: Any, asked: MultiVectors, probes: int, refine: int
) -> Callable[[int], NDArray[np.int64]]:
    def search(n: int) -> NDArray[np.int64]:
        query = asked[n].values.float().numpy()
        found = (
            table.search(query, vector_column_name="lists")
            .distance_type("cosine")
            .nprobes(probes)
            .refine_factor(refine)
            .limit(K)
            .select(["place", "_distance"])
            .to_arrow()
        )
        places: NDArray[np.int64] = found["place"].to_numpy()
        return places

    return search
