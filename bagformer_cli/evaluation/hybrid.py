"""Measure hybrid search in an index: vectors alone, words alone, and both fused.

The weight of a weighted fusion is chosen on some queries and measured on others.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.muge import MugeFolder, iter_queries
from bagformer_cli.data.product_ids import ids_of
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.metrics import NOT_FOUND, Positives
from bagformer_cli.evaluation.order_metrics import CUT, interval, order_metrics
from bagformer_cli.index.arrange import Arrangement
from bagformer_cli.index.ranking import DEPTH, Fusion
from bagformer_cli.index.results import Hit
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.terms import query_terms
from bagformer_cli.messages import tr

WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
"""Shares of the words that are tried."""


@dataclass(frozen=True)
class JudgedQueries:
    """Text queries with the ids of the products that answer each.

    Args:
        texts: Q queries.
        answers: For each the ids of its answers, at least one.
    """

    texts: Sequence[str]
    answers: Sequence[frozenset[str]]

    def halves(self) -> tuple[JudgedQueries, JudgedQueries]:
        """Return every second query from the first on, and the others."""
        first, second = (JudgedQueries(self.texts[at::2], self.answers[at::2]) for at in (0, 1))
        return first, second


@dataclass(frozen=True)
class HybridResult:
    """The nDCG@10 of the ways to search, for each query.

    Args:
        ndcg: [Q] by ``vectors``, ``words``, ``rrf`` and ``weighted``.
        weight: The share of the words in ``weighted``, chosen on other queries.
    """

    ndcg: dict[str, NDArray[np.float64]]
    weight: float

    def to_json(self) -> dict[str, Any]:
        """Return the means in percent with their 95 % intervals, and the gains of each fusion."""
        report: dict[str, Any] = {"lexical_weight": self.weight, f"ndcg@{CUT}": {}, "gains": {}}
        for name, values in self.ndcg.items():
            report[f"ndcg@{CUT}"][name] = _percent(values)
        for fusion in ("rrf", "weighted"):
            for part in ("vectors", "words"):
                gain = self.ndcg[fusion] - self.ndcg[part]
                report["gains"][f"{fusion} - {part}"] = _percent(gain)
        return report


def judged_queries(dataset: MugeFolder, split: str, index: Index) -> JudgedQueries:
    """Read the queries of a dataset's split, with those answers that the index holds.

    Args:
        dataset: The dataset.
        split: ``train``, ``valid`` or ``test``.
        index: The index; its ids are the dataset's image numbers, or those of its ``ids.jsonl``.

    Raises:
        InputError: The split is missing, or the index holds no answer of its queries.
    """
    dataset.require(split, images=False)
    path = dataset.queries_path(split)
    names = ids_of(dataset.path).images
    texts: list[str] = []
    wanted: list[list[str]] = []
    for query in iter_queries(path):
        texts.append(query.text)
        wanted.append([names[n].id if n in names else str(n) for n in query.item_ids])
    stored = index.engine.stored(sorted({name for own in wanted for name in own}))
    pairs = [
        (text, frozenset(own) & stored)
        for text, own in zip(texts, wanted, strict=True)
        if stored.intersection(own)
    ]
    if not pairs:
        raise InputError(
            tr("The index holds no product that answers a query of this split."),
            where=path,
            found=index.engine.uri,
            hint=tr("Name an index of the same products: their ids are the numbers of the images."),
        )
    return JudgedQueries([text for text, _ in pairs], [own for _, own in pairs])


def measure_hybrid(index: Index, tuning: JudgedQueries, measured: JudgedQueries) -> HybridResult:
    """Choose the weight on ``tuning`` and measure all ways to search on ``measured``.

    Args:
        index: The index; its products have titles.
        tuning: The queries on which the weight is chosen.
        measured: The queries that are measured.

    Raises:
        InputError: The index has no terms of titles.
    """
    index.engine.require_terms()
    known = ndcg_of_weights(index, tuning)
    weight = max(known, key=known.__getitem__)
    return HybridResult(
        {
            "vectors": _searched(index, measured, "none"),
            "words": _by_words(index, measured),
            "rrf": _searched(index, measured, "rrf"),
            "weighted": _searched(index, measured, "weighted", weight),
        },
        weight,
    )


def ndcg_of_weights(index: Index, queries: JudgedQueries) -> dict[float, float]:
    """Measure a weighted fusion with each of :data:`WEIGHTS`; the index is searched only once.

    Args:
        index: The index; its products have titles.
        queries: The queries that are measured.

    Returns:
        The mean nDCG@10 by weight.
    """
    encoded = index.encode(queries.texts)
    # All that is fused: up to DEPTH products by vectors, and as many others by words.
    pages = [
        index.search_many(
            queries.texts,
            SearchOptions(k=DEPTH, fusion="rrf", arrangement=Arrangement(offset=offset)),
            encoded=encoded,
        )
        for offset in (0, DEPTH)
    ]
    found = [[*first, *second] for first, second in zip(*pages, strict=True)]
    return {
        weight: float(ndcg([_weighted(hits, weight) for hits in found], queries.answers).mean())
        for weight in WEIGHTS
    }


def _weighted(hits: Sequence[Hit], weight: float) -> list[str]:
    """Return the ids of the best products by the weighted sum of ``ranking.fuse``."""
    best = max((hit.lexical or 0.0 for hit in hits), default=0.0) or 1.0
    order = sorted(
        hits, key=lambda hit: -(1 - weight) * hit.mean - weight * (hit.lexical or 0.0) / best
    )
    return [hit.id for hit in order[:CUT]]


def count_copied_titles(index: Index, queries: JudgedQueries) -> int:
    """Count the queries that are the title of a product that answers them.

    They are found by their words whatever the words say: such an index was built of the queries.
    """
    found = index.engine.find_terms
    copied = 0
    for text, wanted in zip(queries.texts, queries.answers, strict=True):
        terms = dict.fromkeys(query_terms(index.encoder.titles.segmenter, text), 1.0)
        hits = found("image", [terms], CUT, None)[0] if terms else None
        rows = [] if hits is None else index.engine.fetch(hits.keys, ["id", "title"])
        copied += any(row["title"] == text and row["id"] in wanted for row in rows)
    return copied


def _searched(
    index: Index, queries: JudgedQueries, fusion: Fusion, weight: float | None = None
) -> NDArray[np.float64]:
    options = SearchOptions(k=CUT, fusion=fusion, lexical_weight=weight)
    found = index.search_many(queries.texts, options)
    return ndcg([[hit.id for hit in results] for results in found], queries.answers)


def _by_words(index: Index, queries: JudgedQueries) -> NDArray[np.float64]:
    engine = index.engine.snapshot("image")
    lists: list[list[str]] = []
    for text in queries.texts:
        terms = dict.fromkeys(query_terms(index.encoder.titles.segmenter, text), 1.0)
        hits = engine.find_terms("image", [terms], CUT, None)[0] if terms else None
        rows = [] if hits is None else engine.fetch(hits.keys, ["id"])
        lists.append([row["id"] for row in rows])
    return ndcg(lists, queries.answers)


def ndcg(found: Sequence[Sequence[str]], answers: Sequence[frozenset[str]]) -> NDArray[np.float64]:
    """Compute nDCG@10 of lists of ids, with gains 0 or 1.

    >>> ndcg([["b", "a"], ["c"]], [frozenset({"a"}), frozenset({"c", "d"})]).round(3).tolist()
    [0.631, 0.613]
    """
    ranks: list[int] = []
    for own, wanted in zip(found, answers, strict=True):
        at = {name: rank for rank, name in enumerate(own)}
        ranks += [at.get(name, NOT_FOUND) for name in sorted(wanted)]
    lists = [list(range(len(wanted))) for wanted in answers]
    positives = Positives.from_lists(lists, max(map(len, lists), default=0))
    return order_metrics(np.array(ranks, np.int64), positives).ndcg


def _percent(values: NDArray[np.float64]) -> dict[str, float]:
    low, high = interval([values])[0]
    return {"mean": 100 * float(values.mean()), "low": 100 * low, "high": 100 * high}
