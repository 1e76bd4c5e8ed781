"""Choose beta, the weight of the fast score in the merged score ``slow + beta x fast``.

Shapes: R rows, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.evaluation.candidates import Candidates
from bagformer_cli.evaluation.metrics import Positives, recall

POWERS = range(-6, 11)
"""Betas that are tried: 0, and these powers of two times the ratio of the scores' spreads."""


@dataclass(frozen=True)
class Reranked:
    """The candidates of one direction with both scores.

    Attributes:
        candidates: The best K of each row by the fast score.
        slow: [R, K] their scores by the cross-encoder.
        positives: The columns that answer each row.
    """

    candidates: Candidates
    slow: NDArray[np.float32]
    positives: Positives

    def per_vector(self, lengths: NDArray[np.int64]) -> Reranked:
        """Divide the fast scores of each row by the number of its vectors, ``lengths`` [R]."""
        scores = (self.candidates.scores / lengths[:, None]).astype(np.float32)
        return replace(self, candidates=Candidates(self.candidates.positions, scores))


def choose_beta(directions: Sequence[Reranked]) -> tuple[float, dict[float, float]]:
    """Choose the beta with the best mean recall over all directions.

    Thinking Fast and Slow, eq. 6. Several betas in a row often have the same recall; the middle of
    the longest such run is chosen, so that a single pair does not decide.

    Args:
        directions: Usually both directions.

    Returns:
        Beta, and the mean recall in [0, 1] of every beta that was tried.
    """
    ratios = [
        _spread(part.slow) / max(_spread(part.candidates.scores), 1e-9) for part in directions
    ]
    scale = float(np.mean(ratios))
    tried = [0.0, *(float(f"{scale * 2.0**power:.4g}") for power in POWERS)]
    means = {
        beta: float(np.mean([_mean_recall(part, beta) for part in directions])) for beta in tried
    }
    top = max(means.values())
    runs: list[list[float]] = [[]]
    for beta in tried:
        if means[beta] == top:
            runs[-1].append(beta)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    return longest[len(longest) // 2], means


def _mean_recall(part: Reranked, beta: float) -> float:
    merged = part.candidates.reordered(part.slow + beta * part.candidates.scores)
    return recall(merged.ranks(part.positives)).mean


def _spread(scores: NDArray[np.floating]) -> float:
    """Compute the standard deviation within a row, over all rows."""
    return float(np.sqrt(np.mean(np.var(scores, axis=1)))) if scores.size else 0.0
