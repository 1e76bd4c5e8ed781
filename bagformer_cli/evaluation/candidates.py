"""The best columns of each row of a score matrix, in plain numpy.

:class:`TopK` keeps the best K columns of each row while blocks of columns arrive; the cross-encoder
reranks these candidates. Equal scores are ordered by position, the lower one first, so that a
figure does not depend on the sorting algorithm. A row of three columns, K = 2::

    scores   0.9  0.1  0.8      positions  0    2       scores  0.9  0.8

Shapes: R rows, C columns, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bagformer_cli.evaluation.metrics import (
    BLOCK,
    NO_POSITIVE,
    NOT_FOUND,
    Integers,
    Positives,
    Scores,
    require_numbers,
)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best columns of each row, best first.

    Args:
        positions: [R, K] column positions, distinct within a row.
        scores: [R, K] their scores, descending; equal ones with ascending positions.
    """

    positions: Integers
    scores: Scores

    def __len__(self) -> int:
        return len(self.positions)

    def reordered(self, scores: Scores) -> Candidates:
        """Sort the same columns by other scores [R, K], given in the present order."""
        scores = np.asarray(scores)
        if scores.shape != self.positions.shape:
            raise ValueError(f"scores of shape {scores.shape}, {self.positions.shape} wanted")
        require_numbers(scores)
        order = np.lexsort((self.positions, -scores), axis=1)
        return Candidates(
            np.take_along_axis(self.positions, order, axis=1),
            np.take_along_axis(scores, order, axis=1),
        )

    def ranks(self, positives: Positives) -> Integers:
        """Compute the rank of each row's first answer, [R]; :data:`NOT_FOUND` if none is here."""
        if len(positives) != len(self):
            raise ValueError(f"{len(self)} rows of candidates, {len(positives)} of positives")
        ranks = np.where(np.diff(positives.offsets) > 0, NOT_FOUND, NO_POSITIVE)
        wanted = np.sort(positives.rows * positives.n_columns + positives.columns)
        if len(wanted) and self.positions.size:
            rows = np.arange(len(self), dtype=np.int64)[:, None]
            keys = rows * positives.n_columns + self.positions
            at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            found = wanted[at] == keys
            ranks = np.where(found.any(axis=1), found.argmax(axis=1), ranks)
        return ranks.astype(np.int64)


def top_k(scores: Scores, k: int) -> Candidates:
    """Find the best ``min(k, C)`` columns of each row of [R, C] scores.

    The lower position of equal scores comes first.

    >>> top_k(np.array([[0.5, 0.9, 0.5]]), 2).positions.tolist()
    [[1, 0]]
    """
    top = TopK(len(scores), k)
    top.add(scores, 0)
    return top.candidates()


class TopK:
    """The best K columns of each row, from blocks of columns that arrive in any order.

    Args:
        n_rows: R.
        k: K, columns kept per row.
    """

    def __init__(self, n_rows: int, k: int) -> None:
        self._k = k
        self._positions = np.empty((n_rows, 0), dtype=np.int64)  # ascending along a row
        self._scores: Scores = np.empty((n_rows, 0), dtype=np.float32)

    def add(self, scores: Scores, first_column: int) -> None:
        """Add the scores [R, c] of c columns from ``first_column`` on."""
        scores = np.asarray(scores)
        n_rows = len(self._positions)
        if scores.ndim != 2 or len(scores) != n_rows:
            raise ValueError(f"a block of shape {scores.shape}, {n_rows} rows wanted")
        columns = np.arange(first_column, first_column + scores.shape[1], dtype=np.int64)
        kept = [
            self._merged(slice(i, i + step), scores[i : i + step], columns)
            for step in [max(1, BLOCK // max(1, scores.shape[1] + self._positions.shape[1]))]
            for i in range(0, n_rows, step)
        ]
        if kept:
            self._positions = np.concatenate([positions for positions, _ in kept])
            self._scores = np.concatenate([scores for _, scores in kept])

    def _merged(self, rows: slice, block: Scores, columns: Integers) -> tuple[Integers, Scores]:
        """Keep the best k of some rows' columns and a block's, in order of position."""
        require_numbers(block)
        new = np.broadcast_to(columns, block.shape)
        positions = np.concatenate([self._positions[rows], new], axis=1)
        scores = np.concatenate([self._scores[rows], block], axis=1)
        if self._positions.size and columns.size and self._positions.max() > columns[0]:
            order = np.argsort(positions, axis=1)
            positions = np.take_along_axis(positions, order, axis=1)
            scores = np.take_along_axis(scores, order, axis=1)
        return _kept(positions, scores, self._k)

    def candidates(self) -> Candidates:
        """Return the best columns so far, best first: [R, min(K, columns added)]."""
        return _sorted(self._positions, self._scores)


def _kept(positions: Integers, scores: Scores, k: int) -> tuple[Integers, Scores]:
    """Keep the best k of each row in the order of ``positions``, which ascend along a row."""
    if not 0 < k < scores.shape[1]:
        return positions[:, : max(k, 0)], scores[:, : max(k, 0)]
    chosen = _chosen(scores, k)
    return (
        np.take_along_axis(positions, chosen, axis=1),
        np.take_along_axis(scores, chosen, axis=1),
    )


def _sorted(positions: Integers, scores: Scores) -> Candidates:
    order = np.argsort(-scores, axis=1, kind="stable")
    return Candidates(
        np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
    )


def _chosen(scores: Scores, k: int) -> Integers:
    """Find the positions of the k best scores, ascending, [R, k]; of equal ones the lowest."""
    n_rows, n_columns = scores.shape
    edge = np.partition(scores, n_columns - k, axis=1)[:, n_columns - k, None]
    better = scores > edge
    equal = scores == edge
    room = k - np.count_nonzero(better, axis=1)
    crowded = np.count_nonzero(equal, axis=1) > room
    if crowded.any():
        equal[crowded] &= np.cumsum(equal[crowded], axis=1) <= room[crowded, None]
    return np.nonzero(better | equal)[1].reshape(n_rows, k)


def merge_stages(
    recall: Candidates, slow: Scores, beta: float = 1.0
) -> dict[Literal["recall", "rerank", "merged"], Candidates]:
    """Sort the same candidates in three orders.

    Args:
        recall: The best K by the fast score.
        slow: [R, K] scores of these candidates by the cross-encoder, in the same order.
        beta: Weight of the fast score: merged score = slow + beta x fast.

    Returns:
        ``recall`` unchanged, ``rerank`` by the cross-encoder alone, ``merged`` by the weighted sum.
    """
    slow = np.asarray(slow)
    return {
        "recall": recall,
        "rerank": recall.reordered(slow),
        "merged": recall.reordered(slow + beta * recall.scores),
    }
