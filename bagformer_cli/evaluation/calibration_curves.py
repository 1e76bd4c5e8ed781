"""Two curves from mean scores to probabilities.

- **Platt**: a logistic function of the score; two coefficients, so few pairs are enough. The
  targets are smoothed as in Platt (1999), which keeps the slope finite when a score separates all.
- **isotonic**: the rising step function with the least squared error; it takes any shape and needs
  more pairs.

Shapes: n pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.calibration import Curve, Method

CurveFit = Callable[[NDArray[np.float64], NDArray[np.bool_]], Curve]


def platt(scores: NDArray[np.float64], matches: NDArray[np.bool_]) -> Curve:
    """Fit a logistic function that does not fall.

    Args:
        scores: [n].
        matches: [n].
    """
    from scipy.optimize import minimize

    n = len(matches)
    positive = int(matches.sum())
    # Platt's targets: a pair of n is never certain, so separable scores get a finite slope.
    target = np.where(matches, (positive + 1) / (positive + 2), 1 / (n - positive + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    x = (scores - centre) / spread  # about 1 in size, so that the solver's steps are too

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * x + parameters[1]
        # log(1 + e^z) − target × z is the cross entropy, without overflow
        error = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - target
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array(
            [np.mean(error * x), np.mean(error)]
        )

    rate = target.mean()
    start = np.array([1.0, np.log(rate / (1 - rate))])
    # With the default tolerance it stops some thousandths before the optimum.
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )  # fmt: skip
    slope = float(found.x[0]) / spread
    return Curve("platt", slope, float(found.x[1]) - slope * centre)


def isotonic(scores: NDArray[np.float64], matches: NDArray[np.bool_]) -> Curve:
    """Fit a function that does not fall by the pool-adjacent-violators algorithm.

    Probabilities stay 1 / (n + 2) away from 0 and 1: n pairs cannot show that none ever matches.

    Args:
        scores: [n].
        matches: [n].
    """
    from scipy.optimize import isotonic_regression

    unique, inverse = np.unique(scores, return_inverse=True)
    weights = np.bincount(inverse)
    shares = np.bincount(inverse, weights=matches) / weights
    levels = isotonic_regression(shares, weights=weights).x
    margin = 1 / (len(scores) + 2)
    levels = np.clip(levels, margin, 1 - margin)
    # Both ends of a run of equal levels are knots; points inside it would add nothing to the line.
    changes = np.flatnonzero(np.diff(levels) != 0)
    kept = np.unique(np.concatenate([[0], changes, changes + 1, [len(levels) - 1]]))
    return Curve(
        "isotonic",
        scores=tuple(unique[kept].tolist()),
        probabilities=tuple(levels[kept].tolist()),
    )


METHODS: dict[Method, CurveFit] = {"platt": platt, "isotonic": isotonic}
