"""The contract of an index engine: store rows, return candidates.

``lancedb.py`` and ``qdrant.py`` implement it; ``tests/index/test_engine_contract.py`` tests both
against it. Query encoding, the order of the stages and the results are in ``search.py``.

An engine identifies its rows by *keys*: 64-bit row ids in LanceDB, UUIDs in Qdrant. Callers only
pass keys back to the engine they came from.

Shapes: Q queries, D dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.errors import InputError
from bagformer_cli.index.ranking import TermHits
from bagformer_cli.index.rows import FEATURES, Layout, Side
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.arrays import Vectors

if TYPE_CHECKING:
    import torch

    from bagformer_cli.vectors.multi_vectors import MultiVectors
    from bagformer_cli.vectors.residual_codes import Codebook

RecallMethod = Literal["auto", "exact", "tokens", "vector"]
"""The first stage of a search.

``exact``: late interaction with every row. ``tokens``: the centroid first stage (``centroids.py``),
then late interaction with its candidates. ``vector``: the nearest single vectors, then late
interaction with these candidates. ``auto``: the engine chooses by size.
"""


@dataclass(frozen=True)
class Queries:
    """Encoded queries.

    Args:
        vectors: The multi-vector embeddings of Q queries, float32.
        single: [Q, D] one vector per query.
        rule: How their late interaction with an item becomes a score. It travels with the queries,
            so that an index is searched right by a process that has not loaded the model.
    """

    vectors: Vectors
    single: NDArray[np.float32]
    rule: ScoreRule = MAXSIM

    def one(self, number: int) -> Queries:
        """Return one of the queries."""
        single = self.single[number : number + 1]
        return Queries(self.vectors.one(number), single, self.rule)

    @cached_property
    def tensors(self) -> MultiVectors:
        """The vectors as torch's kernels take them; nothing is copied."""
        from bagformer_cli.vectors.multi_vectors import MultiVectors

        return MultiVectors.from_arrays(self.vectors)


@dataclass
class RecallResult:
    """The rows that a first stage returns.

    Attributes:
        keys: For each query the keys of its rows, best first.
        scores: For each query the scores of these rows, falling.
        final: Whether these are late-interaction scores. False: scores of single vectors; the
            caller scores the candidates with :meth:`Engine.late_interaction`.
        method: Which method was used: ``exact``, ``tokens`` or ``vector``.
        note: How many rows were scored, and how; for ``--profile``.
        seconds: Wall time by step.
    """

    keys: list[NDArray[Any]]
    scores: list[NDArray[np.float32]]
    final: bool
    method: str
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(ABC):
    """Rows of one layout in a database.

    ``progress`` receives what a reader has to do first: copy vectors to a cache, or make a damaged
    one again. ``device``, if it is set, is a GPU that computes the late interaction; an engine that
    computes it elsewhere ignores it.
    """

    uri: str
    layout: Layout
    progress: Progress = SILENT
    device: torch.device | None = None

    @classmethod
    @abstractmethod
    def create(
        cls, uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
    ) -> Self:
        """Create an empty index.

        Args:
            uri: Where.
            layout: The layout of its rows.
            codebook: Decodes the residual codes of the layout, if it has any; stored in the index.
            **options: Settings of the engine.

        Raises:
            InputError: The place already holds something.
        """

    @classmethod
    @abstractmethod
    def open(cls, uri: str) -> Self:
        """Open an index.

        Raises:
            InputError: There is no index, or it is damaged.
        """

    @property
    def codebook(self) -> Codebook | None:
        """The codebook of the index; None if it stores no residual codes."""
        return None

    @contextmanager
    def filling(self, source: str) -> Iterator[None]:
        """Mark the index as incomplete until the block ends without an error.

        Args:
            source: The catalogue that is added. The index stays incomplete until the same source is
                added again without an interruption, whatever else is added meanwhile.
        """
        self._mark(source, unfinished=True)
        yield
        self._mark(source, unfinished=False)

    @abstractmethod
    def unfinished_sources(self) -> set[str]:
        """Return the sources whose build or add was interrupted, or is under way."""

    @abstractmethod
    def _mark(self, source: str, *, unfinished: bool) -> None:
        """Store that a source is being added, or that it is complete."""

    @property
    def incomplete(self) -> bool:
        """True if a build or add was interrupted and not repeated."""
        return bool(self.unfinished_sources())

    def snapshot(self, side: Side, method: RecallMethod = "auto") -> Engine:
        """Return this engine at the newest version, which later writes do not change.

        A search takes all its steps on one snapshot, so that it sees one version of the products
        while others write. Threads may share an engine if each search has a snapshot. Qdrant has no
        versions; there the engine itself is returned.

        Args:
            side: The side that will be searched.
            method: The first stage that will be used.
        """
        return self

    @abstractmethod
    def upsert(self, rows: pa.RecordBatch | pa.Table) -> int:
        """Add rows; a row with an existing id replaces the old one; return how many did."""

    @abstractmethod
    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> int:
        """Delete rows by id, or by a filter; return how many were deleted."""

    @abstractmethod
    def stored(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that products of the index have."""

    @abstractmethod
    def count(self, where: str | None = None) -> int:
        """Count all rows, or those that match a filter."""

    @abstractmethod
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
        """Find the best ``k`` rows for each query.

        Args:
            side: Compare queries with this side of the rows. Rows without it are not found.
            queries: Q encoded queries.
            k: Rows per query.
            where: A filter; None: all rows.
            method: The first stage.
            candidates: Rows per query that a first stage by single vectors returns.
        """

    @abstractmethod
    def late_interaction(
        self, side: Side, queries: Queries, keys: Sequence[NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """Score each query against its own candidates by late interaction, as its rule says."""

    def mean_scores(
        self, side: Side, query: Queries, keys: NDArray[Any], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Turn late-interaction scores of one query into mean cosines, from −1 to 1: [n].

        Args:
            side: The side that was searched.
            query: One query.
            keys: [n] keys of rows.
            scores: [n] their scores by the query's rule.
        """
        count = max(1, int(query.vectors.lengths[0]))
        others = self.vector_counts(side, keys) if query.rule.needs_item_counts else None
        return np.asarray(query.rule.mean_scores(scores, count, others), np.float32)

    @abstractmethod
    def vector_counts(self, side: Side, keys: NDArray[Any]) -> NDArray[np.int64]:
        """Return the number of vectors that each row has of a side, at least 1."""

    @abstractmethod
    def find_terms(
        self, side: Side, queries: Sequence[Mapping[str, float]], k: int, where: str | None
    ) -> list[TermHits]:
        """Find the rows of which the titles have terms of a query, by BM25.

        Args:
            side: Rows without this side are not found.
            queries: For each query its terms and their weights, at least one.
            k: Rows per query.
            where: A filter; None: all rows.
        """

    @abstractmethod
    def term_counts(self) -> dict[str, int]:
        """Return the number of titles that have each term; a large index is read in part."""

    @abstractmethod
    def fill_terms(self, make: Callable[[list[str]], list[str | None]]) -> int:
        """Add the terms of titles that have none, as in an index of an earlier version.

        Args:
            make: Makes the terms of titles.

        Returns:
            The number of these titles.
        """

    def require_terms(self) -> None:
        """Check that the index can be searched by terms.

        Raises:
            InputError: It has no terms.
        """
        if not self.layout.terms:
            if self.layout.model == FEATURES:
                hint = tr("An index of --features never has terms: no model cuts its titles.")
            else:
                hint = tr("An earlier version built it: `xmr index add CATALOGUE INDEX` adds them.")
            raise InputError(
                tr("This index holds no terms of titles, so it cannot be searched by words."),
                where=self.uri,
                hint=hint,
            )

    @abstractmethod
    def fetch(self, keys: NDArray[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return columns of rows, in the order of ``keys``.

        A row that was removed since it was found has None in all columns. That happens only in an
        engine without snapshots.
        """

    @abstractmethod
    def optimize(self, progress: Progress = SILENT) -> None:
        """Prepare newly added rows for fast search."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return the facts that ``xmr index info`` shows, without the layout."""

    def require_fitting(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Check that rows fit the layout of the index.

        Raises:
            InputError: Another model made them, or their vectors have another form.
        """
        layout = Layout.from_schema(rows.schema)
        if layout is None:
            raise InputError(tr("These rows do not name the model that made them."), where=self.uri)
        self.layout.require_same(layout, self.uri)

    def close(self) -> None:  # noqa: B027 - most engines have nothing to close
        """Close files and connections."""


def storable(ids: Sequence[str]) -> list[str]:
    """Return the ids that a product can have: bytes of an argument that are not UTF-8 are none."""
    return [name for name in ids if name == name.encode("utf-8", "ignore").decode()]
