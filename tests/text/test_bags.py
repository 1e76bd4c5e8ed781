"""Token-aligned bags: packed, selected, joined, cut."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bagformer_cli.text import jit as kernels
from bagformer_cli.text.bags import TitleEncoder, TokenBags
from bagformer_cli.text.cut_titles import CutTitles
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tokenizer import Tokenizer
from tests.support.reference_cover import ENTRIES, TITLES, assert_cover

FIELDS = ("ids", "token_offsets", "bag_starts", "bag_ends", "bag_offsets")


@cache
def encoder(max_tokens: int = 25, add_sep: bool = True) -> TitleEncoder:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "entries.tsv"
        path.write_text(ENTRIES, "utf-8")
        segmenter = Segmenter(Lexicon.load([path]))
    return TitleEncoder(Tokenizer.load(), segmenter, max_tokens, add_sep)


def same(one: TokenBags, other: TokenBags) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in FIELDS
    )


def pieces(bags: TokenBags, title: int = 0) -> list[list[str]]:
    """The vocabulary entries of each bag of a title."""
    own = range(bags.bag_offsets[title], bags.bag_offsets[title + 1])
    vocabulary = encoder().tokenizer.vocabulary
    return [[vocabulary[i] for i in bags.ids[bags.bag_starts[j] : bags.bag_ends[j]]] for j in own]


def test_a_title_worked_by_hand() -> None:
    bags = encoder()(["红色连衣裙 2件"])
    assert pieces(bags) == [["红", "色"], ["连", "衣", "裙"], ["2", "件"]]
    tokenizer = encoder().tokenizer
    assert bags.ids[0] == tokenizer.cls_id
    assert bags.ids[-1] == tokenizer.sep_id
    assert bags.token_offsets.tolist() == [0, 9]
    assert bags.bag_starts.tolist() == [1, 3, 6]
    assert bags.bag_ends.tolist() == [3, 6, 8]
    assert bags.bag_offsets.tolist() == [0, 3]


def test_without_sep_and_cut() -> None:
    bags = encoder(6, False)(["红色连衣裙手机壳"])
    assert len(bags.ids) == 6
    assert pieces(bags) == [["红", "色"], ["连", "衣", "裙"]]
    bags = encoder(6, True)(["红色连衣裙手机壳"])
    assert pieces(bags) == [["红", "色"], ["连", "衣"]]  # the bag at the cut keeps its part


def test_a_bag_grows_to_the_end_of_a_token() -> None:
    # "calvin klein" ends inside "kleinx" for no entry; "led" inside the word ledlamp neither
    bags = encoder().bags("ledlamp红色")
    assert [bag.text for bag in bags] == ["ledlamp", "红色"]
    # ①② is one word piece by piece for WordPiece: [UNK]; two symbols for the segmenter
    assert [bag.text for bag in encoder().bags("★☆红色")] == ["★☆", "红色"]
    assert pieces(encoder()(["👗👗红色"])) == [["[UNK]"], ["红", "色"]]


@pytest.mark.parametrize("title", ["", "  ", "\x01", "\u200d\u200b", "\u0301"])
def test_a_title_without_tokens_is_its_cls(title: str) -> None:
    bags = encoder()([title, "红色"])
    assert pieces(bags) == [["[CLS]"]]
    assert pieces(bags, 1) == [["红", "色"]]


@given(TITLES, st.integers(3, 12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_bags_partition_the_content_tokens(title: str, max_tokens: int, add_sep: bool) -> None:
    if max_tokens < 3 + add_sep:
        max_tokens = 3 + add_sep
    made = encoder(max_tokens, add_sep)
    bags = made([title])
    assert 1 <= len(bags.ids) <= max_tokens
    content = len(bags.ids) - 1 - add_sep
    if content == 0:
        assert (bags.bag_starts.tolist(), bags.bag_ends.tolist()) == ([0], [1])
        return
    assert bags.bag_starts[0] == 1
    assert bags.bag_ends[-1] == 1 + content
    assert np.array_equal(bags.bag_starts[1:], bags.bag_ends[:-1])
    assert (bags.bag_ends > bags.bag_starts).all()


@given(TITLES)
@example("\U000e00000")  # not assigned to a character: BERT makes a token of it
@settings(max_examples=200, deadline=None)
def test_shown_bags_cover_the_title_and_are_those_of_the_score(title: str) -> None:
    shown = encoder(512).bags(title, whole=True)
    assert_cover(title, shown)
    tokens = encoder().tokenizer.encode_batch([title])
    for bag in shown:  # no bag begins or ends inside a token
        assert not ((tokens.starts < bag.start) & (bag.start < tokens.ends)).any()
        assert not ((tokens.starts < bag.end) & (bag.end < tokens.ends)).any()
    packed = encoder(512)([title])
    if len(tokens.ids):
        assert len(shown) == len(packed.bag_starts)
        firsts = packed.bag_starts - 1
        for bag, first, last in zip(shown, firsts, packed.bag_ends - 2, strict=True):
            assert bag.start <= tokens.starts[first]
            assert tokens.ends[last] <= bag.end


def test_shown_bags_stop_where_the_score_stops() -> None:
    title = "红色连衣裙手机壳"
    assert [bag.text for bag in encoder(6, True).bags(title)] == ["红色", "连衣"]
    assert [bag.text for bag in encoder(6, True).bags(title, whole=True)] == [
        "红色",
        "连衣裙",
        "手机壳",
    ]


@given(st.lists(TITLES, max_size=6), st.data())
@settings(max_examples=100, deadline=None)
def test_select_and_concatenate(titles: list[str], data: st.DataObject) -> None:
    bags = encoder()(titles)
    assert len(bags) == len(titles)
    one_by_one = TokenBags.concatenate([encoder()([title]) for title in titles])
    assert same(one_by_one, bags)
    if titles:
        chosen = data.draw(st.lists(st.integers(0, len(titles) - 1), max_size=8))
        assert same(bags.select(chosen), encoder()([titles[i] for i in chosen]))
        assert same(bags.select(np.array(chosen, np.int64)), bags.select(chosen))


def test_concatenating_nothing_is_empty() -> None:
    empty = TokenBags.concatenate([])
    assert len(empty) == 0
    assert same(empty, encoder()([]))


def test_compiled_and_plain_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = ["红色连衣裙 2件", "", "👗👗红色", "x" * 300, "한국 裙"] * 3
    plain = encoder()(titles)
    monkeypatch.setattr(kernels, "COMPILE_FROM", 1)
    assert same(plain, encoder()(titles))


def test_fingerprints_differ_where_results_may() -> None:
    prints = {encoder(*options).fingerprint for options in [(25, True), (25, False), (24, True)]}
    assert len(prints) == 3


@pytest.mark.parametrize("max_tokens", [0, 1, 2])
def test_room_for_a_token_is_needed(max_tokens: int) -> None:
    with pytest.raises(ValueError, match="room"):
        TitleEncoder(encoder().tokenizer, encoder().segmenter, max_tokens, True)


@pytest.mark.shared
def test_ids_are_those_of_the_original(shared: Path) -> None:
    import json

    tokenizer = Tokenizer.load(shared / "data/bert-base-chinese/vocab.txt")
    lines = (shared / "reference/segmenter.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for way, add_sep in (("nosep", False), ("sep", True)):
        made = TitleEncoder(tokenizer, encoder().segmenter, 25, add_sep)
        bags = made([record["text"] for record in records])
        for i, record in enumerate(records):
            ids = bags.ids[bags.token_offsets[i] : bags.token_offsets[i + 1]].tolist()
            assert ids == record[way]["input_ids"][: record[way]["n_tokens"]]


# --- titles that are cut --------------------------------------------------------------------------


def test_cut_titles_are_counted_and_the_longest_is_shown() -> None:
    made = TitleEncoder(encoder().tokenizer, encoder().segmenter, 6, True)
    made(["红裙", "红色连衣裙", "红色连衣裙手机壳", ""])
    made(["红" * 2000])
    found = made.take_cut()
    assert (found.number, found.longest) == (3, 2000)
    assert made.take_cut() == CutTitles()
    said = found.sentence(6)
    assert said.startswith("3 titles are longer than the model's 6 tokens")
    assert "2000 characters" in said
    assert len(said) < 200
    assert CutTitles().sentence(6) == ""
    assert CutTitles.from_json(found._asdict()) == found
    assert CutTitles.from_json(None) == CutTitles.from_json({"number": "x"}) == CutTitles()


@pytest.mark.parametrize("before", ["", " " * 5000, "\u3000\n" * 900])
def test_a_very_long_title_has_the_tokens_of_its_beginning(before: str) -> None:
    title = "红色碎花连衣裙 2件装"
    long, short = encoder()([before + title * 3000]), encoder()([title * 3])
    for name in ("ids", "bag_starts", "bag_ends"):
        assert getattr(long, name).tolist() == getattr(short, name).tolist()
    assert encoder().bags(title * 3000) == encoder().bags(title * 3)


PILES = {
    "letters and digits": "a1" * 20_000,
    "joined": "a1-" * 15_000,
    "times": "3x" * 20_000,
    "plus signs": "a+" * 20_000,
    "marks": "e" + "\u0301" * 40_000,
    "invisible": "\u200b" * 40_000 + "红",
    "offers": "满" * 40_000,
}


@pytest.mark.parametrize("pile", PILES)
def test_time_grows_with_the_length_alone(pile: str) -> None:
    """Four times the characters take about four times as long: none of these is quadratic."""
    title = PILES[pile]
    times = []
    for part in (title[: len(title) // 4], title):
        began = time.process_time()
        encoder().bags(part, whole=True)
        times.append(time.process_time() - began)
    assert times[1] < 9 * times[0] + 0.2
