"""The score of a title and an image, from the dot products of their vectors: decided here only.

``model.pooling`` says which sums a model was trained with, and so which ones rank::

    pooling    a title ranks images by         an image ranks titles by
    each       Σ title's vectors               Σ image's vectors
    text       Σ title's vectors               Σ title's vectors
    image      Σ image's vectors               Σ image's vectors
    both       both sums, added                both sums, added
    mean       mean of all dot products        mean of all dot products

``Σ title's vectors`` adds, over the title's vectors, the largest dot product of each with the
image's vectors. With ``objectives.late_scale: mean`` a sum of the lower four rows is divided by its
number of vectors. In ``each`` it is not: the query's number of vectors changes no order.

Evaluation, search, ``xmr score`` and mining take the rule of their direction from
:meth:`Scoring.rule`. Ordinary MaxSim adds over the query's vectors, so with ``text`` a search for
titles by an image has the roles of query and item swapped.

Shapes: Q queries, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from bagformer_cli.config.rules import RunConfig
from bagformer_cli.config.schema import Pooling


class ScoreRule(NamedTuple):
    """The way from the dot products of a query and an item to their score.

    With neither sum, the score is the mean of all dot products.

    Attributes:
        over_query: Add, over the query's vectors, the largest dot product with the item's.
        over_item: Add, over the item's vectors, the largest dot product with the query's.
        means: Divide each sum by its number of vectors.
    """

    over_query: bool = True
    over_item: bool = False
    means: bool = False

    @property
    def is_maxsim(self) -> bool:
        """True if the score is ordinary MaxSim of the query, except for a factor of the query."""
        return self.over_query and not self.over_item

    @property
    def is_mean(self) -> bool:
        """True if the score is the mean of all dot products."""
        return not (self.over_query or self.over_item)

    @property
    def needs_item_counts(self) -> bool:
        """True if :meth:`mean_scores` reads the items' numbers of vectors."""
        return self.over_item and not self.means

    def combine(self, by_query: Any, by_item: Any, query_counts: Any, item_counts: Any) -> Any:
        """Make scores of sums; not for :attr:`is_mean`. All are tensors, or all are arrays.

        Args:
            by_query: [Q, N] sums over the queries' vectors; unused without ``over_query``.
            by_item: [Q, N] sums over the items' vectors; unused without ``over_item``.
            query_counts: Numbers of vectors, at least 1, that broadcast to [Q, N].
            item_counts: The same of the items.
        """
        if self.means:
            by_query = by_query / query_counts if self.over_query else None
            by_item = by_item / item_counts if self.over_item else None
        if not self.over_item:
            return by_query
        return by_item if not self.over_query else by_query + by_item

    def mean_scores(self, scores: Any, query_counts: Any, item_counts: Any) -> Any:
        """Turn scores into mean cosines, from −1 to 1, which compare between queries.

        Args:
            scores: Tensor or array of scores.
            query_counts: The queries' numbers of vectors, at least 1, that broadcast to ``scores``.
            item_counts: The items'; unused unless :attr:`needs_item_counts`.
        """
        if self.is_mean:
            return scores
        if self.means:
            return scores / (self.over_query + self.over_item)
        if not self.over_item:
            return scores / query_counts
        return scores / (query_counts + item_counts if self.over_query else item_counts)


MAXSIM = ScoreRule()
"""Ordinary MaxSim: the sum over the query's vectors."""


@dataclass(frozen=True)
class Scoring:
    """The score of a title and an image by one model; see the module.

    Attributes:
        pooling: ``model.pooling``.
        means: Divide each sum by its number of vectors.
    """

    pooling: Pooling = "each"
    means: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> Scoring:
        """Return how a model of this configuration ranks."""
        pooling = config.model.pooling
        return cls(pooling, pooling != "each" and config.objectives.late_scale == "mean")

    def rule(self, query_is_image: bool, item_is_image: bool) -> ScoreRule:
        """Return the rule by which queries of one kind score items of another kind.

        Two images, or two titles, have no trained score: they are compared by MaxSim.
        """
        if query_is_image == item_is_image:
            return MAXSIM
        if self.pooling == "each":
            return ScoreRule(means=self.means)
        if self.pooling == "mean":
            return ScoreRule(over_query=False)
        if self.pooling == "both":
            return ScoreRule(over_item=True, means=self.means)
        over_query = (self.pooling == "image") == query_is_image
        return ScoreRule(over_query, not over_query, self.means)


EACH = Scoring()
"""MaxSim of the query in both directions, as BagFormer and vectors of other programs are scored."""
