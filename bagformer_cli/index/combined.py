"""Search by a title and an image at once: a weighted sum of both mean scores.

Where both scores are MaxSim of the query, so is their sum: that of one query with the vectors of
both, each multiplied by its share w of the sum and divided by the number of its query's vectors::

    (1 − w) · mean of max(t·v) over 2 vectors t  +  w · mean of max(i·v) over 65 vectors i
    =  sum of max(q·v) over 67 vectors q:  (1 − w)/2 · t1,  (1 − w)/2 · t2,  w/65 · i1  …

So it is searched for like any query, and its results are as exact. Other rules of scores
(``model.pooling``: ``image``, ``both``, ``mean``) add over the product's vectors, too. For them,
both queries have a first stage, and the union of their candidates is scored.

An int8 scan gives the largest and the smallest vector of a query the same steps, so a vector that
is much heavier than others is put in several times, each time as a part of its weight.

Shapes: n products found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.first_stage import CANDIDATES, first_stage
from bagformer_cli.index.results import Hit
from bagformer_cli.index.rows import Side
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.search_profile import SearchProfile
from bagformer_cli.messages import tr
from bagformer_cli.vectors.arrays import Vectors, offsets_of

MOST_UNEVEN = 16
"""Largest ratio of the weights of two vectors of a query; the heavier one is copied in parts."""

WEIGHT = 0.5
"""Share of the image unless the caller says otherwise: both count equally."""


class CombinedScores(NamedTuple):
    """Products found by a title and an image, best first.

    Attributes:
        keys: [n] keys of rows.
        scores: [n] weighted sums, falling.
        text: [n] mean scores of the title.
        image: [n] mean scores of the image.
    """

    keys: NDArray[Any]
    scores: NDArray[np.float32]
    text: NDArray[np.float32]
    image: NDArray[np.float32]

    def with_parts(self, hits: Sequence[Hit], keys: Mapping[str, Any]) -> list[Hit]:
        """Name in each hit its scores under both queries; ``keys``: those of the rows, by id."""
        place = {key: at for at, key in enumerate(self.keys)}
        places = [place[keys[hit.id]] for hit in hits]
        text, image = self.text[places].tolist(), self.image[places].tolist()
        return [
            replace(hit, stage="combined", text_mean=text[n], image_mean=image[n])
            for n, hit in enumerate(hits)
        ]


def find_both(
    engine: Engine,
    title: Queries,
    image: Queries,
    weight: float,
    options: SearchOptions,
    profile: SearchProfile,
) -> CombinedScores:
    """Find the products that fit a title and an image.

    Args:
        engine: The index, at one version.
        title: One title.
        image: One image.
        weight: Share of the image, from 0 to 1.
        options: ``k`` says how many are found.
        profile: Receives the stages and their times.
    """
    one = weighted_query(title, image, weight)
    if one is not None:
        (found,) = first_stage(engine, one, options, profile)
        keys, scores = found.keys, found.fast
    else:
        deep = replace(options, k=max(CANDIDATES, options.k))
        candidates = [first_stage(engine, own, deep, profile)[0].keys for own in (title, image)]
        keys, scores = np.unique(np.concatenate(candidates)), None
    with profile.timed("late"):
        parts = [_mean_scores(engine, options.of, query, keys) for query in (title, image)]
    profile.add("late", "maxsim", tr("{n} products scored for both queries", n=len(keys)))
    if scores is not None:
        return CombinedScores(keys, scores, *parts)
    scores = ((1 - weight) * parts[0] + weight * parts[1]).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return CombinedScores(keys[order], scores[order], parts[0][order], parts[1][order])


def weighted_query(title: Queries, image: Queries, weight: float) -> Queries | None:
    """Make one query of a title and an image, of which MaxSim is the weighted sum of both means.

    Args:
        title: One title.
        image: One image.
        weight: Share of the image, from 0 to 1.

    Returns:
        None if a rule is not MaxSim of the query.
    """
    if not (title.rule.is_maxsim and image.rule.is_maxsim):
        return None
    parts = (title.vectors.values, 1 - weight), (image.vectors.values, weight)
    vectors = np.concatenate([_shared(*parts[0], *parts[1]), _shared(*parts[1], *parts[0])])
    single = np.float32(1 - weight) * title.single + np.float32(weight) * image.single
    return Queries(Vectors(vectors, offsets_of(np.array([len(vectors)]))), single)


def _shared(
    values: NDArray[np.float32], share: float, others: NDArray[np.float32], rest: float
) -> NDArray[np.float32]:
    """Multiply a query's vectors by their share of the sum; copy them if they are too heavy.

    Args:
        values: [n, D] the vectors of one query.
        share: Its share of the sum; 0: it has no vectors.
        others: The vectors of the other query.
        rest: The share of the other query.
    """
    if not share or not len(values):
        return values[:0]
    each, copies = share / len(values), 1
    if rest and len(others) > len(values):
        wanted = ceil(each / (rest / len(others)) / MOST_UNEVEN)
        copies = min(wanted, len(others) // len(values))  # at most as many as the others are
    return np.tile(values * np.float32(each / copies), (copies, 1))


def _mean_scores(
    engine: Engine, side: Side, query: Queries, keys: NDArray[Any]
) -> NDArray[np.float32]:
    (scores,) = engine.late_interaction(side, query, [keys])
    return engine.mean_scores(side, query, keys, scores)


def check_combined(weight: float, *, rerank: int = 0, fusion: str = "none") -> None:
    """Check the options of a search by a title and an image.

    Raises:
        InputError: The weight is not from 0 to 1, or the results would be reranked or fused.
    """
    if not 0 <= weight <= 1:
        raise InputError(
            tr("The weight of the image is from 0 to 1."), where="weight", found=weight
        )
    if rerank or fusion != "none":
        option = "--rerank" if rerank else "--fusion"
        raise InputError(
            tr("A search by a text and an image has no rerank and no fusion with words."),
            found=option,
            hint=tr("Leave out {option}.", option=option),
        )
