"""Learn boundaries from marked titles: a logistic regression over what is seen at a boundary.

In a marked title, the ends of a span are boundaries between bags, and no boundary lies inside one.
Nothing is known about the characters between two spans: boundaries there are not used. The model is
a maximum-entropy classifier of boundaries, as in Chinese word segmentation by character tagging
(Xue 2003; Low, Ng and Guo 2005), whose features also hold the cheapest cover of the title by
dictionaries and patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bio import MarkedTitle
from bagformer_cli.text.boundaries import Boundaries
from bagformer_cli.text.boundary_features import WEIGHTS, cut_feature
from bagformer_cli.text.characters import INVISIBLE, class_table, codes_of, fold_table
from bagformer_cli.text.costs import KIND_COST, NO_CUTS
from bagformer_cli.text.cover_arrays import PackedBags, Titles
from bagformer_cli.text.jit import kernels
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tools.quality import Quality, measure

STRENGTH = 10.0
"""Weight of the data against the squares of the weights (C of a support vector machine)."""

STEPS = 120
"""Steps of L-BFGS at most."""

CAUTION = 0.4
"""Nats added to the odds of every boundary: a bag that crosses one is worse than one cut apart."""

HELD_OUT = 10
"""Quality is measured on every title with this number."""

LEAST_SPANS = 20
"""Marked spans that a model is learned from at least."""


def learn(
    titles: Sequence[MarkedTitle], lexicon: Lexicon, progress: Progress = SILENT
) -> Boundaries:
    """Learn the boundaries of marked titles.

    Args:
        titles: The titles with their marked spans.
        lexicon: The dictionaries with which the boundaries will be used.
        progress: Receives the steps.

    Raises:
        DataError: There are fewer than LEAST_SPANS spans.
    """
    spans = sum(len(title.spans) for title in titles)
    if spans < LEAST_SPANS:
        raise DataError(
            tr("There are too few marked spans to learn from."),
            found=spans,
            expected=tr("{n} or more; several thousand are good", n=LEAST_SPANS),
        )
    features, known = _examples(titles, lexicon)
    with progress.task(
        tr("Learning boundaries"), total=STEPS, amount=tr("{n} steps", n="{n}")
    ) as task:
        weights = _regression(features, known, lambda: task.advance(1))
    for cut in (0, 1):
        weights[cut_feature(cut)] += CAUTION
    return Boundaries(weights.astype(np.float16))


def held_out_quality(
    titles: Sequence[MarkedTitle], lexicon: Lexicon, progress: Progress = SILENT
) -> tuple[Quality, Quality]:
    """Measure bags on every HELD_OUTth title, before and after learning from the others.

    Copies of one title, as shops have them, are counted as one: none is learned from if another is
    held out.

    Raises:
        DataError: There are too few spans.
    """
    numbers: dict[str, int] = {}
    for title in titles:
        numbers.setdefault(title.text, len(numbers))
    tested = [title for title in titles if numbers[title.text] % HELD_OUT == 0]
    others = [title for title in titles if numbers[title.text] % HELD_OUT]
    learned = learn(others, lexicon, progress)
    texts = [title.text for title in tested]
    found = []
    for boundaries in (None, learned):
        segmenter = Segmenter(replace(lexicon, boundaries=boundaries))
        bags = segmenter.unpack(texts, segmenter.segment_batch(texts))
        found.append(measure(tested, bags))
    return found[0], found[1]


def _examples(
    titles: Sequence[MarkedTitle], lexicon: Lexicon
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return [n, FEATURES] the features of the boundaries that are known, and [n] their truth."""
    codes, offsets = codes_of([title.text for title in titles])
    classes = class_table()[codes]
    texts = Titles(fold_table()[codes], classes, offsets)
    kernel = kernels(len(titles), len(codes))
    bags = PackedBags(*kernel.cover(texts, lexicon.arrays, KIND_COST, NO_CUTS))
    known = np.full(len(codes) + 1, -1, np.int8)
    for title, begin in zip(titles, offsets.tolist(), strict=False):
        for start, end, _ in title.spans:
            known[begin + start + 1 : begin + end] = 0
        for start, end, _ in title.spans:
            known[[begin + start, begin + end]] = 1
    known[offsets] = -1  # the beginning and the end of a title are no question
    known[:-1][classes == INVISIBLE] = -1
    decided = np.flatnonzero(known >= 0)
    features: npt.NDArray[np.int32] = kernel.boundary_features(texts, bags)[decided]
    return features, known[decided] == 1


def _regression(
    features: npt.NDArray[np.int32], truth: npt.NDArray[np.bool_], step: Callable[[], None]
) -> npt.NDArray[np.float64]:
    """Fit a logistic regression with an L2 penalty.

    Args:
        features: [n, FEATURES] the weights that are added for each example; -1: none.
        truth: [n] whether a bag ends there.
        step: Called after each step.

    Returns:
        [WEIGHTS]; 0 for those that no example has.
    """
    given = features >= 0
    used, columns = np.unique(features[given], return_inverse=True)
    rows = np.concatenate([[0], np.cumsum(given.sum(1))])
    examples = csr_matrix((np.ones(len(columns)), columns, rows), (len(features), len(used)))
    transposed = examples.T.tocsr()
    sign = np.where(truth, 1.0, -1.0)

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        margin = sign * (examples @ weights)
        slope = transposed @ (sign * expit(-margin))
        total = STRENGTH * np.logaddexp(0, -margin).sum() + 0.5 * weights @ weights
        return float(total), weights - STRENGTH * slope

    found = minimize(
        loss,
        np.zeros(len(used)),
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: step(),
        options={"maxiter": STEPS},
    )
    weights = np.zeros(WEIGHTS)
    weights[used] = found.x
    return weights
