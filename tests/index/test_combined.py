"""A title and an image as one query: exact at any depth."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.config.scoring import ScoreRule
from bagformer_cli.index.combined import CombinedScores, find_both, weighted_query
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.engines import create_engine
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.search_profile import SearchProfile
from tests.support.index_rows import LAYOUT, embeddings, query, rows

COUNT = 800
TITLE, IMAGE = query(1, count=3), query(2, count=5)


@pytest.fixture(params=["lance", pytest.param("qdrant", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An index of 800 products, of which 600 have an image."""
    uri = str(tmp_path / "index")
    if request.param == "qdrant":
        uri = f"{request.getfixturevalue('qdrant_server')}/combined-{uuid.uuid4().hex}"
    made = create_engine(uri, LAYOUT)
    made.upsert(rows(range(COUNT)))
    return made


def find(engine: Engine, k: int, weight: float) -> CombinedScores:
    """Search exactly for both queries."""
    options = SearchOptions(k=k, recall="exact")
    return find_both(engine, TITLE, IMAGE, weight, options, SearchProfile())


def one_by_one(weight: float) -> dict[str, tuple[float, float, float]]:
    """The weighted sum of each product, and its mean scores under the title and the image."""
    scores = {}
    for number in range(COUNT):
        if number % 4:
            (item,) = embeddings([f"p{number}"])
            text, image = (
                float((own.tensors.values @ item.T).amax(1).mean()) for own in (TITLE, IMAGE)
            )
            scores[f"p{number}"] = ((1 - weight) * text + weight * image, text, image)
    return scores


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_best_products_are_found_at_any_depth(engine: Engine, weight: float) -> None:
    expected = one_by_one(weight)
    best = sorted((own[0] for own in expected.values()), reverse=True)
    whole = find(engine, COUNT, weight)
    names = [row["id"] for row in engine.fetch(whole.keys, ["id"])]
    assert len(names) == len(set(names)) == len(best)
    np.testing.assert_allclose(whole.scores, best, atol=2e-3)  # float16 in the index
    for part, at in ((whole.scores, 0), (whole.text, 1), (whole.image, 2)):
        np.testing.assert_allclose(part, [expected[name][at] for name in names], atol=2e-3)
    for k in (10, 150, 201, 450):
        page = find(engine, k, weight)
        assert page.keys.tolist() == whole.keys[:k].tolist()
        assert page.scores.tolist() == sorted(page.scores.tolist(), reverse=True)


def test_candidates_by_single_vectors_are_of_both_queries(engine: Engine) -> None:
    options = SearchOptions(k=5, recall="vector", candidates=COUNT)
    found = find_both(engine, TITLE, IMAGE, 0.5, options, SearchProfile())
    assert found.keys.tolist() == find(engine, 5, 0.5).keys.tolist()


def test_a_rule_over_the_products_vectors_scores_the_union(engine: Engine) -> None:
    title = replace(TITLE, rule=ScoreRule(over_query=False, over_item=True))
    assert weighted_query(title, IMAGE, 0.5) is None
    profile = SearchProfile()
    found = find_both(engine, title, IMAGE, 0.5, SearchOptions(k=COUNT, recall="exact"), profile)
    assert [step["stage"] for step in profile.plan] == ["recall", "recall", "late"]
    np.testing.assert_allclose(found.scores, 0.5 * found.text + 0.5 * found.image, atol=1e-6)
    assert (np.diff(found.scores) <= 0).all()
