"""An index in LanceDB: files in a folder or on shared storage (``s3://…``); no server.

LanceDB keeps the rows (``lancedb_table.py``). Late interaction over many rows would be slow there,
because its pages must be decoded first. It is computed by this project's kernels on a memory-mapped
copy of the vectors (``vector_cache.py``), which follows the table's versions::

    query ─▶ filter: row ids ─▶ vector cache ─▶ exact scan, or centroid first stage + exact scan
                 (LanceDB)            └──────▶ row ids, scores ─▶ titles, thumbnails … (LanceDB)

``cache_recall.py`` chooses between the exact scan and the centroid first stage.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagformer_cli.index.cache_recall import exact_scores, recall_from_cache
from bagformer_cli.index.engine import Engine, Queries, RecallMethod, RecallResult, storable
from bagformer_cli.index.filters import lance_sql, parse_filter
from bagformer_cli.index.lancedb_conditions import has_side
from bagformer_cli.index.lancedb_folder import user_cache_folder, vector_cache_folder
from bagformer_cli.index.lancedb_source import TableSource
from bagformer_cli.index.lancedb_table import Keys, LanceTable
from bagformer_cli.index.postings import MOST_ROWS
from bagformer_cli.index.ranking import TermHits
from bagformer_cli.index.rows import Layout, Side
from bagformer_cli.index.segment_scan import torch_is_installed
from bagformer_cli.index.vector_cache import VectorCache
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook


class LanceEngine(Engine):
    """An index in LanceDB; see the module.

    Args:
        uri: A folder, or ``s3://bucket/path``.
        table: Its open table.
    """

    def __init__(self, uri: str, table: LanceTable) -> None:
        self.uri, self.table, self.layout = uri, table, table.layout
        self._caches: dict[Side, VectorCache] = {}
        self._places: dict[Side, tuple[int, NDArray[np.int64]]] = {}
        self._pinned = False  # a snapshot, which stays at its version
        self._lock = RLock()

    @classmethod
    def create(
        cls, uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
    ) -> Self:
        """Create an empty index."""
        if layout.codebook:
            layout.require_codebook(codebook)
        return cls(uri, LanceTable.create(uri, layout, codebook))

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open an index."""
        table = LanceTable.open(uri)
        return cls(table.uri, table)

    @property
    def codebook(self) -> Codebook | None:
        """The codebook; None if the index stores no residual codes."""
        return self.table.codebook

    # -------------------------------------------------------------------------------- writing

    def unfinished_sources(self) -> set[str]:
        """Return the sources whose build or add was interrupted, or is under way."""
        return self.table.unfinished_sources()

    def _mark(self, source: str, *, unfinished: bool) -> None:
        self.table.mark(source, unfinished=unfinished)

    def upsert(self, rows: pa.RecordBatch | pa.Table) -> int:
        """Add rows, replacing those of the same id; return how many were replaced."""
        self.require_fitting(rows)
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        return self.table.upsert(table)

    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> int:
        """Delete rows by id, or by a filter."""
        return self.table.remove(storable(ids), self._condition(where))

    def optimize(self, progress: Progress = SILENT) -> None:
        """Compact and index the table, then update the vector cache and its centroids."""
        with progress.task(tr("Compacting and indexing"), None):
            self.table.compact()
        self._follow()
        for side in self.layout.sides:
            self.updated_cache(side, progress).build_centroids(progress)

    # -------------------------------------------------------------------------------- reading

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that rows have."""
        self._follow()
        return self.table.stored(storable(ids))

    def count(self, where: str | None = None) -> int:
        """Count all rows, or those that match a filter."""
        self._follow()
        return self.table.count(self._condition(where))

    def snapshot(self, side: Side, method: RecallMethod = "auto") -> LanceEngine:
        """Return this engine at the newest version of the table; its caches are shared."""
        with self._lock:
            self._follow()
            if method != "vector":
                self.updated_cache(side)
            pinned = copy(self)
        pinned._pinned, pinned._caches = True, dict(self._caches)
        return pinned

    def _follow(self) -> None:
        """Move to the newest version of the table, unless this is a snapshot."""
        if not self._pinned:
            with self._lock:
                self.table = self.table.newest()
                self.layout = self.table.layout

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
        """Find the best rows for each query."""
        self.layout.require_side(side, self.uri)
        seconds: dict[str, float] = {}
        started = time.perf_counter()
        condition = self._condition(where)
        self._follow()
        if method == "vector":
            return self._recall_by_single_vector(side, queries, candidates, condition)
        cache = self.updated_cache(side)
        seconds["open"] = time.perf_counter() - started
        started = time.perf_counter()
        eligible = cache.eligible(None if condition is None else self.table.keys(condition))
        seconds["filter"] = time.perf_counter() - started
        return recall_from_cache(cache, queries, k, eligible, method, seconds)

    def _recall_by_single_vector(
        self, side: Side, queries: Queries, k: int, condition: str | None
    ) -> RecallResult:
        started = time.perf_counter()
        found = [self.table.nearest(side, vector, k, condition) for vector in queries.single]
        keys, scores = [keys for keys, _ in found], [scores for _, scores in found]
        seconds = {"recall": time.perf_counter() - started}
        note = tr("nearest single vectors by LanceDB's index, {n} candidates", n=k)
        return RecallResult(keys, scores, False, "vector", note, seconds)

    def late_interaction(
        self, side: Side, queries: Queries, keys: Sequence[Keys]
    ) -> list[NDArray[np.float32]]:
        """Score each query against its candidates, read from the cache or else from the table."""
        if not torch_is_installed():
            scanned = self.updated_cache(side)
            return [exact_scores(scanned, queries.one(n), own) for n, own in enumerate(keys)]
        import torch

        from bagformer_cli.interaction.rules import rule_scores
        from bagformer_cli.vectors.multi_vectors import MultiVectors

        cache = self.cache(side)
        scores: list[NDArray[np.float32]] = []
        for number, own in enumerate(keys):
            if not len(own):
                scores.append(np.zeros(0, np.float32))
                continue
            positions = cache.positions(own)
            if cache.version == self.table.version and (positions >= 0).all():
                vectors = cache.select(positions)
            else:
                parts = list(TableSource(self.table, side).vectors(own))
                vectors = MultiVectors.concatenate(parts)
            plain = vectors.to(dtype=torch.float32)
            scores.append(rule_scores(queries.tensors[number], plain, queries.rule)[0].numpy())
        return scores

    def vector_counts(self, side: Side, keys: Keys) -> NDArray[np.int64]:
        """Return the number of vectors that each row has of a side."""
        name = f"{side}_count"
        counts = [row[name] for row in self.fetch(keys, [name])]
        return np.maximum(np.array(counts, np.int64), 1)

    def find_terms(
        self, side: Side, queries: Sequence[Mapping[str, float]], k: int, where: str | None
    ) -> list[TermHits]:
        """Find rows by the terms of their titles."""
        self._follow()
        condition = self._condition(where)
        cache = self.cache(side)
        if cache.version == self.table.version and 0 < len(cache.keys) <= MOST_ROWS:
            eligible = cache.eligible(None if condition is None else self.table.keys(condition))
            places = self._places_of(side, cache)
            found = (places >= 0) & eligible[places]  # -1 is any row, and masked
            return [self.table.postings.find(terms, k, found) for terms in queries]
        if cache.version != self.table.version or len(cache.keys) != self.table.count():
            conditions = [has_side(side)] if condition is None else [condition, has_side(side)]
            condition = " AND ".join(f"({one})" for one in conditions)
        return [self.table.find_terms(terms, k, condition) for terms in queries]

    def _places_of(self, side: Side, cache: VectorCache) -> NDArray[np.int64]:
        """Return the position in a cache of each row of the postings, -1 for one without."""
        known = self._places.get(side)
        if known is None or known[0] != cache.version:
            known = (cache.version, cache.positions(self.table.postings.keys))
            self._places[side] = known
        return known[1]

    def term_counts(self) -> dict[str, int]:
        """Return the number of titles that have each term."""
        self._follow()
        return self.table.term_counts()

    def fill_terms(self, make: Callable[[list[str]], list[str | None]]) -> int:
        """Add the terms of titles that have none."""
        filled = self.table.fill_terms(make)
        self._follow()
        return filled

    def fetch(self, keys: Keys, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return columns of rows, in order."""
        if not len(keys):
            return []
        found = self.table.take(keys, columns)
        values = zip(*(found[name].to_pylist() for name in columns), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in values]

    def info(self) -> dict[str, Any]:
        """Return the table's facts and the size of the vector cache."""
        self._follow()
        facts = self.table.facts()
        cached = sum(_size(self.cache(side).folder) for side in self.layout.sides)
        return {"engine": "lancedb", "unfinished": self.incomplete, **facts, "mirror_bytes": cached}

    # --------------------------------------------------------------------------------- inside

    def _condition(self, where: str | None) -> str | None:
        """Translate a filter to LanceDB's SQL; None stays None."""
        return None if where is None else lance_sql(parse_filter(where, self.layout))

    def cache(self, side: Side) -> VectorCache:
        """Return the vector cache of a side, perhaps of an older version of the table."""
        self.layout.require_side(side, self.uri)
        if side not in self._caches:
            folder = vector_cache_folder(self.uri, self.table.name) / side
            self._caches[side] = VectorCache(folder, TableSource(self.table, side))
        return self._caches[side]

    def updated_cache(self, side: Side, progress: Progress | None = None) -> VectorCache:
        """Return the vector cache at the table's version.

        A cache that a search may be reading is never changed: a copy, which shares its memory maps,
        takes its place. Where the index's folder cannot be written, the cache lies in this user's
        cache folder.

        Args:
            side: The side.
            progress: Where to report. None: the engine's own.
        """
        progress = progress or self.progress
        with self._lock:
            cache = copy(self.cache(side))
            cache.source = TableSource(self.table, side)
            cache.scanner.device = self.device
            try:
                cache.update(progress)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                folder = user_cache_folder(self.uri, self.table.name) / side
                cache = VectorCache(folder, TableSource(self.table, side))
                cache.scanner.device = self.device
                cache.update(progress)
            self._caches[side] = cache
            return cache


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
