"""Measuring hybrid search: nDCG of lists, the weight that is chosen, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.data.muge import Query, write_queries
from bagformer_cli.data.product_ids import ImageName, ProductIds, id_lines
from bagformer_cli.evaluation.hybrid import HybridResult, JudgedQueries, ndcg, ndcg_of_weights
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from tests.support.small_model import indexed_shop


def test_ndcg_by_hand() -> None:
    one, two = 1.0, 1 / np.log2(3)
    found = ndcg(
        [["a", "b", "x"], ["x", "b"], [], list("qwertyuiopb")],
        [frozenset("ab"), frozenset("b"), frozenset("b"), frozenset("b")],
    )
    np.testing.assert_allclose(found, [1.0, two, 0.0, 0.0])
    assert ndcg([["x", "a"]], [frozenset("ab")])[0] == pytest.approx(two / (one + two))


def test_halves_share_no_query() -> None:
    queries = JudgedQueries(["a", "b", "c"], [frozenset("1"), frozenset("2"), frozenset("3")])
    first, second = queries.halves()
    assert (first.texts, second.texts) == (["a", "c"], ["b"])
    assert second.answers == [frozenset("2")]


def test_gains_are_paired() -> None:
    values = {"vectors": [0.0, 1.0], "words": [1.0, 0.0], "rrf": [1.0, 1.0], "weighted": [1.0, 1.0]}
    result = HybridResult({name: np.array(one) for name, one in values.items()}, 0.2)
    report = json.loads(json.dumps(result.to_json()))
    assert report["ndcg@10"]["vectors"]["mean"] == 50.0
    assert report["gains"]["rrf - vectors"]["mean"] == 50.0
    assert report["gains"]["rrf - vectors"]["low"] == 0.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of twelve products, and a dataset whose queries they answer."""
    place = indexed_shop(tmp_path_factory.mktemp("shop"))
    data = place / "data"
    data.mkdir()
    names = [ImageName(f"sku{n}", f"sku{n}", "") for n in range(12)]
    lines = id_lines(ProductIds(dict(enumerate(names, 1))))
    (data / "ids.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    for split in ("valid", "test"):
        queries = [Query(n, f"第{n - 1}款", (n,)) for n in range(1, 13)]
        write_queries(data / f"MR_{split}_queries.jsonl", [*queries, Query(99, "没有", (99,))])
    return place


def test_the_command_measures_an_index(
    shop: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    run = xmr("eval", "--dataset", "data", "--split", "test", "--hybrid", "index", "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert report["n_queries"] == report["n_tuning_queries"] == 12
    assert report["copied_titles"] == 0
    assert report["ndcg@10"]["words"]["mean"] == 100.0
    assert report["ndcg@10"]["weighted"]["mean"] >= report["ndcg@10"]["vectors"]["mean"]
    run = xmr("eval", "--dataset", "data", "--hybrid", "index")
    assert "--lexical-weight" in run.out
    assert "6 queries" in run.out


def test_weights_are_measured_as_a_search_uses_them(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("evaluation.hybrid", "index.lexical", "index.first_stage"):
        monkeypatch.setattr(f"bagformer_cli.{place}.DEPTH", 3)  # of twelve products
    monkeypatch.setattr("bagformer_cli.evaluation.hybrid.CUT", 3)
    index = Index.open(shop / "index")
    titles = [f"{('连衣裙', 'T恤')[n % 2]} 第{(n * 5) % 12}款" for n in range(12)]
    queries = JudgedQueries(titles, [frozenset({f"sku{(n * 7) % 12}", "sku4"}) for n in range(12)])
    found = ndcg_of_weights(index, queries)
    assert len(set(found.values())) > 1
    for weight, value in found.items():
        options = SearchOptions(k=3, fusion="weighted", lexical_weight=weight)
        lists = [[hit.id for hit in one] for one in index.search_many(titles, options)]
        assert value == pytest.approx(ndcg(lists, queries.answers).mean())


def test_queries_that_are_titles_are_warned_of(
    shop: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(shop)
    queries = [
        Query(n, f"{('连衣裙', 'T恤')[(n - 1) % 2]}, 第{n - 1}款", (n,)) for n in range(1, 13)
    ]
    for file in (shop / "data").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_queries(tmp_path / "MR_valid_queries.jsonl", queries)
    run = xmr("eval", "--dataset", tmp_path, "--hybrid", "index")
    assert run.code == 0, run.err
    assert "6 of 6 queries are the title of their answer" in run.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hybrid", "index"], "--dataset"),
        (["--hybrid", "index", "--dataset", "data", "--rerank", "5"], "--rerank"),
        (["--hybrid", "index", "--dataset", "data", "--calibrate"], "--calibrate"),
        (["--hybrid", "nowhere", "--dataset", "data"], "nowhere"),
    ],
)
def test_wrong_options_are_named(
    shop: Path,
    xmr: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(shop)
    run = xmr("eval", *arguments)
    assert run.code == 2
    assert says in run.err
