"""The first stage of a search: recall, and late interaction if the recall did not compute it.

An exact recall, and one by centroids, end with late-interaction scores. A recall by single vectors
ends with candidates, whose late-interaction scores are computed next::

    engine.recall ──▶ rows with late-interaction scores ──────────────────────▶ rankings
                 └──▶ candidates of single vectors ──▶ engine.late_interaction ──┘

Shapes: Q queries.
"""

from __future__ import annotations

import numpy as np

from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.ranking import DEPTH, Ranking
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.search_profile import SearchProfile
from bagformer_cli.messages import tr

CANDIDATES = 200
"""Candidates of a first stage by single vectors, unless the caller says otherwise."""

MANY = 10_000
"""Candidates from which on the products are counted first, so that no more are requested than
exist: an engine may reserve memory for that number."""


def first_stage(
    engine: Engine, queries: Queries, options: SearchOptions, profile: SearchProfile
) -> list[Ranking]:
    """Rank the rows of an index for each query by late interaction.

    Args:
        engine: The index, at one version.
        queries: Q queries.
        options: ``k``, ``rerank`` and ``fusion`` say how many rows later stages need.
        profile: Receives the stages and their times.

    Returns:
        Q rankings.
    """
    wanted = max(options.k, options.rerank, 0 if options.fusion == "none" else DEPTH)
    candidates = max(options.candidates or CANDIDATES, wanted)
    if candidates > MANY:
        count = engine.count()
        wanted, candidates = min(wanted, max(1, count)), min(candidates, max(1, count))
    with profile.timed("recall"):
        found = engine.recall(
            options.of, queries, wanted, options.where, options.recall, candidates=candidates
        )
    for name, value in found.seconds.items():
        profile.add_seconds(f"recall.{name}", value)
    profile.add("recall", found.method, found.note)
    scores = found.scores
    if not found.final:
        with profile.timed("late"):
            scores = engine.late_interaction(options.of, queries, found.keys)
        longest = max(map(len, found.keys), default=0)
        profile.add("late", "maxsim", tr("{n} candidates", n=longest))
    rankings = []
    for number, (keys, fast) in enumerate(zip(found.keys, scores, strict=True)):
        order = np.argsort(-fast, kind="stable")[:wanted]
        keys, fast = keys[order], fast[order]
        mean = engine.mean_scores(options.of, queries.one(number), keys, fast)
        rankings.append(Ranking.by_late_interaction(keys, fast, mean))
    return rankings
