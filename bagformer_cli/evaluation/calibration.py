"""Fit what a score means on the results of a split: ``xmr eval --calibrate``.

The pairs are what a search returns: the first results of each query that has an answer, each with
its mean score and whether it is an answer. ``calibration_curves.py`` fits two rising curves.

The one with the lower log loss on held-out queries is kept::

    queries   1 2 3 4 5 6 7 8 9 …           five folds; pairs of one query stay together
    fold      2 0 4 1 3 …
    fit on folds ≠ f, predict fold f        → held-out probability of every pair
    log loss, Brier score, ECE              → choice, and the figures that are reported
    fit on all pairs                        → the stored curve

Shapes: Q queries, N items, K results, n pairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.calibration import CALIBRATION, DIRECTIONS, Calibration, Curve
from bagformer_cli.config.scoring import EACH, ScoreRule, Scoring
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.calibration_curves import METHODS, CurveFit
from bagformer_cli.evaluation.candidates import top_k
from bagformer_cli.evaluation.encoded_split import EncodedSplit
from bagformer_cli.evaluation.metrics import Positives
from bagformer_cli.evaluation.sources import Scores
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.runtime.folder import EXPORTED, is_exported, read_manifest

FIRST = 10
"""Results of a query whose pairs are fitted."""
LEAST = 10
"""Pairs of each kind, matching and not, below which nothing is fitted."""
FEW = 100
"""Pairs of each kind below which a warning says that probabilities are rough."""
FOLDS = 5
BINS = 10
"""Bins of equal width, 0.1, in which ECE compares predictions with shares."""


class Pairs(NamedTuple):
    """Retrieved pairs of one direction.

    Attributes:
        scores: [n] mean scores.
        matches: [n] bool, whether the result is an answer.
        queries: [n] number of the query of each pair.
        first: K, results per query.
        n_items: N, the pool.
    """

    scores: NDArray[np.float64]
    matches: NDArray[np.bool_]
    queries: NDArray[np.int64]
    first: int
    n_items: int


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs whose held-out probability lies in one bin.

    Attributes:
        low: Lower edge of the bin.
        high: Upper edge.
        pairs: Number of pairs.
        predicted: Their mean probability.
        matching: The share of them that match.
    """

    low: float
    high: float
    pairs: int
    predicted: float
    matching: float


@dataclass(frozen=True)
class Fit:
    """A fitted curve and how well curves of its kind predict queries that were left out.

    Attributes:
        curve: The curve, fitted on all pairs.
        log_losses: Held-out log loss by method; ``base_rate`` always predicts the share of
            matching pairs.
        bins: Held-out reliability of the chosen method; bins without pairs are left out.
    """

    curve: Curve
    log_losses: dict[str, float]
    bins: list[ReliabilityBin]

    def to_json(self) -> dict[str, Any]:
        """Return what ``xmr eval --json`` prints."""
        return {
            "method": self.curve.method,
            "first": self.curve.first,
            **self.curve.counts,
            **self.curve.held_out,
            "log_losses": self.log_losses,
            "bins": [asdict(one) for one in self.bins],
        }


def retrieved_pairs(
    encoded: EncodedSplit, positives: Positives, scores: Scores, scoring: Scoring = EACH
) -> dict[str, Pairs]:
    """Take the first results of every query with answers, in both directions.

    Args:
        encoded: Both sides of a split.
        positives: The images that answer each title.
        scores: The fast scores of all pairs, t2i and i2t, as an index scores them.
        scoring: How the model makes them.

    Returns:
        ``text_to_image`` and ``image_to_text``.
    """
    texts, images = (side.vectors.lengths.cpu().numpy() for side in (encoded.texts, encoded.images))
    forward, backward = scoring.rule(False, True), scoring.rule(True, False)
    return {
        "text_to_image": _pairs_of(scores[0], forward, (texts, images), positives),
        "image_to_text": _pairs_of(scores[1], backward, (images, texts), positives.transposed()),
    }


def _pairs_of(
    scores: NDArray[np.float32],
    rule: ScoreRule,
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    positives: Positives,
) -> Pairs:
    """Take the first results of one direction; ``counts``: vectors of each query and item."""
    first = top_k(scores, FIRST)
    answered = np.flatnonzero(np.diff(positives.offsets) > 0)
    keys = np.arange(len(scores), dtype=np.int64)[:, None] * positives.n_columns + first.positions
    wanted = positives.rows * positives.n_columns + positives.columns
    matches = np.isin(keys, wanted)[answered]
    queries, items = (np.maximum(own, 1) for own in counts)
    means = rule.mean_scores(first.scores, queries[:, None], items[first.positions])[answered]
    return Pairs(
        means.reshape(-1).astype(np.float64),
        matches.reshape(-1),
        np.repeat(answered, first.positions.shape[1]),
        FIRST,
        positives.n_columns,
    )


def calibrate_folder(
    checkpoint: Path,
    model: RetrievalModel,
    pairs: dict[str, Pairs],
    dataset: str,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fit the curves of a model and write them into its folder, and into its export in there.

    Args:
        checkpoint: The model folder.
        model: Its model.
        pairs: Retrieved pairs of the validation split.
        dataset: The dataset's name.
        progress: Receives warnings about few pairs.

    Returns:
        The path of the file, and :meth:`Fit.to_json` by direction.

    Raises:
        InputError: As :func:`calibrate`.
    """
    known = Calibration(fingerprint(model), {}, dataset, scoring=Scoring.of(model.config))
    calibration, fits = calibrate(pairs, known, progress)
    calibration.save(checkpoint)
    exported = checkpoint / EXPORTED
    if is_exported(exported) and read_manifest(exported).model == calibration.model:
        calibration.save(exported)
    curves = {name: one.to_json() for name, one in fits.items()}
    return {"path": str(checkpoint / CALIBRATION), **curves}


def calibrate(
    pairs: dict[str, Pairs], known: Calibration, progress: Progress = SILENT
) -> tuple[Calibration, dict[str, Fit]]:
    """Fit the curves of both directions.

    Args:
        pairs: From :func:`retrieved_pairs`.
        known: Model, dataset and split; its curves are replaced.
        progress: Receives warnings about few pairs.

    Raises:
        InputError: From text to image there are too few matching or too few other pairs. From image
            to text this is a warning, and the direction gets no curve.
    """
    fits: dict[str, Fit] = {}
    for direction in DIRECTIONS:
        own = pairs[direction]
        counts = _counts(own)
        if min(counts) < LEAST:
            found = tr("{n} matching pairs, {other} others", n=counts[0], other=counts[1])
            if direction == "text_to_image":
                raise InputError(
                    tr("The split has too few pairs to fit what a score means."),
                    where=f"{known.dataset} {known.split}",
                    found=found,
                    expected=tr(
                        "at least {n} of each among the first {k} results of its queries",
                        n=LEAST,
                        k=FIRST,
                    ),
                    hint=tr("Calibrate on a larger validation split, or train the model first."),
                )
            progress.warn(
                tr(
                    "From image to text nothing is fitted: {found}; {n} of each are needed.",
                    found=found,
                    n=LEAST,
                )
            )
            continue
        if min(counts) < FEW and direction == "text_to_image":
            progress.warn(
                tr(
                    "Few pairs: {n} matching, {other} others. The probabilities are rough.",
                    n=counts[0],
                    other=counts[1],
                )
            )
        fits[direction] = fit(own)
    curves = {name: one.curve for name, one in fits.items()}
    return replace(known, curves=curves), fits


def _counts(pairs: Pairs) -> tuple[int, int]:
    matching = int(pairs.matches.sum())
    return matching, len(pairs.matches) - matching


def fit(pairs: Pairs) -> Fit:
    """Fit the curve whose method has the lower log loss on held-out queries.

    Args:
        pairs: Pairs of one direction, both matching and others.
    """
    numbers, query = np.unique(pairs.queries, return_inverse=True)
    folds = np.random.default_rng(0).permutation(len(numbers))[query] % FOLDS
    held_out = {name: _held_out(method, pairs, folds) for name, method in METHODS.items()}
    losses: dict[str, float] = {
        name: _log_loss(found, pairs.matches) for name, found in held_out.items()
    }
    best = min(held_out, key=lambda name: losses[name])
    probabilities = held_out[best]
    bins = reliability(probabilities, pairs.matches)
    n = len(pairs.matches)
    curve = replace(
        METHODS[best](pairs.scores, pairs.matches),
        first=pairs.first,
        counts={
            "queries": len(numbers),
            "items": pairs.n_items,
            "pairs": n,
            "matching": _counts(pairs)[0],
        },
        held_out={
            "log_loss": losses[best],
            "brier": float(np.mean((probabilities - pairs.matches) ** 2)),
            "ece": sum(one.pairs * abs(one.predicted - one.matching) for one in bins) / n,
        },
    )
    base = np.full(n, pairs.matches.mean())
    return Fit(curve, {**losses, "base_rate": _log_loss(base, pairs.matches)}, bins)


def _held_out(
    method: CurveFit,
    pairs: Pairs,
    folds: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Predict the pairs of each fold by a curve that was fitted on the other folds."""
    found = np.zeros(len(pairs.scores))
    for number in np.unique(folds):
        out = folds == number
        # A single query makes a single fold, and nothing is left to fit on but itself.
        own = ~out if not out.all() else out
        found[out] = method(pairs.scores[own], pairs.matches[own]).probability(pairs.scores[out])
    return found


def _log_loss(probabilities: NDArray[np.float64], matches: NDArray[np.bool_]) -> float:
    right = np.where(matches, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def reliability(
    probabilities: NDArray[np.float64], matches: NDArray[np.bool_]
) -> list[ReliabilityBin]:
    """Compare predicted probabilities with the share of pairs that match, in bins of 0.1."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return [
        ReliabilityBin(
            number / BINS,
            (number + 1) / BINS,
            int(own.sum()),
            float(probabilities[own].mean()),
            float(matches[own].mean()),
        )
        for number in range(BINS)
        if (own := bins == number).any()
    ]
