"""``xmr search --fusion`` as a user runs it, and in Python."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

from bagformer_cli.errors import InputError
from bagformer_cli.index.search import Index
from bagformer_cli.index.synonyms import read_synonyms


@pytest.mark.parametrize("query", ["第7款", "第７款", "Ｔ恤 第7款"])
@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_a_rare_word_decides(index: Index, query: str, fusion: str) -> None:
    found = index.search(query, fusion=fusion, lexical_weight=0.9, k=3)
    assert found.hits[0].id == "sku7"
    assert found.hits[0].lexical_rank == 1
    assert found.hits[0].stage == "fused"
    assert found.plan[-1]["stage"] == "fusion"


def test_each_part_keeps_its_score_and_rank(index: Index) -> None:
    plain = {hit.id: hit for hit in index.search("T恤 第3款", k=12)}
    fused = index.search("T恤 第3款", fusion="rrf", k=12)
    assert len(fused.hits) == 12
    for hit in fused:
        assert hit.fast == pytest.approx(plain[hit.id].fast, abs=1e-5)
        assert hit.fast_rank == plain[hit.id].rank
        expected = 1 / (60 + hit.fast_rank)
        expected += 1 / (60 + hit.lexical_rank) if hit.lexical_rank else 0
        assert hit.score == pytest.approx(expected, rel=1e-5)
    shirts = {f"sku{n}" for n in range(1, 12, 2)}
    assert shirts <= {hit.id for hit in fused if hit.lexical is not None}


def test_a_filter_applies_to_both_parts(index: Index) -> None:
    found = index.search("第7款", fusion="rrf", where="price < 5", k=12)
    assert {hit.id for hit in found} == {f"sku{n}" for n in range(5)}
    assert all(hit.id != "sku7" for hit in found)


def test_several_queries_are_fused_as_one_by_one(index: Index) -> None:
    from bagformer_cli.index.search_options import SearchOptions

    queries = ["第1款", "！！红", "连衣裙 第4款"]
    options = SearchOptions(fusion="rrf", k=5)
    together = index.search_many(queries, options)
    for query, found in zip(queries, together, strict=True):
        alone = index.search(query, fusion="rrf", k=5)
        assert [hit.id for hit in found] == [hit.id for hit in alone]
        np.testing.assert_allclose(
            [hit.score for hit in found], [hit.score for hit in alone], rtol=1e-5
        )


def test_a_synonym_finds_what_the_word_does_not(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text("短袖上衣 => T恤\n", "utf-8")
    known = read_synonyms(file, index.encoder.titles.segmenter)
    plain = index.search("短袖上衣", fusion="rrf", k=12)
    assert not any(hit.lexical for hit in plain)
    found = index.search("短袖上衣", fusion="rrf", k=12, synonyms=known)
    assert {hit.id for hit in found if hit.lexical} == {f"sku{n}" for n in range(1, 12, 2)}


def test_a_misspelt_word_is_corrected(
    here: Path, index: Index, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = index.search("连衣群", fusion="rrf", k=2)
    assert found.suggestion == "连衣裙"
    assert len(found.hits) == 2
    run = xmr("search", "连衣群", "--fusion", "rrf", "--json")
    assert run.json()["results"][0]["suggestion"] == "连衣裙"
    run = xmr("search", "连衣群", "--fusion", "rrf")
    assert "Did you mean: 连衣裙" in run.err
    # 连衣裤 is a word of the dictionary, though no title has it.
    assert index.search("连衣裤", fusion="rrf", k=2).suggestion is None


def test_the_table_shows_both_parts(here: Path, xmr: Callable[..., Any]) -> None:
    run = xmr("search", "第5款", "--fusion", "weighted", "-k", 3, "--profile")
    assert run.code == 0, run.err
    assert "words" in run.out
    assert "rank 1" in run.out
    assert "fusion: weighted" in run.out


def test_images_and_wrong_weights_are_refused(here: Path, index: Index) -> None:
    with pytest.raises(InputError, match="no words"):
        index.search(image=here / "photos/5.png", fusion="rrf")
    with pytest.raises(InputError, match="out of range"):
        index.search("红", fusion="weighted", lexical_weight=1.5)
    with pytest.raises(InputError, match="no such fusion"):
        index.search("红", fusion="sum")


def test_an_older_index_gets_its_words_from_the_next_add(
    place: Path, xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "index"
    shutil.copytree(place / "index", old)
    lancedb.connect(str(old)).open_table("items").drop_columns(["title_terms"])
    monkeypatch.chdir(place)
    run = xmr("search", "第7款", "--fusion", "rrf", "--index", old)
    assert run.code == 2
    assert "holds no terms" in run.err
    assert "xmr index add" in run.err
    before = xmr("search", "第7款", "--index", old, "--json").json()["results"]
    more = tmp_path / "more.csv"
    more.write_text(f"id,image,title\nnew,{place}/photos/1.png,新词 毛衣\n", "utf-8")
    run = xmr("index", "add", more, old)
    assert run.code == 0, run.err
    run = xmr("search", "第7款", "--fusion", "rrf", "--index", old, "--json")
    assert run.json()["results"][0]["hits"][0]["id"] == "sku7"
    run = xmr("search", "新词", "--fusion", "rrf", "--index", old, "--json")
    assert run.json()["results"][0]["hits"][0]["id"] == "new"
    assert xmr("index", "remove", old, "new").code == 0
    assert xmr("search", "第7款", "--index", old, "--json").json()["results"] == before


def test_a_catalogue_without_titles_has_no_words(
    place: Path, xmr: Callable[..., Any], tmp_path: Path
) -> None:
    model = place / "runs/a/best"
    run = xmr("index", "build", place / "photos", tmp_path / "index", "--checkpoint", model)
    assert run.code == 0, run.err
    run = xmr("search", "红", "--fusion", "rrf", "--index", tmp_path / "index",
              "--checkpoint", model)  # fmt: skip
    assert run.code == 2
    assert "No product of this index has a title" in run.err


def test_an_empty_index_is_called_empty(
    place: Path, xmr: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    shutil.copytree(place / "index", tmp_path / "index")
    assert xmr("index", "remove", tmp_path / "index", "--where", "price >= 0").code == 0
    run = xmr("search", "红", "--fusion", "rrf", "--index", tmp_path / "index")
    assert run.code == 2
    assert "The index is empty" in run.err
