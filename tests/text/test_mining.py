"""Mining: what is frequent, coherent and free becomes an entry, from any size of file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.text.dictionaries import read_dictionary
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tools import mine as mining
from bagformer_cli.text.tools.check import Coverage, coverage
from bagformer_cli.text.tools.count_min import CountMinSketch
from bagformer_cli.text.tools.mine import MiningLimits, mine
from bagformer_cli.text.tools.mined import MinedWord, write_mined
from bagformer_cli.text.tools.vet import guess_type, is_fragment, vet
from tests.support.remarks import Remarks

KNOWN = ["红色", "蓝色", "连衣裙", "手机", "短袖", "包邮", "夏季", "女装", "收纳", "厨房"]
BRANDS = ["茗熔鸿", "戚酆"]


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    path = tmp_path / "known.tsv"
    path.write_text("".join(f"{word}\tword\t50\n" for word in KNOWN), "utf-8")
    return Segmenter(Lexicon.load([path]))


def pile(titles: int, seed: int = 0) -> list[str]:
    """Titles of known words with unknown brands in varying places."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(titles):
        words = list(rng.choice(KNOWN, 4))
        if rng.random() < 0.5:
            words.insert(int(rng.integers(0, 5)), str(rng.choice(BRANDS)))
        made.append("".join(words))
    return made


def test_unknown_brands_are_found_and_known_words_are_not(segmenter: Segmenter) -> None:
    titles = pile(400)
    found = mine(lambda: titles, segmenter)
    assert {word.word for word in found.words} == set(BRANDS)
    assert found.titles == 400
    for word in found.words:
        assert word.count == sum(word.word in title for title in titles)
        assert word.freedom > 1.5


def test_what_always_stands_in_one_place_is_not_free(segmenter: Segmenter) -> None:
    titles = [f"红色茗熔鸿连衣裙{word}" for word in KNOWN * 10]
    assert mine(lambda: titles, segmenter).words == []


def test_the_edge_of_a_title_is_a_free_side(segmenter: Segmenter) -> None:
    titles = [f"茗熔鸿{word}连衣裙" for word in KNOWN] * 5 + [
        f"红色{word}戚酆" for word in KNOWN
    ] * 5
    assert {word.word for word in mine(lambda: titles, segmenter).words} == {"茗熔鸿", "戚酆"}


def test_a_title_that_is_repeated_is_no_word(segmenter: Segmenter) -> None:
    titles = ["茗熔鸿连衣裙"] * 30
    assert mine(lambda: titles, segmenter).words == []


def test_what_is_rare_is_left_out(segmenter: Segmenter) -> None:
    titles = pile(400)
    count = Counter(brand for title in titles for brand in BRANDS if brand in title)
    least = min(count.values())
    found = mine(lambda: titles, segmenter, MiningLimits(count=least + 1))
    assert [word.word for word in found.words] == [max(count, key=lambda brand: count[brand])]


def test_the_order_of_reading_in_chunks_changes_nothing(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = pile(300)
    whole = mine(lambda: titles, segmenter)
    monkeypatch.setattr(mining, "chunks", lambda lines: _by(7, lines))
    assert mine(lambda: titles, segmenter) == whole


def _by(size: int, lines: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(lines), size):
        yield lines[start : start + size]


def test_memory_is_bounded_by_the_number_of_candidates(segmenter: Segmenter) -> None:
    titles = [f"红色{chr(0x4E00 + i)}{chr(0x5E00 + j)}连衣裙" for i in range(30) for j in range(30)]
    limits = MiningLimits(count=2, candidates=100)
    titles = titles * 2 + ["手机茗熔鸿收纳", "厨房茗熔鸿包邮", "夏季茗熔鸿女装"] * 20
    remarks = Remarks()
    found = mine(lambda: titles, segmenter, limits, progress=remarks)
    assert [word.word for word in found.words] == ["茗熔鸿"]
    (warning,) = remarks.warnings
    assert "100 candidates" in warning


def test_a_sketch_never_counts_too_little() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 1 << 63, 5000).astype(np.uint64)
    times = rng.integers(1, 6, 5000)
    sketch = CountMinSketch()
    sketch.add(np.repeat(hashes, times))
    found = sketch[hashes].astype(int)
    assert (found >= times).all()
    assert (found == times).mean() > 0.99


def test_scores_are_in_nats(segmenter: Segmenter) -> None:
    titles = pile(400)
    total = mine(lambda: titles, segmenter)
    for word in total.words:
        assert word.cohesion <= math.log(total.pieces) + 1e-9
        assert word.freedom <= math.log(mining.BUCKETS)
        assert word.score == math.log(word.count) * word.cohesion * word.freedom


def test_a_mined_dictionary_can_be_used(segmenter: Segmenter, tmp_path: Path) -> None:
    titles = pile(400)
    found = mine(lambda: titles, segmenter)
    path = tmp_path / "mined.tsv"
    write_mined(path, found.words, found.pieces, "titles.txt")
    dictionary = read_dictionary(path)
    assert set(dictionary.words) == set(BRANDS)
    assert all(dictionary.complete)
    grown = Segmenter(Lexicon.load([path]))
    assert [bag.source for bag in grown.segment("茗熔鸿")] == ["lexicon"]
    assert mine(lambda: titles, Segmenter(Lexicon.load([tmp_path / "known.tsv", path]))).words == []


def test_coverage_counts_what_covers_titles(segmenter: Segmenter) -> None:
    found = coverage(segmenter, ["红色连衣裙", "茗熔鸿 a4 红色", "★"])
    assert found == Coverage(
        titles=3,
        characters=Counter(lexicon=7, pattern=5, token=1),
        bags=Counter(lexicon=3, pattern=2, token=1),
        types=Counter(word=3, name=1, model=1),
        used=2,
        unknown=Counter({"茗熔鸿": 1}),
    )


def test_xmr_dict_mine(xmr: Callable[..., Any], tmp_path: Path) -> None:
    titles, out = tmp_path / "titles.txt", tmp_path / "mined.tsv"
    known = tmp_path / "known.tsv"
    known.write_text("".join(f"{word}\tword\t50\n" for word in KNOWN), "utf-8")
    titles.write_text("\n".join(pile(400)), "utf-8")
    run = xmr(
        "dict", "mine", titles, "--out", out, "--no-builtin", "--lexicon", known, "--json"
    )  # fmt: skip
    assert run.code == 0
    assert {word["word"] for word in run.json()["words"]} == set(BRANDS)
    assert set(read_dictionary(out).words) == set(BRANDS)
    assert xmr("dict", "mine", tmp_path / "missing.txt").code == 2


KNOWN_TYPES = {"婴儿": "audience", "儿童": "audience", "彩带": "", "彩条": "", "智能": "function",
               "日本": "place", "茶几": "category"}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "fragment"),
    [
        ("婴儿童", True),  # two known words that overlap
        ("手喷彩带彩条", True),  # a phrase
        ("安卓智能", True),  # a mined word and a known one
        ("日本购", True),  # a place and one character
        ("小茶几", False),
        ("茗熔鸿", False),
        ("安卓", False),
    ],
)
def test_fragments_of_known_words_are_no_words(word: str, fragment: bool) -> None:
    assert is_fragment(word, KNOWN_TYPES, {"安卓"}) == fragment


def test_what_is_mostly_cut_elsewhere_is_left_out(segmenter: Segmenter) -> None:
    word = MinedWord("红色", 10, 5.0, 2.0)
    titles = ["红色连衣裙"] * 20
    assert vet([word], lambda: titles, segmenter.lexicon) == []
    assert len(vet([MinedWord("色连", 10, 5.0, 2.0)], lambda: titles[:12], segmenter.lexicon)) == 1


def test_each_word_has_an_example_and_a_type(segmenter: Segmenter) -> None:
    titles = pile(400)
    for word in mine(lambda: titles, segmenter).words:
        assert word.example in titles
        assert word.word in word.example
    first = [f"茗熔鸿{word}" for word in KNOWN] * 5
    (found,) = mine(lambda: first, segmenter).words
    assert (found.word, found.type) == ("茗熔鸿", "brand")
    assert guess_type("小茶几", KNOWN_TYPES, {}) == "category"
    assert guess_type("东京日本", KNOWN_TYPES, {}) is None
