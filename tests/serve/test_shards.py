"""Shards are searched as one index: the same products, scores and order."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from bagformer_cli.calibration import Calibration, Curve
from bagformer_cli.errors import InputError
from bagformer_cli.index.arrange import Arrangement
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.shards import Query, open_shard, require_same_layout, search_shards
from tests.serve.conftest import LIMITS

TITLES = ["红色碎花裙", "T恤", "连衣裙 第3款"]


@pytest.fixture(scope="module")
def parts(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three indexes, of five, one and six products of the shop, in its order."""
    from bagformer_cli.cli.main import main

    folder = tmp_path_factory.mktemp("parts")
    with (shop / "products.csv").open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    made = []
    for number, part in enumerate((rows[:5], rows[5:6], rows[6:])):
        table = shop / f"part{number}.csv"
        with table.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([head, *part])
        made.append(str(folder / f"index{number}"))
        model = str(shop / "runs" / "a" / "best")
        vectors = str(folder / f"vectors{number}")
        assert main(["encode", str(table), "--out", vectors, "--checkpoint", model]) == 0
        assert main(["index", "build", vectors, made[-1]]) == 0
        # The same vectors in one index: encoded once, because batches round differently.
        verb = "add" if number else "build"
        assert main(["index", verb, vectors, str(folder / "whole")]) == 0
    return made


@pytest.fixture
def whole(shop: Path, parts: list[str]) -> Index:
    return Index.open(Path(parts[0]).parent / "whole", shop / "runs" / "a" / "best")


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(k=12),
        SearchOptions(k=4),
        SearchOptions(k=7, of="title"),
        SearchOptions(k=12, where="price > 2 AND category = 'T恤'", thumbnails=True),
        SearchOptions(k=3, where="id = 'sku5'"),
    ],
    ids=["all", "four", "titles", "filter", "one"],
)
@pytest.mark.parametrize("images", [False, True], ids=["titles", "images"])
def test_shards_find_exactly_what_one_index_finds(
    whole: Index, parts: list[str], shop: Path, options: SearchOptions, images: bool
) -> None:
    queries: list[Any] = [shop / f"photos/{n}.png" for n in (2, 7)] if images else TITLES
    expected = whole.search_many(queries, options, images=images)
    shards = [open_shard(uri) for uri in parts]
    asked = [Query(image=query) if images else Query(query) for query in queries]
    found = search_shards(whole, shards, asked, options)
    assert [[hit.to_json() for hit in one] for one in found] == [
        [hit.to_json() for hit in one] for one in expected
    ]
    assert [hit.thumbnail for hit in found[0]] == [hit.thumbnail for hit in expected[0]]
    assert found[0].seconds["encode"] > 0


def test_shards_fetch_the_thumbnails_of_the_page(whole: Index, parts: list[str]) -> None:
    page = Arrangement(sort="-price", offset=3, facets=True)
    options = SearchOptions(k=4, thumbnails=True, arrangement=page)
    shards = [open_shard(uri) for uri in parts]
    found = search_shards(whole, shards, list(map(Query, TITLES)), options)
    for one, expected in zip(found, whole.search_many(TITLES, options), strict=True):
        assert [hit.to_json() for hit in one] == [hit.to_json() for hit in expected]
        assert [hit.thumbnail for hit in one] == [hit.thumbnail for hit in expected]
        assert (one.total, one.facets) == (expected.total, expected.facets)


def test_the_hits_of_shards_have_the_probabilities_of_one_index(
    whole: Index, parts: list[str], shop: Path
) -> None:
    whole.calibration = Calibration("0" * 16, {"text_to_image": Curve("platt", 9.0, 9.0)})
    shards = [open_shard(uri) for uri in parts]
    for options in (
        SearchOptions(k=4),
        SearchOptions(k=3, of="title"),  # no curve: no probability
        SearchOptions(k=12, arrangement=Arrangement(threshold=0.5)),
    ):
        (found,) = search_shards(whole, shards, [Query(TITLES[0])], options)
        (expected,) = whole.search_many(TITLES[:1], options)
        assert [hit.to_json() for hit in found] == [hit.to_json() for hit in expected]
        assert (found.hits[0].probability is None) == (options.of == "title")
    photo = Query(image=shop / "photos/2.png")  # there is no curve for two images either
    (found,) = search_shards(whole, shards, [photo], SearchOptions(k=4))
    assert {hit.probability for hit in found} == {None}


def test_shards_find_what_fits_a_title_and_an_image(
    whole: Index, parts: list[str], shop: Path
) -> None:
    photo, options = shop / "photos/5.png", SearchOptions(k=5, thumbnails=True)
    shards = [open_shard(uri) for uri in parts]
    queries = [Query("连衣裙", photo, 0.3), Query("T恤", photo, 0.7)]
    found = search_shards(whole, shards, queries, options)
    for query, one in zip(queries, found, strict=True):
        expected = whole.search_combined(query.title, photo, query.weight, options)
        assert [hit.id for hit in one] == [hit.id for hit in expected]
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in expected])
        assert [hit.thumbnail for hit in one] == [hit.thumbnail for hit in expected]


@pytest.fixture
def client(parts: list[str], shop: Path) -> Iterator[TestClient]:
    front = Index.open(parts[0], shop / "runs" / "a" / "best")
    service = SearchService(front, LIMITS, [open_shard(uri) for uri in parts])
    with TestClient(create_app(service)) as client:
        yield client


def test_the_service_counts_and_explains_products_of_all_shards(client: TestClient) -> None:
    assert client.get("/api/index").json()["products"] == 12
    for product in ("sku0", "sku5", "sku11"):
        asked = {"q": "红色碎花裙", "id": product}
        assert client.get("/api/explain", params=asked).json()["thumbnail"]


def test_a_wrong_filter_is_the_error_of_a_shard(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": "裙", "where": "nosuch < 3"})
    assert answer.status_code == 400
    assert "nosuch" in answer.text


def test_indexes_of_other_attributes_are_refused(shop: Path, tmp_path: Path, whole: Index) -> None:
    from bagformer_cli.cli.main import main

    table = shop / "few.csv"
    table.write_text("id,image,title\na,photos/1.png,裙\n", "utf-8")
    model = str(shop / "runs" / "a" / "best")
    options = ["--checkpoint", model, "--dtype", "float16"]
    assert main(["index", "build", str(table), str(tmp_path / "few"), *options]) == 0
    with pytest.raises(InputError, match="different attributes"):
        require_same_layout(whole, [str(tmp_path / "few")])


def test_words_are_not_ranked_across_shards(client: TestClient) -> None:
    assert not client.get("/api/index").json()["fuses"]
    answer = client.get("/api/search", params={"q": "裙", "fusion": "rrf"})
    assert answer.status_code == 400
    assert "shards" in answer.json()["error"]
