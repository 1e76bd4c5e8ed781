"""The contract of an index engine: store rows and return candidates.

``lancedb.py`` and ``qdrant.py`` implement it; ``tests/index/test_engine_contract.py`` tests both.
Queries, late interaction, reranking and output tables are in ``search.py``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.errors import DiskFullError, InputError, XmrError
from bagformer_cli.index.rows import Layout, Side
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook

Recall = Literal["auto", "exact", "tokens", "vector"]


@dataclass(frozen=True)
class Queries:
    """Encoded queries: [Q] lists of vectors, and [Q, D] one vector each."""

    vectors: MultiVectors
    one: Tensor


@dataclass
class Found:
    """What a recall stage found.

    Attributes:
        keys: Of each query's candidates, best first: what the engine calls its rows.
        scores: Theirs, falling.
        late: Whether the scores are the late interaction's already.
        method: ``exact``, ``tokens``, ``vector`` ...
        note: What was done, and why this way.
        seconds: By step.
    """

    keys: list[NDArray[Any]]
    scores: list[NDArray[np.float32]]
    late: bool
    method: str
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(ABC):
    """Rows of one layout, kept somewhere."""

    uri: str
    layout: Layout

    @classmethod
    @abstractmethod
    def create(
        cls, uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
    ) -> Self:
        """Make an empty index; InputError where there is one already.

        ``codebook`` is what the layout's codes mean, where it has such; the index keeps it.
        """

    @classmethod
    @abstractmethod
    def open(cls, uri: str, **options: Any) -> Self:
        """Open an index; InputError where there is none, or it is something else or damaged."""

    @property
    def codebook(self) -> Codebook | None:
        """What the codes of the index mean; None where it holds no codes."""
        return None

    @contextmanager
    def filling(self) -> Iterator[None]:
        """While products come in: an index that was left in the middle can be told from others."""
        yield

    @property
    def unfinished(self) -> bool:
        """Whether it was left in the middle of being filled, as far as the engine knows."""
        return False

    @abstractmethod
    def upsert(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows; those of an id that is there replace it. Durable when it returns."""

    @abstractmethod
    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> int:
        """Delete rows by id, or those that an expression is true of; how many there were."""

    @abstractmethod
    def count(self, where: str | None = None) -> int:
        """Rows, or those that an expression is true of."""

    @abstractmethod
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
        """The best ``k`` of each query among the rows that have ``side``.

        A first stage that does not do the late interaction itself gives ``candidates`` for it.
        """

    @abstractmethod
    def late(
        self, side: Side, queries: Queries, keys: Sequence[NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """The late interaction of each query with its candidates."""

    @abstractmethod
    def rows(self, keys: NDArray[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of rows, in the order of ``keys``."""

    @abstractmethod
    def optimize(self, progress: Progress = SILENT) -> None:
        """Bring what was added into the form that is searched fastest."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What ``xmr index info`` shows beside the layout."""

    def check(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Refuse rows of another model, dimension or kind of vectors."""
        layout = Layout.of(rows.schema)
        if layout is None:
            raise InputError(tr("These rows do not say what made them."), where=self.uri)
        self.layout.require_same(layout, self.uri)

    def close(self) -> None:  # noqa: B027 - most engines have nothing to close
        """Let go of files and connections."""


def damaged(uri: str, error: Exception) -> XmrError:
    """The error for what an engine cannot read."""
    said = str(error).split("\n")[0][:300]
    if "No space left" in said:
        return DiskFullError(tr("The disk is full."), where=uri, found=said)
    if re.search(r"commit conflict|preempted", said, re.I):
        return InputError(
            tr("Another process is writing to this index."),
            where=uri,
            found=said,
            hint=tr("Run the command again when it is done."),
        )
    return InputError(
        tr("The index cannot be read: it is damaged, or not reachable."),
        where=uri,
        found=said,
        hint=tr("Build it anew, or go back to a copy of it."),
    )
