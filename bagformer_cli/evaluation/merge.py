"""How much the fast score counts beside the slow one: ``slow + beta x fast``.

Shapes: R rows, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.evaluation.metrics import Candidates, Positives, recall

POWERS = range(-6, 11)
"""Betas that are tried: powers of two times what makes both scores vary alike, and 0."""


@dataclass(frozen=True)
class Ranked:
    """One direction's candidates with both scores.

    Attributes:
        candidates: The best by the fast score.
        slow: [R, K] their slow scores.
        wanted: What each row looks for.
    """

    candidates: Candidates
    slow: NDArray[np.float32]
    wanted: Positives


def choose_beta(directions: Sequence[Ranked]) -> tuple[float, dict[float, float]]:
    """The beta with the best mean recall, over all directions (Thinking Fast and Slow, eq. 6).

    Of equal ones the middle of the longest run, so that the choice is no accident of one pair.

    Returns:
        Beta, and the mean recall in [0, 1] of every beta that was tried.
    """
    scale = float(
        np.mean([_spread(part.slow) / max(_spread(part.candidates.scores), 1e-9)
                 for part in directions])
    )  # fmt: skip
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


def _mean_recall(part: Ranked, beta: float) -> float:
    merged = part.candidates.reordered(part.slow + beta * part.candidates.scores)
    return recall(merged.ranks(part.wanted)).mean


def _spread(scores: NDArray[np.floating]) -> float:
    """The scores' standard deviation within a row, over all rows."""
    return float(np.sqrt(np.mean(np.var(scores, axis=1)))) if scores.size else 0.0
