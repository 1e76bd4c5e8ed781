"""Search by a title and an image at once: a weighted sum of both scores.

Both queries have a first stage; the union of their candidates is scored exactly under both::

                     text → products          image → products
    candidates       a 0.61  b 0.58           c 0.90  a 0.85        best of each query
    union            a  b  c                  a  b  c
    late             0.61  0.58  0.40         0.85  0.70  0.90      exact, means from −1 to 1
    weight 0.5       a 0.73  c 0.65  b 0.64           (1 − weight) × text + weight × image

Shapes: n candidates of the union.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.results import Hit
from bagformer_cli.index.rows import Side
from bagformer_cli.messages import tr

WEIGHT = 0.5
"""Share of the image unless the caller says otherwise: both count equally."""


class CombinedScores(NamedTuple):
    """Candidates of a title and an image, best first.

    Attributes:
        keys: [n] keys of rows.
        scores: [n] weighted sums.
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


def combine(
    engine: Engine,
    side: Side,
    queries: tuple[Queries, Queries],
    candidates: Sequence[NDArray[Any]],
    weight: float,
) -> CombinedScores:
    """Score the union of two queries' candidates under both queries.

    Args:
        engine: The index, at one version.
        side: The side of the rows that is compared.
        queries: The title and the image, one each.
        candidates: Keys of the candidates of each.
        weight: Share of the image, from 0 to 1.
    """
    keys = np.unique(np.concatenate(list(candidates)))
    text, image = (_mean_scores(engine, side, query, keys) for query in queries)
    scores = ((1 - weight) * text + weight * image).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return CombinedScores(keys[order], scores[order], text[order], image[order])


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
