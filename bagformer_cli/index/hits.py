"""Make hits of the rows that a search found: fetch their titles, attributes and thumbnails.

Thumbnails are fetched after the hits were sorted and cut to a page: they are most of a row's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bagformer_cli.data.catalogue.values import whole_numbers
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.lexical import lexical_facts
from bagformer_cli.index.ranking import Ranking
from bagformer_cli.index.results import Hit
from bagformer_cli.index.search_options import SearchOptions


def fetch_hits(
    engine: Engine, rankings: Sequence[Ranking], options: SearchOptions
) -> tuple[list[list[Hit]], dict[str, Any]]:
    """Fetch the rows of all results, each row once, and combine them with their scores.

    A row that was removed since it was found is no hit. The hits have no thumbnails yet; see
    :func:`with_thumbnails`.

    Args:
        engine: The index, at the version that was searched.
        rankings: The rows of each query, best first.
        options: ``k``: hits per query; ``fusion`` as it was searched with.

    Returns:
        The hits of each query, and the keys of their rows, by id.
    """
    names = list(engine.layout.attributes)
    columns = ["id", "title", "image", *names]
    keys = np.unique(np.concatenate([ranking.keys[: options.k] for ranking in rankings]))
    found = engine.fetch(keys, columns)
    rows = dict(zip(keys.tolist(), found, strict=True))
    hits: list[list[Hit]] = []
    for ranking in rankings:
        hits.append([])
        for at, key in enumerate(ranking.keys[: options.k].tolist()):
            row, fast, slow = rows[key], float(ranking.fast[at]), float(ranking.slow[at])
            if row["id"] is None:
                continue
            scored = not np.isnan(slow)
            hits[-1].append(
                Hit(
                    len(hits[-1]) + 1,
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
                )
            )
    return hits, {row["id"]: key for row, key in zip(found, keys, strict=True)}


def with_thumbnails(
    engine: Engine, hits: Sequence[Sequence[Hit]], keys: Mapping[str, Any]
) -> list[list[Hit]]:
    """Fetch the thumbnails of hits, each once.

    Args:
        engine: The index, at the version that was searched.
        hits: The hits of each query that are returned.
        keys: The keys of their rows, by id.
    """
    wanted = list(dict.fromkeys(hit.id for own in hits for hit in own))
    rows = engine.fetch(np.array([keys[name] for name in wanted]), ["thumbnail"])
    images = dict(zip(wanted, (row["thumbnail"] for row in rows), strict=True))
    return [[replace(hit, thumbnail=images[hit.id]) for hit in own] for own in hits]
