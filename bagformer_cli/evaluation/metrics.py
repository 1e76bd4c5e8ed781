"""Ranks and recall from score matrices, in plain numpy.

Rows are queries, columns are the pool: titles × images from text to image, images × titles from
image to text. A higher score is better. Equal scores are ordered by position, the lower one first,
so that a figure does not depend on the sorting algorithm.

:func:`best_ranks` counts the columns that beat each row's best answer: an exact rank without a
sort (``candidates.py`` sorts the best columns). A row with three columns, of which column 2 is the
answer::

    scores   0.9  0.1  0.8      best_ranks: 1 (one column is better)
    recall@1 = 0, recall@5 = 1

Shapes: R rows, C columns, M positives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.errors import XmrError
from bagformer_cli.messages import tr

Integers = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]
Missing = Literal["leave_out", "miss"]

KS = (1, 5, 10)
NO_POSITIVE = -1
"""Rank of a row without answers."""
NOT_FOUND = int(np.iinfo(np.int64).max)
"""Rank of a row whose answers are not among its candidates."""

BLOCK = 1 << 22  # scores per step; limits working memory, does not change results


@dataclass(frozen=True, slots=True)
class Positives:
    """The answers of each row: row r has ``columns[offsets[r]:offsets[r + 1]]``.

    Args:
        offsets: [R + 1], non-decreasing from 0 to M.
        columns: [M] positions, each in ``range(n_columns)``.
        n_columns: C, the size of the pool.

    Raises:
        ValueError: The offsets do not fit, or a position is outside the pool.

    >>> Positives.from_lists([[2], [3, 1]], 4).columns.tolist()
    [2, 3, 1]
    """

    offsets: Integers
    columns: Integers
    n_columns: int

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.int64)
        columns = np.asarray(self.columns, dtype=np.int64)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "columns", columns)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(columns):
            raise ValueError("offsets must run from 0 to the number of columns named")
        if np.any(np.diff(offsets) < 0):
            raise ValueError("offsets must not decrease")
        if len(columns) and not 0 <= columns.min() <= columns.max() < self.n_columns:
            raise ValueError(f"positions must lie in range({self.n_columns})")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], n_columns: int) -> Positives:
        """Pack one list of columns per row."""
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        flat = [column for row in lists for column in row]
        return cls(offsets, np.array(flat, dtype=np.int64), n_columns)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> Integers:
        """The row of each entry of ``columns``, [M]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def transposed(self) -> Positives:
        """Swap the sides: return the rows that answer each column."""
        return Positives._from_pairs(self.columns, self.rows, self.n_columns, len(self))

    def grouped(self, groups: Integers) -> Positives:
        """Replace each column by its group, see :func:`group_numbers`."""
        columns = np.asarray(groups, dtype=np.int64)[self.columns]
        return Positives._from_pairs(self.rows, columns, len(self), _n_groups(groups))

    @classmethod
    def _from_pairs(
        cls, rows: Integers, columns: Integers, n_rows: int, n_columns: int
    ) -> Positives:
        pairs = np.unique(np.stack([rows, columns], axis=1), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=n_rows)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return cls(offsets.astype(np.int64), pairs[:, 1], n_columns)


# ----------------------------------------------------------------------------------------- ranks


def best_ranks(scores: Scores | Iterable[Scores], positives: Positives) -> Integers:
    """Compute the rank of each row's best answer from complete rows.

    Args:
        scores: [R, C], or an iterable of its chunks [r, C] in order; chunks are not kept.
        positives: The answers of each row.

    Returns:
        [R] ranks from 0: the number of columns before the first answer; :data:`NO_POSITIVE` for a
        row without answers.

    Raises:
        ValueError: Rows or columns do not fit ``positives``.
        XmrError: A score is NaN.

    >>> best_ranks(np.array([[0.9, 0.1, 0.8]]), Positives.from_lists([[2]], 3)).tolist()
    [1]
    """
    chunks = [scores] if isinstance(scores, np.ndarray) else scores
    ranks = np.full(len(positives), NO_POSITIVE, dtype=np.int64)
    start = 0
    for chunk in chunks:
        chunk = np.asarray(chunk)
        if chunk.ndim != 2 or chunk.shape[1] != positives.n_columns:
            raise ValueError(
                f"a chunk of shape {chunk.shape}, {positives.n_columns} columns wanted"
            )
        if start + len(chunk) > len(positives):
            raise ValueError(f"more rows of scores than the {len(positives)} of the positives")
        step = max(1, BLOCK // max(1, chunk.shape[1]))
        for first in range(0, len(chunk), step):
            rows = chunk[first : first + step]
            begin = start + first
            ranks[begin : begin + len(rows)] = _ranks_of(rows, positives, begin)
        start += len(chunk)
    if start != len(positives):
        raise ValueError(f"{start} rows of scores, {len(positives)} wanted")
    return ranks


def _ranks_of(rows: Scores, positives: Positives, begin: int) -> Integers:
    require_numbers(rows)
    offsets = positives.offsets[begin : begin + len(rows) + 1]
    columns = positives.columns[offsets[0] : offsets[-1]]
    owner = np.repeat(np.arange(len(rows)), np.diff(offsets))
    best_first = np.lexsort((columns, -rows[owner, columns], owner))
    some, where = np.unique(owner[best_first], return_index=True)
    column = columns[best_first][where]
    rows = rows if len(some) == len(rows) else rows[some]
    best = rows[np.arange(len(rows)), column][:, None]
    before = np.arange(rows.shape[1])[None, :] < column[:, None]
    ranks = np.full(len(offsets) - 1, NO_POSITIVE, dtype=np.int64)
    ranks[some] = np.count_nonzero((rows > best) | ((rows == best) & before), axis=1)
    return ranks


# ---------------------------------------------------------------------------------------- groups


def group_numbers(labels: Sequence[int] | Sequence[str] | NDArray[Any]) -> Integers:
    """Number the groups (products) of labelled positions by their first appearance, from 0."""
    _, first, inverse = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    result: Integers = number[inverse.reshape(-1)]
    return result


def group_scores(scores: Scores, groups: Integers, axis: int = 1) -> Scores:
    """Reduce the columns (or rows) of each group to one: the best score of its members.

    Args:
        scores: [R, C].
        groups: [C] (``axis=1``) or [R] (``axis=0``) group numbers, see :func:`group_numbers`.
        axis: The axis of the members.
    """
    scores = np.asarray(scores)
    if len(groups) != scores.shape[axis]:
        raise ValueError(f"{len(groups)} groups for {scores.shape[axis]} positions")
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(np.asarray(groups)[order], np.arange(_n_groups(groups)))
    best: Scores = np.maximum.reduceat(np.take(scores, order, axis=axis), starts, axis=axis)
    return best


def _n_groups(groups: Integers) -> int:
    return int(np.max(groups)) + 1 if len(groups) else 0


# ---------------------------------------------------------------------------------------- recall


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall at each k.

    Args:
        hits: k to the number of rows that have an answer among their first k.
        n: Number of rows counted.
    """

    hits: Mapping[int, int]
    n: int

    @property
    def at(self) -> dict[int, float]:
        """Recall@k by k, in [0, 1]; NaN if no row was counted."""
        return {k: hits / self.n if self.n else math.nan for k, hits in self.hits.items()}

    @property
    def mean(self) -> float:
        """Mean of recall@k over all k, in [0, 1]; MUGE's leaderboard takes k = 1, 5, 10."""
        return sum(self.at.values()) / len(self.hits)

    def percent(self) -> dict[str, float | None]:
        """Return ``{"recall@1": …, "mean_recall": …}`` in percent; None if no row was counted."""
        if not self.n:
            return dict.fromkeys([*(f"recall@{k}" for k in self.hits), "mean_recall"])
        figures = {f"recall@{k}": 100.0 * hits / self.n for k, hits in self.hits.items()}
        return {**figures, "mean_recall": sum(figures.values()) / len(figures)}


def recall(ranks: Integers, ks: Sequence[int] = KS, missing: Missing = "leave_out") -> Recall:
    """Compute recall@k from ranks.

    Args:
        ranks: [R] ranks from :func:`best_ranks` or :meth:`Candidates.ranks`.
        ks: The cut-offs k.
        missing: ``leave_out`` rows without answers, or count each as a ``miss``, as the original
            BagFormer code counts images without a query.

    >>> recall(np.array([0, 7, NO_POSITIVE])).at
    {1: 0.5, 5: 0.5, 10: 1.0}
    """
    ranks = np.asarray(ranks)
    some = ranks != NO_POSITIVE
    n = int(np.count_nonzero(some)) if missing == "leave_out" else len(ranks)
    return Recall({k: int(np.count_nonzero(some & (ranks < k))) for k in ks}, n)


def require_numbers(scores: Scores) -> None:
    """Refuse scores of a broken model.

    Raises:
        XmrError: A score is NaN.
    """
    if np.isnan(scores).any():
        raise XmrError(
            tr("A score is not a number (NaN): the model's weights or its input are broken."),
            hint=tr("Try an earlier checkpoint, or training.precision=fp32."),
        )
