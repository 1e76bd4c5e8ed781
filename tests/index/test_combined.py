"""A title and an image as one query: exact at any depth."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bagformer_cli.config.scoring import ScoreRule
from bagformer_cli.index import combined
from bagformer_cli.index.combined import CombinedScores, find_both, weighted_query
from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.engines import create_engine
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.search_profile import SearchProfile
from bagformer_cli.interaction.topk import rescored, topk
from bagformer_cli.vectors.arrays import Vectors
from bagformer_cli.vectors.multi_vectors import MultiVectors
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


def test_an_int8_scan_does_not_lose_the_light_vectors_of_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A title of 4 vectors weighs 0.8, an image of 257 weighs 0.2: 257 times as much each."""
    random = np.random.default_rng(0)
    kinds, common = random.normal(size=(100, 9, 256)), random.normal(size=256)
    values = kinds[random.integers(0, 100, 2000)] + 2.5 * common
    items = MultiVectors.from_list(list(unit(values + 0.9 * random.normal(size=values.shape))))
    near = unit(values[:2, random.integers(0, 9, 257)] + 0.6 * random.normal(size=(2, 257, 256)))
    title, image = one_query(near[0, :4]), one_query(near[1])
    stored = items.to(dtype=torch.int8)

    def found(count: int, scanned: int) -> list[int]:
        one = weighted_query(title, image, 0.2)
        assert one is not None
        scan = topk(one.tensors, stored, scanned, dtype=torch.int8)[1]
        return rescored(one.tensors, stored, count, scan)[1][0].tolist()

    best = set(found(100, len(items)))
    assert len(best & set(found(100, 400))) >= 98
    monkeypatch.setattr(combined, "MOST_UNEVEN", 1e9)
    assert len(best & set(found(100, 400))) < 95


def one_query(vectors: torch.Tensor) -> Queries:
    """Make a query of its vectors [n, D]."""
    offsets = np.array([0, len(vectors)])
    return Queries(Vectors(vectors.numpy(), offsets), vectors.mean(0, keepdim=True).numpy())


def unit(values: np.ndarray[Any, Any]) -> torch.Tensor:
    """Scale vectors [..., D] to unit length, as float32."""
    return F.normalize(torch.from_numpy(values).float(), dim=-1)
