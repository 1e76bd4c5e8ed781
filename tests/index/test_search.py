"""``xmr index`` and ``xmr search`` as a user runs them, and ``Index`` in Python."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

from bagformer_cli.api import Retriever
from bagformer_cli.errors import InputError
from bagformer_cli.index import cache_recall
from bagformer_cli.index.engines import find_index
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from tests.support.black_box import assert_refused
from tests.support.small_model import indexed_shop, saved_model, small_model, write_table


def test_results_are_those_of_xmr_score(here: Path, index: Index) -> None:
    retriever = Retriever(small_model())
    paths = [here / f"photos/{n}.png" for n in range(12)]
    images, titles = retriever.encode_images(paths), retriever.encode_texts(["红色碎花裙"])
    scores = retriever.score(images, titles).t2i[0].numpy()
    found = index.search("红色碎花裙", k=12)
    np.testing.assert_allclose([hit.score for hit in found], np.sort(scores)[::-1], atol=0.02)
    assert [hit.rank for hit in found] == list(range(1, 13))
    best = int(found.hits[0].id.removeprefix("sku"))
    assert scores[best] == pytest.approx(scores.max(), abs=0.02)
    assert found.hits[0].attributes["price"] == best + 0.5


def test_an_image_finds_itself(here: Path, index: Index) -> None:
    found = index.search(image=here / "photos/5.png", k=3)
    assert found.hits[0].id == "sku5"
    assert found.hits[0].mean == pytest.approx(1, abs=0.02)
    titles = index.search(image=here / "photos/5.png", of="title", k=12)
    retriever = Retriever(small_model())
    image = retriever.encode_images([here / "photos/5.png"])
    known = [hit.title for hit in titles]
    scores = retriever.score(image, retriever.encode_texts(known)).i2t[0].numpy()
    np.testing.assert_allclose([hit.score for hit in titles], scores, atol=0.1)


@pytest.mark.parametrize(
    ("recall", "method"),
    [("auto", "exact"), ("exact", "exact"), ("tokens", "tokens"), ("vector", "vector")],
)
def test_every_first_stage_ends_in_the_same_order(
    index: Index, monkeypatch: pytest.MonkeyPatch, recall: Any, method: str
) -> None:
    index.engine.updated_cache("image").build_centroids(min_bytes=0)  # type: ignore[attr-defined]
    monkeypatch.setattr(cache_recall, "MIN_CANDIDATES", 8)
    monkeypatch.setattr(cache_recall, "CANDIDATES_PER_RESULT", 1)
    expected = index.search("蓝色波点雨伞", recall="exact", k=3)
    found = index.search("蓝色波点雨伞", recall=recall, k=3, candidates=12)
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    np.testing.assert_allclose(
        [hit.score for hit in found], [hit.score for hit in expected], atol=1e-5
    )
    assert found.plan[0]["method"] == method
    if method == "tokens":
        assert "8 of 12 products scored" in found.plan[0]["note"]
    assert [step["note"] for step in found.plan if step["stage"] == "late"] == (
        ["12 candidates"] if method == "vector" else []
    )
    assert set(found.seconds) >= {"encode", "recall", "fetch"}


@pytest.mark.parametrize("recall", ["tokens", "vector"])
def test_a_first_stage_returns_only_its_candidates(
    index: Index, monkeypatch: pytest.MonkeyPatch, recall: Any
) -> None:
    index.engine.updated_cache("image").build_centroids(min_bytes=0)  # type: ignore[attr-defined]
    monkeypatch.setattr(cache_recall, "MIN_CANDIDATES", 5)
    monkeypatch.setattr(cache_recall, "CANDIDATES_PER_RESULT", 1)
    assert len(index.search("蓝色波点雨伞", recall=recall, k=5, candidates=5)) == 5
    everything = index.search("蓝色波点雨伞", recall="exact", k=12)
    assert len(everything) == 12


def test_several_queries_find_what_each_finds_alone(index: Index) -> None:
    asked = ["红色", "蓝色波点雨伞", "手机壳 男"]
    for query, together in zip(asked, index.search_many(asked, SearchOptions(k=5)), strict=True):
        alone = index.search(query, k=5)
        assert [hit.id for hit in together] == [hit.id for hit in alone]


def test_the_cross_encoder_reranks_with_beta(index: Index) -> None:
    first = index.search("红色碎花裙", k=4)
    merged = index.search("红色碎花裙", k=4, rerank=4, beta=2.0)
    assert {hit.id for hit in merged} == {hit.id for hit in first}
    for hit in merged:
        assert hit.stage == "merged"
        assert hit.slow is not None
        assert hit.score == pytest.approx(hit.slow + 2 * hit.fast, rel=1e-5)
    assert [h.score for h in merged] == sorted((h.score for h in merged), reverse=True)
    some = index.search("红色碎花裙", k=4, rerank=2)
    assert [hit.stage for hit in some] == ["merged", "merged", "late", "late"]
    assert [hit.id for hit in some][2:] == [hit.id for hit in first][2:]
    assert [hit.score for hit in some][2:] == [hit.fast for hit in some][2:]
    with pytest.raises(InputError, match="cross-encoder"):
        index.search(image=Image.new("RGB", (9, 9)), rerank=3)


def test_a_model_that_has_changed_since_the_index_was_built_is_named_as_such(
    xmr: Callable[..., Any], tmp_path: Path
) -> None:
    shop = indexed_shop(tmp_path)
    lexicon = shop / "runs/a/best/lexicon.txt"
    words = lexicon.read_text("utf-8").splitlines(keepends=True)
    lexicon.write_text("".join(words[: len(words) // 2]), "utf-8")
    for command in (
        ("search", "红", "--index", shop / "index"),
        ("index", "add", shop / "products.csv", shop / "index"),
    ):
        run = xmr(*command)
        assert_refused(run, "The model has changed since", "Build the index again, or restore")
        assert "--checkpoint" not in run.err


def test_another_model_is_refused(place: Path, xmr: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another model"):
        Index.open(place / "index", model=small_model(seed=1))
    other = saved_model(tmp_path / "other", seed=1)
    run = xmr("search", "红色", "--index", place / "index", "--checkpoint", other)
    assert run.code == 2
    assert "another model" in run.err
    assert str(place / "runs/a/best") in run.err


# ------------------------------------------------------------------------------ the command line


def test_a_text_query_with_a_filter_as_json(here: Path, xmr: Callable[..., Any]) -> None:
    run = xmr("search", "红色碎花裙", "--where", "price < 7 AND category = '连衣裙'", "--json")
    assert run.code == 0, run.err
    found = run.json()
    hits = found["results"][0]["hits"]
    assert {hit["id"] for hit in hits} == {"sku0", "sku2", "sku4", "sku6"}
    assert found["plan"][0]["method"] == "exact"
    assert set(found["seconds"]) >= {"encode", "recall", "fetch"}
    table = xmr("search", "红色碎花裙", "-k", 2, "--profile").out
    assert "红色碎花裙" in table
    assert "price" in table
    assert "recall: exact" in table


def test_the_results_are_written_as_a_page(
    here: Path, xmr: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "found.html"
    run = xmr("search", "--image", "photos/3.png", "-k", 4, "--output", out)
    assert run.code == 0, run.err
    assert str(out) in run.out
    page = out.read_text("utf-8")
    assert page.count("<li>") == 4
    assert page.count("data:image/png;base64,") == 5
    assert "sku3" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search"], "nothing to search for"),
        (["search", "红", "--weight", "0.5"], "Give both a text and --image"),
        (["search", " "], "A query is empty."),
        (["search", "红", "--index", "nowhere"], "xmr index build"),
        (["search", "红", "--index", "photos"], "not an index"),
        (["search", "红", "--index", "ftp://a/b"], "s3://"),
        (["search", "红", "--index", "qdrant://host"], "collection"),
        (["search", "红", "--where", "prise < 3"], "Did you mean price?"),
        (["search", "红", "--where", "price <"], "price < 200"),
        (["search", "红", "--where", "price = 'x'"], "price: a number"),
        (["search", "--image", "nowhere.jpg"], "nowhere.jpg"),
        (["search", "--image", "products.csv"], "not an image"),
        (["search", "红", "--output", "x.png"], "x.html"),
        (["search", "红", "--output", "x.png", "--index", "nowhere"], "x.html, x.jsonl, x.trec"),
        (["search", "红", "--of", "titles", "--rerank", "3"], "cross-encoder"),
        (["index", "info", "nowhere"], "no index"),
        (["index", "remove", "index"], "nothing to remove"),
        (["index", "build", "products.csv", "index"], "already"),
        (["index", "build", "nowhere.csv", "new"], "nowhere.csv"),
        (["index", "build", "photos/1.png", "new"], "not a catalogue"),
    ],
)
def test_wrong_input_is_one_block_and_code_2(
    here: Path, xmr: Callable[..., Any], arguments: list[str], says: str
) -> None:
    run = xmr(*arguments)
    assert run.code == 2, run.err
    assert says in run.err
    assert "Traceback" not in run.err
    assert run.out == ""
    assert not (here / "new").exists()


def test_a_catalogue_changes(tmp_path: Path, place: Path, xmr: Callable[..., Any]) -> None:
    model = place / "runs" / "a"
    table = write_table(tmp_path, 3, broken=True)
    where = tmp_path / "index"
    built = xmr("index", "build", table, where, "--checkpoint", model, "--json")
    assert built.code == 0, built.err
    assert (built.json()["added"], len(built.json()["skipped"])) == (3, 3)
    assert "products.csv:5" in built.err
    lines = table.read_text("utf-8").splitlines()[:1]
    lines += ["sku1,photos/2.png,新标题,99,T恤,1", "sku9,photos/1.png,第九款,9,T恤,1"]
    (tmp_path / "more.csv").write_text("\n".join(lines).replace("编码", "新列"), "utf-8")
    added = xmr("index", "add", tmp_path / "more.csv", where, "--json")
    assert added.code == 0, added.err
    assert added.json()["rows"] == 4
    assert (added.json()["added"], added.json()["replaced"]) == (1, 1)
    assert "新列" in added.err
    found = xmr("search", "新标题", "--index", where, "--where", "price = 99", "--json").json()
    assert [(h["id"], h["title"]) for h in found["results"][0]["hits"]] == [("sku1", "新标题")]
    gone = xmr("index", "remove", where, "sku0", "nobody", "--json")
    assert gone.json() == {
        "index": str(where), "removed": 1, "unknown": ["nobody"], "rows": 3
    }  # fmt: skip
    assert "Ids that are not in the index: 1 (nobody)" in gone.err
    about = xmr("index", "info", where, "--json").json()
    assert about["rows"] == 3
    assert about["layout"]["attributes"] == {"price": "float", "category": "str", "编码": "str"}
    assert "price (a number)" in xmr("index", "info", where).out
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([lines[0], lines[1], lines[1]]), "utf-8")
    run = xmr("index", "add", twice, where)
    assert run.code == 0  # the first of them came in
    assert "twice.csv:3: The id sku1 occurs twice" in run.err
    assert "The row of line 2 is kept" in " ".join(run.err.split())
    assert xmr("index", "add", twice, where, "--strict").code == 2


def test_an_index_without_images_names_the_column_that_looks_like_them(
    tmp_path: Path, place: Path, xmr: Callable[..., Any]
) -> None:
    text = write_table(tmp_path, 3).read_text("utf-8").replace("image", "产品照", 1)
    (tmp_path / "t.csv").write_text(text, "utf-8")
    where = tmp_path / "index"
    model = place / "runs" / "a"
    built = xmr("index", "build", tmp_path / "t.csv", where, "--checkpoint", model)
    assert built.code == 0
    assert "Warning  No column of images was recognised" in " ".join(built.err.split(" "))
    assert "--column image=产品照" in built.err
    run = xmr("search", "红裙", "--index", where)
    assert run.code == 2
    assert "--column image=产品照" in run.err
    again = xmr("index", "build", tmp_path / "t.csv", where, "--checkpoint", model)
    assert f"xmr index add CATALOGUE {where}" in again.err.replace("\n", "")


def test_dates_are_compared_as_dates_and_an_old_version_that_stays_is_named(
    tmp_path: Path, place: Path, xmr: Callable[..., Any]
) -> None:
    write_table(tmp_path, 4)
    rows = [("2024/6/1", 0), ("2024-11-2", 1), ("2024年6月20日", 2)]
    lines = ["id,image,title,上架", *(f"s{n},photos/{n}.png,红裙,{date}" for date, n in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines), "utf-8")
    where = tmp_path / "index"
    built = xmr("index", "build", tmp_path / "t.csv", where, "--checkpoint", place / "runs" / "a")
    assert "'上架' is read as dates: '2024/6/1'" in " ".join(built.err.split())
    lines = [
        "上架,title,image,id",
        "2024/7/1,红裙,photos/gone.png,s1",  # an older version stays
        "2024/7/2,,,s9",  # it was never there
        "待定,红裙,photos/2.png,s2",  # another type than the index has
        ",,,s0",  # no product, but the next row is
        "2024/6/1,红裙,photos/3.png,s0",
    ]
    (tmp_path / "more.csv").write_text("\n".join(lines), "utf-8")
    added = xmr("index", "add", tmp_path / "more.csv", where, "--json")
    assert (added.json()["replaced"], added.json()["unchanged"]) == (1, ["s1", "s2"])
    assert "stay in the index as they were: 2 (s1, s2)" in " ".join(added.err.split())
    for condition, ids in [("上架 > '2024-06-15'", {"s1", "s2"}), ("上架 = '2024/6/1'", {"s0"})]:
        found = xmr("search", "红裙", "--index", where, "--where", condition, "--json").json()
        assert {hit["id"] for hit in found["results"][0]["hits"]} == ids
        assert {hit["attributes"]["上架"] for hit in found["results"][0]["hits"]} <= {
            "2024-06-01", "2024-11-02", "2024-06-20"
        }  # fmt: skip


def test_a_catalogue_without_readable_products_makes_no_index(
    tmp_path: Path, place: Path, xmr: Callable[..., Any]
) -> None:
    model = place / "runs" / "a"
    (tmp_path / "gone.csv").write_text("id,image\n1,a.png\n2,b.png\n", "utf-8")
    (tmp_path / "none.csv").write_text("id,image\n", "utf-8")
    there = tmp_path / "there"  # a mount, say
    there.mkdir()
    for where in (tmp_path / "new", there):
        run = xmr("index", "build", tmp_path / "gone.csv", where, "--checkpoint", model)
        assert run.code == 2
        assert "all 2 products were left out" in run.err
        assert "gone.csv:2" in run.err
        assert not where.exists()
    run = xmr("index", "build", tmp_path / "none.csv", there, "--checkpoint", model)
    assert run.code == 2
    assert "it has no products" in run.err
    table = write_table(tmp_path, 2)
    assert xmr("index", "build", table, there, "--checkpoint", model).code == 0
    run = xmr("index", "add", tmp_path / "gone.csv", there)
    assert run.code == 2
    assert xmr("index", "info", there, "--json").json()["rows"] == 2


def test_an_index_without_titles_is_named(
    tmp_path: Path, place: Path, xmr: Callable[..., Any]
) -> None:
    write_table(tmp_path, 2)
    where = tmp_path / "index"
    model = place / "runs" / "a"
    assert xmr("index", "build", tmp_path / "photos", where, "--checkpoint", model).code == 0
    run = xmr("search", "红", "--index", where, "--of", "titles")
    assert run.code == 2
    assert "has a title" in run.err
    assert "--of images" in run.err
    found = xmr("search", "红", "--index", where, "--where", "id = 'nobody'")
    assert found.code == 0
    assert "no results" in found.out
    assert xmr("index", "remove", where, "--where", "id is not null").code == 0
    assert "The index is empty" in xmr("search", "红", "--index", where).err


def test_encoded_files_become_an_index(
    tmp_path: Path, place: Path, xmr: Callable[..., Any]
) -> None:
    model = place / "runs" / "a"
    table = write_table(tmp_path, 8)
    encode = ["encode", table, "--checkpoint", model, "--piece-size", 3, "--pool", 2]
    assert xmr(*encode, "--out", tmp_path / "vectors").code == 0
    built = xmr("index", "build", tmp_path / "vectors", tmp_path / "index", "--json")
    assert built.code == 0, built.err
    assert built.json()["rows"] == 8
    about = xmr("index", "info", tmp_path / "index", "--json").json()
    assert about["layout"]["fewer"] == {"pool": 2}
    found = xmr("search", "红色", "--index", tmp_path / "index", "--json")
    assert found.code == 0, found.err
    assert len(found.json()["results"][0]["hits"]) == 8
    assert xmr(*encode[:-2], "--out", tmp_path / "plain").code == 0
    wrong = xmr("index", "add", tmp_path / "plain", tmp_path / "index")
    assert wrong.code == 2
    assert "vector reduction" in wrong.err
    (tmp_path / "plain" / "encoded.json").unlink()
    unfinished = xmr("index", "build", tmp_path / "plain", tmp_path / "index2")
    assert unfinished.code == 2
    assert "incomplete" in unfinished.err


def test_titles_alone_can_be_searched(tmp_path: Path, place: Path, xmr: Callable[..., Any]) -> None:
    lines = [{"id": str(n), "title": title} for n, title in enumerate(["红色连衣裙", "蓝色雨伞"])]
    table = tmp_path / "titles.jsonl"
    table.write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    where = tmp_path / "index"
    assert xmr("index", "build", table, where, "--checkpoint", place / "runs/a").code == 0
    found = xmr("search", "红色连衣裙", "--index", where, "--of", "titles", "--json").json()
    assert found["results"][0]["hits"][0]["id"] == "0"
    nothing = xmr("search", "红色连衣裙", "--index", where)
    assert nothing.code == 2
    assert "has an image" in nothing.err
    assert "--of titles" in nothing.err


def test_the_index_of_the_newest_run_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_index() == "index"  # so that the error names it
    for number, run in enumerate(["old", "new"]):
        folder = tmp_path / "runs" / run / "index"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    assert find_index() == "runs/new/index"
    (tmp_path / "index").mkdir()
    assert find_index() == "index"


def test_a_search_says_that_it_made_a_damaged_vector_cache_again(
    here: Path, xmr: Callable[..., Any], tmp_path: Path
) -> None:
    copied = shutil.copytree(here / "index", tmp_path / "index")
    before = xmr("search", "红色碎花裙", "--index", copied, "--json")
    (segments,) = copied.rglob("image/segments.json")
    segments.write_text("{")
    run = xmr("search", "红色碎花裙", "--index", copied, "--json")
    assert run.json()["results"] == before.json()["results"]
    assert "damaged" in run.err
    assert str(segments.parent) in run.err
    assert xmr("search", "红色碎花裙", "--index", copied).err == ""
