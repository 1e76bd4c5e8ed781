"""Queries of a text with an image; thresholds, words to avoid, groups, facets, sorting, pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

from bagformer_cli.api import Retriever
from bagformer_cli.calibration import Calibration, Curve
from bagformer_cli.errors import InputError
from bagformer_cli.index import search_profile
from bagformer_cli.index.arrange import Arrangement, arrange
from bagformer_cli.index.results import Hit
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from tests.support.small_model import small_model

Xmr = Callable[..., Any]


def hit(name: str, mean: float, title: str | None = None, **attributes: Any) -> Hit:
    return Hit(1, mean, mean, name, title, None, attributes, "late", mean)


SHOP = [
    hit("a", 0.9, "红色面包", price=30, style="K1", colour="红"),
    hit("b", 0.8, "红色包", price=10, style="K1", colour="红"),
    hit("c", 0.7, None, price=20, style="K2", colour="蓝"),
    hit("d", 0.6, "蓝色 包", style="K2", colour="蓝"),
    hit("e", 0.5, "ＲＥＤ Bag", price=20),
]


def names(how: Arrangement, k: int = 10, hits: list[Hit] = SHOP) -> str:
    found = arrange(hits, how, k, small_model().titles)
    assert [one.rank for one in found.hits] == [
        how.offset + at for at in range(1, len(found.hits) + 1)
    ]
    return "".join(one.id for one in found.hits)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, "abcde"),
        ({"threshold_score": 0.7}, "abc"),
        ({"without": ("包",)}, "ace"),  # 面包 is another bag; a product without a title stays
        ({"without": ("红色",)}, "cde"),
        ({"without": ("red",)}, "abcd"),  # width and case do not count
        ({"without": ("紅色",)}, "cde"),  # nor do traditional characters
        ({"without": ("r\u00e9d\u200b",)}, "abcd"),  # nor accents and invisible characters
        ({"without": ("红色", "蓝色")}, "ce"),
        ({"without": ("红色 包",)}, "acde"),  # both bags, one after the other
        ({"without": (" ",)}, "abcde"),
        ({"group_by": "style"}, "ace"),
        ({"sort": "price"}, "bcead"),
        ({"sort": "-price"}, "acebd"),
        ({"offset": 2}, "cde"),
        ({"offset": 9}, ""),
        ({"group_by": "style", "sort": "price", "offset": 1}, "ea"),
    ],
)
def test_arrangements_by_hand(how: dict[str, Any], expected: str) -> None:
    assert names(Arrangement(**how)) == expected


def test_a_page_is_cut_from_all_hits() -> None:
    found = arrange(SHOP, Arrangement(facets=True, sort="price"), 2)
    assert [one.id for one in found.hits] == ["b", "c"]
    assert found.total == 5
    assert found.facets["colour"] == [{"value": "红", "count": 2}, {"value": "蓝", "count": 2}]
    assert set(found.facets) == {"style", "colour"}
    assert arrange(SHOP, Arrangement(), 2).facets == {}


def test_a_group_says_how_many_it_stands_for() -> None:
    found = arrange(SHOP, Arrangement(group_by="style"), 10)
    assert [one.group_size for one in found.hits] == [2, 2, 1]


@pytest.mark.parametrize("seed", range(8))
def test_pages_of_one_size_hold_each_hit_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    hits = [
        replace(hit(f"p{n}", float(mean), price=int(random.integers(9)), style=f"K{n % 7}"), rank=n)
        for n, mean in enumerate(-np.sort(-random.random(500)), 1)
    ]
    for how in (
        Arrangement(sort="price", facets=True),
        Arrangement(sort="-price", threshold_score=0.3),
        Arrangement(facets=True),
        Arrangement(group_by="style"),
    ):
        for k in (7, 100, 250):
            pages = []
            for offset in range(0, 500, k):
                page = replace(how, offset=offset)
                pages.append(arrange(hits[: page.depth(k)], page, k))
            found = [one.id for page in pages for one in page.hits]
            left = arrange(hits, replace(how, sort=None), 500).hits
            assert sorted(found) == sorted(one.id for one in left)
            assert all(page.facets == pages[0].facets for page in pages)
            first = [one for one in left if one.rank <= max(200, k)]
            assert sorted(found[: len(first)]) == sorted(one.id for one in first)


def test_an_attribute_to_group_by_has_no_direction() -> None:
    with pytest.raises(InputError, match="no such attribute"):
        Arrangement(group_by="-style").check({"style": "str"})
    Arrangement(sort="-style").check({"style": "str"})


def test_a_threshold_needs_a_probability() -> None:
    with pytest.raises(InputError, match="no probability") as caught:
        arrange(SHOP, Arrangement(threshold=0.5), 10)
    assert "--calibrate" in str(caught.value.hint)
    fused = [replace(one, stage="fused") for one in SHOP]
    with pytest.raises(InputError, match="no probability") as caught:
        arrange(fused, Arrangement(threshold=0.5), 10)
    assert "--calibrate" not in str(caught.value.hint)
    likely = [replace(one, probability=one.mean) for one in SHOP]
    assert names(Arrangement(threshold=0.75), hits=likely) == "ab"


def test_more_hits_are_searched_where_they_are_needed() -> None:
    assert Arrangement().depth(10) == 10
    assert Arrangement(offset=30).depth(10) == 40
    assert Arrangement(sort="price").depth(10) == 200
    assert Arrangement(without=("包",), offset=300).depth(10) == 310


def test_a_combined_score_is_the_weighted_sum_of_both_exact_scores(
    here: Path, index: Index
) -> None:
    retriever = Retriever(small_model())
    images = retriever.encode_images([here / f"photos/{n}.png" for n in range(12)])
    title = retriever.encode_texts(["蓝色波点雨伞"])
    text = retriever.score(images, title).t2i_mean[0].numpy()
    # An image is a query here: the sum runs over its vectors, as over a title's.
    image = retriever.score(images, images[3:4]).t2i_mean[0].numpy()
    for weight in (0.0, 0.3, 1.0):
        found = index.search("蓝色波点雨伞", image=here / "photos/3.png", weight=weight, k=12)
        assert len(found) == 12
        assert [one.rank for one in found] == list(range(1, 13))
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        for one in found:
            number = int(one.id.removeprefix("sku"))
            assert one.text_mean == pytest.approx(text[number], abs=0.02)
            assert one.image_mean == pytest.approx(image[number], abs=0.02)
            assert one.text_mean is not None
            assert one.image_mean is not None
            expected = (1 - weight) * one.text_mean + weight * one.image_mean
            assert one.mean == one.score == pytest.approx(expected, abs=1e-6)
            assert one.stage == "combined"


@pytest.mark.parametrize("recall", ["exact", "vector"])
def test_weights_0_and_1_are_the_searches_of_one_query(
    here: Path, index: Index, recall: Any
) -> None:
    photo = here / "photos/7.png"
    options = SearchOptions(k=4, recall=recall)
    text, image = index.search_many(["第7款"], options)[0], index.search(image=photo, k=4)
    only_text = index.search_combined("第7款", photo, 0.0, options)
    only_image = index.search_combined("第7款", photo, 1.0, options)
    assert [one.id for one in only_text] == [one.id for one in text]
    assert [one.id for one in only_image] == [one.id for one in image]
    assert {one.probability for one in only_text} == {None}


def test_a_combined_search_can_be_filtered_and_arranged(here: Path, index: Index) -> None:
    found = index.search(
        "连衣裙", image=here / "photos/3.png", where="price < 6", k=2,
        arrangement=Arrangement(sort="price", offset=1),
    )  # fmt: skip
    assert [one.attributes["price"] for one in found] == [1.5, 2.5]
    assert found.total == 6
    titles = index.search("连衣裙", image=here / "photos/3.png", of="title", k=3)
    assert len(titles) == 3


def test_what_a_combined_search_cannot_do_is_an_error(here: Path, index: Index) -> None:
    photo = here / "photos/3.png"
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="from 0 to 1"):
            index.search("裙", image=photo, weight=wrong)
    with pytest.raises(InputError, match="no rerank"):
        index.search("裙", image=photo, rerank=3)
    with pytest.raises(InputError, match="both"):
        index.search()
    with pytest.raises(InputError, match="no such attribute"):
        index.search("裙", arrangement=Arrangement(sort="-pirce"))


def test_pages_follow_each_other(index: Index) -> None:
    every = [one.id for one in index.search("T恤", k=12)]
    pages = [index.search("T恤", k=5, arrangement=Arrangement(offset=n)) for n in (0, 5, 10)]
    assert [one.id for page in pages for one in page] == every


def test_probabilities_are_compared_with_the_threshold(index: Index) -> None:
    means = [one.mean for one in index.search("T恤", k=12)]
    middle = float(np.mean(means[5:7]))
    curve = Curve("platt", 1000.0, -1000.0 * middle)
    index.calibration = Calibration("0" * 16, {"text_to_image": curve})
    try:
        found = index.search("T恤", k=12, arrangement=Arrangement(threshold=0.5))
        assert len(found) == 6
    finally:
        index.calibration = None


def test_a_page_before_the_first_hit_is_an_error(index: Index) -> None:
    with pytest.raises(InputError, match="offset"):
        index.search("T恤", arrangement=Arrangement(offset=-3))


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("fusion", ["none", "rrf"])
def test_no_queries_have_no_results(index: Index, images: bool, fusion: Any) -> None:
    options = SearchOptions(fusion="none" if images else fusion)
    assert index.search_many([], options, images=images) == []


@pytest.mark.slow
@pytest.mark.parametrize("combined", [False, True])
def test_a_product_that_is_removed_during_a_search_is_no_hit(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xmr: Xmr, combined: bool
) -> None:
    """Qdrant has no snapshots: another process may remove a product that recall has found."""
    pytest.importorskip("qdrant_client")
    uri = f"qdrant://{tmp_path}/shop"
    assert xmr("index", "build", "products.csv", uri, "--checkpoint", "runs/a/best").code == 0
    opened = Index.open(uri, here / "runs/a/best")
    recall = opened.engine.recall

    def removing(*given: Any, **options: Any) -> Any:
        found = recall(*given, **options)
        opened.engine.remove(["sku3"])
        return found

    image = str(here / "photos/3.png") if combined else None
    asked = {"image": image, "k": 12, "thumbnails": True}
    before = opened.search("连衣裙", **asked)
    monkeypatch.setattr(opened.engine, "recall", removing)
    after = opened.search("连衣裙", **asked)
    left = [(hit.id, pytest.approx(hit.mean)) for hit in before if hit.id != "sku3"]
    assert [(hit.id, hit.mean) for hit in after] == left
    assert [hit.rank for hit in after] == list(range(1, 12))
    assert all(hit.thumbnail for hit in after)
    if combined:
        parts = [(0.5 * hit.text_mean + 0.5 * hit.image_mean) for hit in after]
        assert parts == pytest.approx([hit.mean for hit in after])
    opened.engine.close()


def test_a_combined_search_is_one_recall(here: Path, index: Index) -> None:
    found = index.search_combined("裙", str(here / "photos/3.png"))
    assert [step["stage"] for step in found.plan] == ["recall", "late"]
    assert found.seconds["recall"] >= found.seconds["recall.scan"] > 0


def test_the_times_of_a_repeated_stage_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr(search_profile.time, "perf_counter", lambda: next(clock))
    profile = search_profile.SearchProfile()
    for _ in ("title", "image"):
        with profile.timed("recall"):
            pass
    assert profile.rounded_seconds() == {"recall": 5.0}


def test_the_command_line_has_them(here: Path, xmr: Xmr) -> None:
    run = xmr("search", "同款", "--image", "photos/3.png", "--weight", "0.7", "--json")
    assert run.code == 0, run.err
    (result,) = run.json()["results"]
    assert (result["query"], result["image"]) == ("同款", "photos/3.png")
    first = result["hits"][0]
    assert first["score"] == pytest.approx(0.3 * first["text_mean"] + 0.7 * first["image_mean"])
    shown = xmr("search", "同款", "--image", "photos/3.png")
    assert "image 1.00" in shown.out.replace("\u00a0", " ")
    assert shown.out.startswith("同款 + photos/3.png\n")
    page = xmr("search", "同款", "--image", "photos/3.png", "--output", "both.html")
    assert page.code == 0, page.err
    assert "<h2>同款 + photos/3.png</h2>" in (here / "both.html").read_text("utf-8")
    assert "image" not in xmr("search", "同款", "--json").json()["results"][0]
    nothing = xmr("search", "同款", "--image", "photos/3.png", "--where", "price < 0")
    assert "同款 + photos/3.png: no results." in nothing.out

    run = xmr("search", "连衣裙", "--without", "T恤", "--sort", "-price", "--facets", "-k", "2",
              "--offset", "1", "--json")  # fmt: skip
    (result,) = run.json()["results"]
    assert result["total"] == 6
    assert [hit["attributes"]["price"] for hit in result["hits"]] == [8.5, 6.5]
    assert set(result["facets"]) == {"编码"}  # a single category is left, which is no facet
    shown = xmr("search", "连衣裙", "--facets", "--group-by", "category")
    assert "results of the group 6" in shown.out.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["裙", "--weight", "0.5"], "--weight 0.5"),
        (["--image", "photos/1.png", "--weight", "0.5"], "--weight 0.5"),
        (["裙", "--image", "photos/1.png", "--image", "photos/2.png"], "2 images"),
        (["裙", "--image", "photos/1.png", "--rerank", "3"], "--rerank"),
        (["裙", "--image", "photos/1.png", "--fusion", "rrf"], "--fusion"),
        (["裙", "--threshold", "0.5"], "--calibrate"),
        (["裙", "--sort", "pirce"], "price"),
        (["裙", "--group-by", "款号"], "category"),
        (["裙", "--offset", "-1"], "--offset"),
        (["裙", "--weight", "2"], "--weight"),
    ],
)
def test_wrong_options_are_named(here: Path, xmr: Xmr, options: list[str], words: str) -> None:
    run = xmr("search", *options)
    assert run.code == 2
    assert words in run.err
