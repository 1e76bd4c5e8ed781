"""Terms of titles and queries, synonyms, suggestions, and the fusion of two rankings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.errors import DataError, InputError
from bagformer_cli.index.postings import Postings
from bagformer_cli.index.ranking import (
    FusedTerms,
    Fusion,
    FusionRule,
    Ranking,
    TermHits,
    fuse,
    within_reach,
)
from bagformer_cli.index.spelling import suggest
from bagformer_cli.index.synonyms import WEIGHT, read_synonyms
from bagformer_cli.index.terms import query_terms, title_terms
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(Lexicon.load())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("紅色連衣裙", "红色连衣裙"),
        ("ＳＥＮＹＡ　ＲＸ－５８０Ｓ", "senya rx-580s"),
        ("WH-1000XM5", "wh1000xm5"),
        ("Café 杯", "CAFE 杯"),
        ("红\u200b色", "红色"),
        ("【青禾里】红色", "青禾里，红色！"),
    ],
)
def test_forms_of_one_text_have_the_same_terms(one: str, other: str, segmenter: Segmenter) -> None:
    assert query_terms(segmenter, one) == query_terms(segmenter, other) != []


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("iPhone 15 Pro", "iPhone15 Pro", "iphone15"),
        ("内存32 GB", "内存 32GB", "32gb"),
        ("RX 580S", "RX580S", "rx580s"),
    ],
)
def test_codes_are_found_with_and_without_a_space(
    one: str, other: str, shared: str, segmenter: Segmenter
) -> None:
    assert shared in query_terms(segmenter, one)
    assert shared in query_terms(segmenter, other)


def test_neighbours_that_are_no_code_are_not_joined(segmenter: Segmenter) -> None:
    assert query_terms(segmenter, "Sony WH-1000XM5") == ["sony", "wh1000xm5"]
    assert query_terms(segmenter, "Pro Max") == ["pro", "max"]


def test_titles_keep_their_places(segmenter: Segmenter) -> None:
    titles = [None, "红色连衣裙", "！！", "", "42码 T恤"]
    assert title_terms(segmenter, titles) == [None, "红色 连衣裙", "", "", "42码 t恤"]


@given(text=st.text(max_size=40))
def test_terms_have_no_space_and_no_capital(text: str, segmenter: Segmenter) -> None:
    made = query_terms(segmenter, text)
    assert all(term and term == term.lower() and not term.isspace() for term in made)
    assert " ".join(made).split() == made


# ------------------------------------------------------------------------------------- postings


def test_postings_score_as_bm25_by_hand() -> None:
    titles = ["a b", "a a c", None, "", "c"]
    postings = Postings.of_titles(np.array([9, 3, 5, 7, 1], np.uint64), pa.array(titles))

    def score(df: int, tf: int, length: int) -> float:
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / 2))

    found = postings.find({"a": 1.0, "c": 0.5, "none": 1.0}, 10, None)
    expected = {3: score(2, 2, 3) + 0.5 * score(2, 1, 3), 9: score(2, 1, 2), 1: score(2, 1, 1) / 2}
    assert found.keys.tolist() == sorted(expected, key=lambda key: -expected[key])
    np.testing.assert_allclose(found.scores, sorted(expected.values(), reverse=True), rtol=1e-5)
    assert postings.find({"a": 1.0}, 1, None).keys.tolist() == [3]
    assert postings.find({"a": 1.0}, 9, np.array([1, 0, 1, 1, 1], bool)).keys.tolist() == [9]
    assert postings.find({"none": 1.0}, 9, None).keys.tolist() == []


def test_postings_of_no_titles() -> None:
    for titles in ([], [None, ""]):
        keys = np.arange(len(titles), dtype=np.uint64)
        postings = Postings.of_titles(keys, pa.array(titles, pa.string()))
        assert len(postings.find({"a": 1.0}, 3, None).keys) == 0


# ------------------------------------------------------------------------------------- synonyms


def test_synonyms_of_both_forms(tmp_path: Path, segmenter: Segmenter) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text("# fruit\n番茄， 西红柿\n\n苹果手机 => iPhone, ＩＰＨＯＮＥ15\n", "utf-8")
    known = read_synonyms(file, segmenter)
    assert known.expand(["番茄"]) == {"番茄": 1.0, "西红柿": WEIGHT}
    assert known.expand(["西红柿", "红色"]) == {"西红柿": 1.0, "红色": 1.0, "番茄": WEIGHT}
    assert known.expand(["iphone"]) == {"iphone": 1.0}
    left = query_terms(segmenter, "苹果手机")
    assert known.expand([*left, "红色"]).keys() >= {"iphone", "iphone15"}


@pytest.mark.parametrize("query", ["新款 iPhone 15 红", "iPhone15", "iphone 15 pro max"])
@pytest.mark.parametrize("word", ["iPhone 15", "iPhone15"])
def test_synonyms_of_a_code_are_found_in_both_forms(
    word: str, query: str, tmp_path: Path, segmenter: Segmenter
) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text(f"{word} => 苹果手机\npro max => 大屏\n", "utf-8")
    found = read_synonyms(file, segmenter).expand(query_terms(segmenter, query))
    assert found.keys() >= set(query_terms(segmenter, "苹果手机"))
    assert ("大屏" in "".join(found)) == ("max" in query)


@pytest.mark.parametrize(
    ("text", "line"),
    [("番茄\n", 1), ("a, b\n=> c\n", 2), ("a =>\n", 1), ("a => b => c\n", 1), ("a, A\n", 1)],
)
def test_a_line_without_synonyms_is_named(
    text: str, line: int, tmp_path: Path, segmenter: Segmenter
) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        read_synonyms(file, segmenter)
    assert str(caught.value.where).endswith(f"synonyms.txt:{line}")


def test_a_file_without_synonyms_is_refused(tmp_path: Path, segmenter: Segmenter) -> None:
    file = tmp_path / "synonyms.txt"
    with pytest.raises(InputError):
        read_synonyms(file, segmenter)
    file.write_text("# nothing\n", "utf-8")
    with pytest.raises(DataError, match="no synonyms"):
        read_synonyms(file, segmenter)


# ---------------------------------------------------------------------------------- suggestions

COUNTS = {"连衣裙": 9, "连衣": 1, "夏季": 5, "新款": 3, "senya": 2, "rx580s": 1, "红": 7}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["连", "衣", "群"], "连衣裙"),
        (["连衣群"], "连衣裙"),
        (["senia"], "senya"),
        (["rx508s"], "rx580s"),  # two neighbours exchanged count as one error
        (["连衣群", "senia"], "连衣裙 senya"),
        (["夏季", "senia"], None),  # a word was found
        (["群"], None),  # one character is near to every other
        (["xyz"], None),
    ],
)
def test_suggestions(terms: list[str], expected: str | None) -> None:
    assert suggest(terms, COUNTS) == expected


def test_a_word_of_a_dictionary_becomes_only_a_longer_one() -> None:
    counts = {"橙色": 3, "连衣裙": 2}
    assert suggest(["蓝色"], counts) == "橙色"
    assert suggest(["蓝色"], counts, ["蓝色"]) is None
    assert suggest(["衣裙"], counts, ["衣裙"]) == "连衣裙"


# --------------------------------------------------------------------------------------- fusion


RRF = FusionRule("rrf", 0.5)
VECTORS = 10  # of a query


def ranking(*names: str, scores: list[float]) -> Ranking:
    fast = np.array(scores, np.float32)
    return Ranking.by_late_interaction(np.array(names, object), fast, fast / VECTORS)


def terms(*names: str, scores: list[float], fast: list[float]) -> FusedTerms:
    hits = TermHits(np.array(names, object), np.array(scores, np.float32))
    own = np.array(fast, np.float32)
    return FusedTerms(hits, own, own / VECTORS)


def test_reciprocal_ranks_by_hand() -> None:
    late = ranking("a", "b", "c", scores=[6.0, 5.0, 4.0])
    fused = fuse(late, terms("c", "x", scores=[9.0, 3.0], fast=[4.0, 1.0]), RRF)
    assert fused.keys.tolist() == ["c", "a", "b", "x"]  # b and x: equal, b has more MaxSim
    np.testing.assert_allclose(fused.scores, [1 / 63 + 1 / 61, 1 / 61, 1 / 62, 1 / 62], rtol=1e-6)
    assert fused.fast_rank.tolist() == [3, 1, 2, 0]
    assert fused.lexical_rank.tolist() == [1, 0, 0, 2]


def test_a_weighted_sum_by_hand() -> None:
    late = ranking("a", "b", scores=[6.0, 5.0])
    lexical = terms("b", "x", scores=[8.0, 4.0], fast=[5.0, 2.0])
    fused = fuse(late, lexical, FusionRule("weighted", 0.25))
    assert fused.keys.tolist() == ["b", "a", "x"]
    expected = [0.75 * 0.5 + 0.25, 0.75 * 0.6, 0.75 * 0.2 + 0.25 * 0.5]
    np.testing.assert_allclose(fused.scores, expected, rtol=1e-6)
    assert fused.fast.tolist() == [5.0, 6.0, 2.0]
    assert np.isnan(fused.lexical[1])


def test_a_weight_of_zero_or_one_is_one_part_alone() -> None:
    late = ranking("a", "b", scores=[6.0, 5.0])
    lexical = terms("b", "x", scores=[8.0, 4.0], fast=[5.0, 2.0])
    assert fuse(late, lexical, FusionRule("weighted", 0.0)).keys.tolist() == ["a", "b", "x"]
    assert fuse(late, lexical, FusionRule("weighted", 1.0)).keys.tolist()[:2] == ["b", "x"]


def test_without_a_term_the_order_is_that_of_late_interaction() -> None:
    late = ranking("a", "b", scores=[6.0, 5.0])
    none = terms(scores=[], fast=[])
    for rule in (RRF, FusionRule("weighted", 0.5)):
        assert fuse(late, none, rule).keys.tolist() == ["a", "b"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_rows_out_of_reach_are_not_among_the_best(seed: int, fusion: Fusion) -> None:
    random = np.random.default_rng(seed)
    rows, depth, k = 40, 12, 5
    fast = random.normal(size=rows).astype(np.float32)
    bm25 = np.sort(random.random(rows).astype(np.float32))[::-1]
    names = np.array([f"p{n}" for n in range(rows)], object)
    best = np.argsort(-fast)[:depth]
    late = Ranking.by_late_interaction(names[best], fast[best], fast[best] / 4)
    shuffled = random.permutation(rows)
    hits = TermHits(names[shuffled][:depth], bm25[:depth])
    rule = FusionRule(fusion, float(random.random()))
    every = fuse(late, FusedTerms(hits, fast[shuffled][:depth], fast[shuffled][:depth] / 4), rule)
    reached = within_reach(late, hits, rule, k)
    some = np.where(reached, fast[shuffled][:depth], np.float32(np.nan)).astype(np.float32)
    found = fuse(late, FusedTerms(hits, some, some / 4), rule)
    assert found.keys[:k].tolist() == every.keys[:k].tolist()
    np.testing.assert_array_equal(found.lexical_rank[:k], every.lexical_rank[:k])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_a_later_page_has_the_order_of_the_earlier_ones(seed: int, fusion: Fusion) -> None:
    random = np.random.default_rng(seed)
    rows, depth = 60, 12
    # Whole numbers: many rows score the same.
    fast = random.integers(0, 20, rows).astype(np.float32)
    bm25 = np.sort(random.integers(1, 6, depth).astype(np.float32))[::-1]
    # Equal scores are in the order of a scan, which is not that of the keys after an upsert.
    names = random.permutation(np.array([f"p{n:02}" for n in range(rows)], object))
    by_fast = np.argsort(-fast, kind="stable")
    by_terms = random.permutation(rows)[:depth]
    rule = FusionRule(fusion, float(random.random() * (seed > 1)), depth)
    hits = TermHits(names[by_terms], bm25)
    lexical = FusedTerms(hits, fast[by_terms], fast[by_terms] / 4)

    def pages(read: int) -> list[str]:
        """Fuse ``read`` rows by late interaction with those by terms."""
        own = fast[by_fast[:read]]
        late = Ranking.by_late_interaction(names[by_fast[:read]], own, own / 4)
        return list(fuse(late, lexical, rule).keys[:read])

    every = pages(rows)
    for read in (depth, depth + 1, 24, 50):
        assert pages(read) == every[:read]
