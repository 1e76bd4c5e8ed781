"""Terms of titles and queries, synonyms, suggestions, and the fusion of two rankings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.errors import DataError, InputError
from bagformer_cli.index.ranking import FusedTerms, Ranking, TermHits, fuse
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


# --------------------------------------------------------------------------------------- fusion


def ranking(*names: str, scores: list[float]) -> Ranking:
    return Ranking.by_late_interaction(np.array(names, object), np.array(scores, np.float32))


def terms(*names: str, scores: list[float], fast: list[float]) -> FusedTerms:
    hits = TermHits(np.array(names, object), np.array(scores, np.float32))
    return FusedTerms(hits, np.array(fast, np.float32))


def test_reciprocal_ranks_by_hand() -> None:
    late = ranking("a", "b", "c", scores=[6.0, 5.0, 4.0])
    fused = fuse(late, terms("c", "x", scores=[9.0, 3.0], fast=[4.0, 1.0]), "rrf", 0.5, 10)
    assert fused.keys.tolist() == ["c", "a", "b", "x"]  # b and x: equal, b has more MaxSim
    np.testing.assert_allclose(fused.scores, [1 / 63 + 1 / 61, 1 / 61, 1 / 62, 1 / 62], rtol=1e-6)
    assert fused.fast_rank.tolist() == [3, 1, 2, 0]
    assert fused.lexical_rank.tolist() == [1, 0, 0, 2]


def test_a_weighted_sum_by_hand() -> None:
    late = ranking("a", "b", scores=[6.0, 5.0])
    lexical = terms("b", "x", scores=[8.0, 4.0], fast=[5.0, 2.0])
    fused = fuse(late, lexical, "weighted", 0.25, 10)
    assert fused.keys.tolist() == ["b", "a", "x"]
    expected = [0.75 * 0.5 + 0.25, 0.75 * 0.6, 0.75 * 0.2 + 0.25 * 0.5]
    np.testing.assert_allclose(fused.scores, expected, rtol=1e-6)
    assert fused.fast.tolist() == [5.0, 6.0, 2.0]
    assert np.isnan(fused.lexical[1])


def test_a_weight_of_zero_or_one_is_one_part_alone() -> None:
    late = ranking("a", "b", scores=[6.0, 5.0])
    lexical = terms("b", "x", scores=[8.0, 4.0], fast=[5.0, 2.0])
    assert fuse(late, lexical, "weighted", 0.0, 1).keys.tolist() == ["a", "b", "x"]
    assert fuse(late, lexical, "weighted", 1.0, 1).keys.tolist()[:2] == ["b", "x"]


def test_without_a_term_the_order_is_that_of_late_interaction() -> None:
    late = ranking("a", "b", scores=[6.0, 5.0])
    none = terms(scores=[], fast=[])
    for fusion in ("rrf", "weighted"):
        assert fuse(late, none, fusion, 0.5, 3).keys.tolist() == ["a", "b"]  # type: ignore[arg-type]
