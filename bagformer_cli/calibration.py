"""Probabilities of mean scores: the curves of a model folder, stored as readable JSON.

``xmr eval --calibrate`` fits a rising curve from mean scores to probabilities and writes it into
the model folder as ``calibration.json``. Reading it takes numpy only::

    {
      "version": 1,
      "model": "0b5ff4a1c7d2e398",           fingerprint of the model that made the scores
      "precision": "fp32",                   numbers of its graphs: fp32, or those of an export
      "dataset": "demo", "split": "valid",
      "pooling": "each", "means": false,     how the scores were made
      "curves": {
        "text_to_image": {"method": "platt", "slope": 21.3, "intercept": -17.9, "first": 10, …},
        "image_to_text": {"method": "isotonic", "scores": […], "probabilities": […], …}
      }
    }

A probability is about one population: pairs that a search put among its ``first`` results. It does
not hold for other pairs, such as random ones (docs/scores.md).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bagformer_cli.config.scoring import EACH, Scoring
from bagformer_cli.errors import CheckpointError
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular
from bagformer_cli.progress import SILENT, Progress

CALIBRATION = "calibration.json"
VERSION = 1
DIRECTIONS = ("text_to_image", "image_to_text")
_EXACT = ("fp32", "fp16")
"""Precisions whose scores agree to 0.001, far below the width of a curve's step."""
_MOST_BYTES = 1 << 22

Method = Literal["platt", "isotonic"]


@dataclass(frozen=True)
class Curve:
    """A rising function from mean scores to probabilities.

    Attributes:
        method: ``platt``: 1 / (1 + exp(−slope × score − intercept)). ``isotonic``: straight lines
            between knots, constant outside them.
        slope: Slope of a ``platt`` curve, at least 0.
        intercept: Intercept of a ``platt`` curve.
        scores: Knots of an ``isotonic`` curve, rising.
        probabilities: Probabilities at the knots, not falling.
        first: Results of a search that the probability is about.
        counts: Size of the fit: ``queries``, ``items`` of the pool, ``pairs``, ``matching``.
        held_out: Log loss, Brier score and ECE on pairs of queries that were left out of the fit.
    """

    method: Method
    slope: float = 0.0
    intercept: float = 0.0
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    first: int = 10
    counts: Mapping[str, int] = field(default_factory=dict)
    held_out: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [self.slope, self.intercept, *self.scores, *self.probabilities]
        if not all(map(math.isfinite, numbers)) or self.slope < 0:
            raise ValueError("a curve has finite numbers and does not fall")
        if self.method == "platt":
            return
        if self.method != "isotonic" or not self.scores:
            raise ValueError(f"unknown or empty curve {self.method!r}")
        steps = np.diff(self.scores), np.diff(self.probabilities)
        if len(self.scores) != len(self.probabilities) or steps[0].min(initial=1) <= 0:
            raise ValueError("knots must rise")
        if steps[1].min(initial=0) < 0 or not 0 <= min(self.probabilities) <= 1:
            raise ValueError("probabilities must not fall")
        if self.probabilities[-1] > 1:
            raise ValueError("probabilities are at most 1")

    def probability(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of mean scores, in the scores' shape.

        >>> Curve("isotonic", scores=(0.2, 0.4), probabilities=(0.1, 0.5)).probability([0.3, 0.9])
        array([0.3, 0.5])
        """
        values = np.asarray(scores, np.float64)
        if self.method == "isotonic":
            levels = np.asarray(self.probabilities)
            knots = np.searchsorted(self.scores, values).clip(max=len(levels) - 1)
            # Just below a knot, the interpolation may exceed the knot's own level by rounding.
            found = np.interp(values, self.scores, levels)
            return np.asarray(np.minimum(found, levels[knots]))
        # exp of a large number overflows to infinity, which is the right limit: probability 0.
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-self.slope * values - self.intercept)))


@dataclass(frozen=True)
class Calibration:
    """The curves of one model.

    Attributes:
        model: Fingerprint of the model.
        curves: ``text_to_image`` and, if the dataset has enough pairs, ``image_to_text``; each is
            about searches from the first to the second.
        dataset: The dataset that they were fitted on.
        split: Its split.
        precision: Precision of the model.
        scoring: How the model scores. Files of earlier versions do not say it; their curves are of
            plain MaxSim, whatever the model's pooling.
    """

    model: str
    curves: Mapping[str, Curve]
    dataset: str = ""
    split: str = "valid"
    precision: str = "fp32"
    scoring: Scoring = EACH

    def save(self, folder: Path) -> None:
        """Write ``calibration.json`` into a model folder; the file appears whole."""
        curves = {
            name: {key: value for key, value in asdict(curve).items() if value != ()}
            for name, curve in self.curves.items()
        }
        content = {
            "version": VERSION,
            "model": self.model,
            "precision": self.precision,
            "dataset": self.dataset,
            "split": self.split,
            "pooling": self.scoring.pooling,
            "means": self.scoring.means,
            "curves": curves,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_text(folder / CALIBRATION, text + "\n")

    def refusal(self, model: str, precision: str = "fp32", scoring: Scoring = EACH) -> str | None:
        """Say why the scores of a model have no probability by this calibration; None: they have.

        Args:
            model: Fingerprint of the model that makes the scores.
            precision: Its precision.
            scoring: How it scores.
        """
        if model != self.model:
            return tr("the calibration is of other weights, dictionary or settings")
        if precision != self.precision and not {precision, self.precision} <= set(_EXACT):
            return tr(
                "the calibration is of precision {own}, these scores of {precision}",
                own=self.precision,
                precision=precision,
            )
        if scoring != self.scoring:
            return tr("the calibration is of scores that were pooled in another way")
        return None


def read_calibration(folder: str | Path) -> Calibration | None:
    """Read the calibration of a model folder; return None if it has none.

    Raises:
        CheckpointError: The file is damaged, or another version wrote it.
    """
    path = Path(folder) / CALIBRATION
    if not path.exists():
        return None
    hint = tr("Fit it again with `xmr eval --calibrate`, or delete the file.")
    try:
        values: Any = json.loads(read_regular(path, _MOST_BYTES))
        if values["version"] != VERSION:
            raise CheckpointError(
                tr("Another version of xmr wrote this calibration."),
                where=path,
                found=tr("format {version}", version=values["version"]),
                expected=tr("format {version}", version=VERSION),
                hint=hint,
            )
        curves = {name: _curve(values["curves"][name]) for name in values["curves"]}
        if not curves or not set(curves) <= set(DIRECTIONS):
            raise ValueError(f"curves {list(curves)}")
        texts = [values[name] for name in ("model", "dataset", "split", "precision")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a value of another type")
        model, dataset, split, precision = texts
        scoring = Scoring(values.get("pooling", "each"), values.get("means", False))
        return Calibration(model, curves, dataset, split, precision, scoring)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            tr("The file is damaged or incomplete."), where=path, hint=hint
        ) from error


def usable_calibration(
    folder: str | Path,
    model: Callable[[], str],
    scoring: Scoring,
    precision: str = "fp32",
    progress: Progress = SILENT,
) -> Calibration | None:
    """Read the calibration of a model folder if it is of the model that makes the scores.

    Args:
        folder: The model folder.
        model: Returns the fingerprint of the model. Called only if there is a calibration, because
            it hashes all weights.
        scoring: How the model scores.
        precision: Precision of the model.
        progress: Receives the warning that a calibration is stale.

    Raises:
        CheckpointError: The file is damaged, or another version wrote it.
    """
    known = read_calibration(folder)
    reason = None if known is None else known.refusal(model(), precision, scoring)
    if reason is None:
        return known
    progress.warn(
        tr(
            "{path}: scores get no probability: {reason}. Fit it again with "
            "`xmr eval --calibrate`.",
            path=Path(folder) / CALIBRATION,
            reason=reason,
        )
    )
    return None


def copy_calibration(source: str | Path, target: Path) -> None:
    """Write the calibration of a model folder, if it has one, into a folder of the same model."""
    known = read_calibration(source)
    if known is not None:
        known.save(target)


def _curve(values: dict[str, Any]) -> Curve:
    """Make a curve of its JSON object; raise TypeError or ValueError if it is none."""
    settings = dict(values)
    for name in ("scores", "probabilities"):
        if name in settings:
            settings[name] = tuple(map(float, settings[name]))
    return Curve(**settings)
