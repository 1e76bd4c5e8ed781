"""Bounds of the benchmark's sets: rankers that know all, or only a part, of what was drawn.

Shapes: Q queries, N images, S slots for things of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bagformer_cli.demo.difficulty import histogram_scores, mean_recall
from bagformer_cli.demo.plan import Pictures, PlannedQuery, thing_of

DEVIATION = 0.4
"""Standard deviation over queries of the difference between two models' hits, about."""


def set_figures(
    queries: Sequence[PlannedQuery], pictures: Pictures, shares: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Measure three rankers on a set, and say which difference it can show.

    Args:
        queries: The queries of the set, at least one.
        pictures: The pool.
        shares: [N, 12] share of each image's pixels that is nearest to each colour.

    Returns:
        Mean recall in percent of

        - ``oracle``: knows which thing has which attribute;
        - ``unbound``: knows the kinds and attributes in an image, not which belong together. Its
          distance from the oracle is what the set tests of binding;
        - ``colours``: knows the shares of colours alone;

        and ``power``: the difference in points of mean recall between two models that four of five
        comparisons on these queries find (one training each, 5 % error).
    """
    wanted = [query.positions.tolist() for query in queries]
    named = [[thing_of(item) for item in query.named] for query in queries]
    both = [_points(query, pictures) for query in queries]
    figures = {
        "oracle": mean_recall(np.array([bound for bound, _ in both]), wanted),
        "unbound": mean_recall(np.array([unbound for _, unbound in both]), wanted),
        "colours": mean_recall(histogram_scores(named, shares), wanted),
        "power": 100 * 2.8 * DEVIATION / math.sqrt(len(queries)),
    }
    return {name: round(value, 1) for name, value in figures.items()}


def _points(
    query: PlannedQuery, pictures: Pictures
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Count what is as said in each image: by the best thing of each kind, and by any things."""
    things = pictures.things
    bound, unbound = np.zeros(len(things)), np.zeros(len(things))
    for kind, *said in query.named:
        same = things[:, :, 0] == kind
        fits = np.ones(same.shape)
        unbound += same.any(1)
        for column, value in enumerate(said, start=1):
            if value >= 0:
                has = things[:, :, column] == value
                fits += has
                unbound += has.any(1)
        bound += (same * fits).max(1)
    return bound, unbound
