"""Options of a search, which its stages read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagformer_cli.index.arrange import AS_FOUND, Arrangement
from bagformer_cli.index.engine import RecallMethod
from bagformer_cli.index.ranking import Fusion
from bagformer_cli.index.rows import Side

if TYPE_CHECKING:
    from bagformer_cli.index.synonyms import Synonyms


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search.

    Args:
        k: Results per query.
        where: A filter over id, title and attributes, in SQL; None: all products.
        of: Compare the query with the products' images or with their titles.
        recall: The first stage; ``auto`` lets the engine choose.
        candidates: Products that a first stage by single vectors passes to the late interaction.
            More find more and take longer. None: 200.
        rerank: How many of the best results the cross-encoder scores; 0: none.
        beta: Weight of the late interaction: merged score = slow + beta × fast. None: the
            model's ``evaluation.beta``.
        thumbnails: Whether results include the products' thumbnails.
        fusion: How a ranking by the terms of titles (BM25) is fused with the late interaction:
            ``rrf`` by ranks, ``weighted`` by scores, ``none`` not at all. For text queries.
        lexical_weight: Share of BM25 in a weighted fusion, from 0 to 1. None: 0.3.
        synonyms: Further words for those of a query, in its lexical part.
        arrangement: Which hits are left out, grouped, counted and sorted, and where a page begins.
    """

    k: int = 10
    where: str | None = None
    of: Side = "image"
    recall: RecallMethod = "auto"
    candidates: int | None = None
    rerank: int = 0
    beta: float | None = None
    thumbnails: bool = False
    fusion: Fusion = "none"
    lexical_weight: float | None = None
    synonyms: Synonyms | None = None
    arrangement: Arrangement = AS_FOUND
