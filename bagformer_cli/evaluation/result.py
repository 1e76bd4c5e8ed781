"""The outcome of an evaluation: figures of each stage, ranks, and the best images.

Shapes: Q queries, N images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.evaluation.calibration import Pairs
from bagformer_cli.evaluation.compare import Difference
from bagformer_cli.evaluation.metrics import Positives, Recall
from bagformer_cli.evaluation.order_metrics import OrderMetrics


def name_of(stage: str, direction: str) -> str:
    """Return the name of a stage's ranks in :attr:`Evaluation.ranks`."""
    return direction if stage == "recall" else f"{stage}/{direction}"


class Direction(NamedTuple):
    """The fast scores of one direction.

    Attributes:
        scores: [rows, columns], Q × N from text to image, N × Q from image to text.
        positives: The columns that answer each row.
    """

    scores: NDArray[np.float32]
    positives: Positives


@dataclass
class Evaluation:
    """The figures of one evaluation.

    Attributes:
        n_queries: Queries of the split or subset.
        n_items: Images of the pool.
        stages: Stage (``recall``, ``rerank``, ``merged``) to direction (``text_to_image``,
            ``image_to_text``) to recall. With several K, ``rerank@50`` and so on.
        seconds: Time of each part.
        best: [Q, ≤ 10] positions of each query's best images after the last stage, best first; of
            its best products if there are groups.
        recalled: The same in the order of the recall stage.
        beta: Weight of the fast score in the merged score; None: nothing was merged.
        reranked: Number of images of each query that ``best`` has in the merged order; the others
            follow in the order of the recall stage. 0: all are in the order of the recall stage.
        ranks: Rank of each query's best answer: by direction for the recall stage, by
            ``merged/text_to_image`` and so on for the others.
        gains: Stage (``rerank``, ``merged``) to direction to its mean recall minus that of the
            recall stage.
        orders: nDCG, MRR and MAP, by the same names as ``ranks``.
        directions: Fast scores and answers of both directions, if the options keep them.
        pairs: Retrieved pairs of both directions, if the options keep them.
        title_vectors: [Q] number of vectors of each query.
    """

    n_queries: int
    n_items: int
    stages: dict[str, dict[str, Recall]]
    seconds: dict[str, float]
    best: NDArray[np.int64] = field(repr=False)
    recalled: NDArray[np.int64] = field(repr=False)
    beta: float | None = None
    reranked: int = 0
    ranks: dict[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    gains: dict[str, dict[str, Difference]] = field(default_factory=dict, repr=False)
    orders: dict[str, OrderMetrics] = field(default_factory=dict, repr=False)
    directions: dict[str, Direction] = field(default_factory=dict, repr=False)
    pairs: dict[str, Pairs] = field(default_factory=dict, repr=False)
    title_vectors: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, np.int64), repr=False
    )

    @property
    def mean_recall(self) -> float:
        """Mean recall of the recall stage, text to image, in [0, 1]; NaN without any answer."""
        return self.stages["recall"]["text_to_image"].mean

    def to_json(self) -> dict[str, Any]:
        """Return the figures that ``xmr eval --json`` prints, recalls in percent."""
        return {
            "n_queries": self.n_queries,
            "n_items": self.n_items,
            "stages": {
                stage: {
                    direction: figures.percent() | self.orders[name_of(stage, direction)].percent()
                    for direction, figures in both.items()
                }
                for stage, both in self.stages.items()
            },
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            **({} if self.beta is None else {"beta": self.beta}),
            **({"gains": self._gains()} if self.gains else {}),
        }

    def _gains(self) -> dict[str, dict[str, dict[str, float]]]:
        return {
            stage: {direction: asdict(gain) for direction, gain in both.items()}
            for stage, both in self.gains.items()
        }
