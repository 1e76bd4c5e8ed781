"""Make hits of the rows that a search found: fetch their titles, attributes and thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bagformer_cli.data.catalogue.values import whole_numbers
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.lexical import lexical_facts
from bagformer_cli.index.ranking import Ranking
from bagformer_cli.index.results import Hit

if TYPE_CHECKING:
    from bagformer_cli.index.search import SearchOptions


def fetch_hits(
    engine: Engine, rankings: Sequence[Ranking], options: SearchOptions
) -> list[list[Hit]]:
    """Fetch the rows of all results, each row once, and combine them with their scores.

    Args:
        engine: The index, at the version that was searched.
        rankings: The rows of each query, best first.
        options: ``k``: hits per query; ``thumbnails`` and ``fusion`` as they were searched with.
    """
    names = list(engine.layout.attributes)
    columns = ["id", "title", "image", *names]
    columns += ["thumbnail"] if options.thumbnails else []
    keys = np.unique(np.concatenate([ranking.keys[: options.k] for ranking in rankings]))
    rows = dict(zip(keys.tolist(), engine.fetch(keys, columns), strict=True))
    hits: list[list[Hit]] = []
    for ranking in rankings:
        hits.append([])
        for at, key in enumerate(ranking.keys[: options.k].tolist()):
            row, fast, slow = rows[key], float(ranking.fast[at]), float(ranking.slow[at])
            scored = not np.isnan(slow)
            hits[-1].append(
                Hit(
                    at + 1,
                    float(ranking.scores[at]),
                    float(ranking.mean[at]),
                    row["id"],
                    row["title"],
                    row["image"],
                    whole_numbers({name: row[name] for name in names if row[name] is not None}),
                    "merged" if scored else "late" if options.fusion == "none" else "fused",
                    fast,
                    slow if scored else None,
                    **lexical_facts(ranking, at, options.fusion),
                    thumbnail=row.get("thumbnail"),
                )
            )
    return hits
