"""The results of a search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: From 1.
        score: The score that orders the results: ``fast``, or the merged score.
        mean: ``fast`` as a mean cosine, so it is comparable between queries of different lengths:
            divided by the number of vectors that it adds over, those of the query in most models.
        id: The product's id.
        title: Its title, or None.
        image: The path of its image, or None.
        attributes: Its other attributes, without missing values.
        stage: ``late`` if ``score`` is the late-interaction score; ``fused`` if it is that of a
            fusion with BM25; ``combined`` if it is the weighted sum of a title and an image;
            ``merged`` if the cross-encoder scored the product too. Merged results
            come first.
        fast: The late-interaction score, as the model ranks by it (``config/scoring.py``).
        slow: The cross-encoder's score, or None.
        fast_rank: The rank by late interaction before a fusion; None without one, or if the product
            was found by its terms only.
        lexical: The BM25 score of the title's terms in a fusion, or None if it has none of them.
        lexical_rank: The rank by that score, or None.
        thumbnail: A small image as the content of its file, or None.
        probability: Probability that the hit is a match, if the model is calibrated for this kind
            of search and nothing was reranked; else None.
        text_mean: In a search by a title and an image, the mean score of the title; else None.
        image_mean: The mean score of the image; else None.
        group_size: With ``group_by``, the number of hits that this one stands for; else None.
    """

    rank: int
    score: float
    mean: float
    id: str
    title: str | None
    image: str | None
    attributes: dict[str, Any]
    stage: str
    fast: float
    slow: float | None = None
    fast_rank: int | None = None
    lexical: float | None = None
    lexical_rank: int | None = None
    thumbnail: bytes | None = field(default=None, repr=False)
    probability: float | None = None
    text_mean: float | None = None
    image_mean: float | None = None
    group_size: int | None = None

    @property
    def shown_score(self) -> float:
        """The merged or fused score, or without it the mean, which does not grow with the query."""
        return self.score if self.slow is not None or self.stage == "fused" else self.mean

    def to_json(self) -> dict[str, Any]:
        """Return all attributes but the thumbnail."""
        return {name: value for name, value in vars(self).items() if name != "thumbnail"}


@dataclass(frozen=True)
class Results:
    """The results of one query.

    Attributes:
        hits: The results, best first.
        plan: The stages: what each did, and how.
        seconds: Wall time by stage and step; for several queries the time of all together.
        suggestion: The query with its unknown words replaced by near ones of the index, if no word
            of it was found; None otherwise.
        total: Hits that the page was taken from.
        facets: Value and count of the text attributes of these hits, if the options say so.
    """

    hits: list[Hit]
    plan: list[dict[str, Any]]
    seconds: dict[str, float]
    suggestion: str | None = None
    total: int | None = None
    facets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)
