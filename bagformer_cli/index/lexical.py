"""The lexical part of a search: find rows by the terms of their titles, fuse both rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.ranking import (
    DEPTH,
    FUSIONS,
    LEXICAL_WEIGHT,
    FusedTerms,
    Fusion,
    FusionRule,
    Ranking,
    TermHits,
    fuse,
    within_reach,
)
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.spelling import suggest
from bagformer_cli.index.terms import query_terms
from bagformer_cli.messages import tr
from bagformer_cli.text.segmenter import Segmenter


class LexicalSearch:
    """Searches one snapshot of an index by terms.

    Args:
        engine: The snapshot.
        segmenter: Cuts queries, as it cut the titles of the index.
        options: How to search; ``k``: hits up to the end of the page.
        page: Hits of a page. With it, not with ``k``, grows the number of rows that are fused, so
            that all pages are cut from one order.

    Attributes:
        note: The number of products found, for ``--profile``.
    """

    def __init__(
        self, engine: Engine, segmenter: Segmenter, options: SearchOptions, page: int
    ) -> None:
        self.engine, self.segmenter, self.options = engine, segmenter, options
        self.depth = max(page, options.rerank, DEPTH)
        self.note = ""

    def fuse(
        self, queries: Sequence[str], encoded: Queries, rankings: Sequence[Ranking]
    ) -> tuple[list[Ranking], list[str | None]]:
        """Fuse each query's ranking by late interaction with that by its terms.

        Args:
            queries: Q texts.
            encoded: The same, encoded.
            rankings: Their rows by late interaction.

        Returns:
            The fused rankings, and for each query a suggestion or None.
        """
        terms = [query_terms(self.segmenter, query) for query in queries]
        found = self._find(terms)
        self.note = tr("{n} products by terms", n=max(len(hits.keys) for hits in found))
        weight = self.options.lexical_weight
        share = LEXICAL_WEIGHT if weight is None else weight
        fused = []
        for number, (late, hits) in enumerate(zip(rankings, found, strict=True)):
            one = encoded.one(number)
            bounded = not encoded.rule.needs_item_counts
            rule = FusionRule(self.options.fusion, share, self.depth, bounded)
            fused.append(fuse(late, self._scored(one, late, hits, rule), rule))
        return fused, self._suggestions(terms, found)

    def _find(self, terms: Sequence[Sequence[str]]) -> list[TermHits]:
        """Find the rows by terms; a query without terms finds none."""
        options = self.options
        weighted: list[dict[str, float]] = [
            dict.fromkeys(own, 1.0) if options.synonyms is None else options.synonyms.expand(own)
            for own in terms
        ]
        with_terms = [own for own in weighted if own]
        find = self.engine.find_terms
        found = iter(find(options.of, with_terms, self.depth, options.where) if with_terms else [])
        none = TermHits(np.zeros(0, object), np.zeros(0, np.float32))
        return [next(found) if own else none for own in weighted]

    def _scored(
        self, query: Queries, late: Ranking, hits: TermHits, rule: FusionRule
    ) -> FusedTerms:
        """Score the rows by late interaction that it has not found itself, if that may matter."""
        scores = np.full(len(hits.keys), np.nan, np.float32)
        means = scores.copy()
        wanted = within_reach(late, hits, rule, max(self.options.k, self.options.rerank))
        if wanted.any():
            keys = hits.keys[wanted]
            side = self.options.of
            scores[wanted] = self.engine.late_interaction(side, query, [keys])[0]
            means[wanted] = self.engine.mean_scores(side, query, keys, scores[wanted])
        return FusedTerms(hits, scores, means)

    def _suggestions(
        self, terms: Sequence[Sequence[str]], found: Sequence[TermHits]
    ) -> list[str | None]:
        """Suggest other words for the queries of which no term is in the index."""
        counts = None
        result: list[str | None] = []
        for own, hits in zip(terms, found, strict=True):
            if len(hits.keys) or not own:
                result.append(None)
                continue
            if counts is None:
                if self.engine.count() and not self.engine.count("title IS NOT NULL"):
                    message = tr("No product of this index has a title.")
                    raise InputError(message, where=self.engine.uri)
                counts = self.engine.term_counts()
            result.append(suggest(own, counts, [term for term in own if self._is_word(term)]))
        return result

    def _is_word(self, term: str) -> bool:
        """Tell whether a term is a word of a dictionary."""
        return [bag.source for bag in self.segmenter.segment(term)] == ["lexicon"]


def check_fusion(engine: Engine, options: SearchOptions, *, images: bool) -> None:
    """Check that a search can be fused with one by terms, if the options say so.

    Raises:
        InputError: The queries are images, the index has no terms, or the weight is out of range.
    """
    if options.fusion not in FUSIONS:
        raise InputError(
            tr("There is no such fusion."), found=options.fusion, expected=", ".join(FUSIONS)
        )
    if options.lexical_weight is not None and not 0 <= options.lexical_weight <= 1:
        raise InputError(
            tr("The weight of the words is out of range."),
            found=options.lexical_weight,
            expected=tr("from 0 (vectors alone) to 1 (words alone)"),
        )
    if options.fusion == "none":
        return
    if images:
        raise InputError(
            tr("An image has no words to search by."),
            found=f"--fusion {options.fusion}",
            hint=tr("Leave out --fusion, or search by a text."),
        )
    engine.require_terms()


def lexical_facts(ranking: Ranking, at: int, fusion: Fusion) -> dict[str, Any]:
    """Return the ranks and the BM25 score of a result, as ``Hit`` has them; {} without fusion."""
    if fusion == "none":
        return {}
    return {
        "fast_rank": int(ranking.fast_rank[at]) or None,
        "lexical": float(ranking.lexical[at]) if ranking.lexical_rank[at] else None,
        "lexical_rank": int(ranking.lexical_rank[at]) or None,
    }
