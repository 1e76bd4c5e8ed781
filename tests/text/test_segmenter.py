"""The segmenter: a cover of any text, the cheapest one, of one title alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.text import jit as kernels
from bagformer_cli.text.characters import fold, without_invisible
from tests.support.reference_cover import (
    ALPHABET,
    ENTRIES,
    PIECES,
    TITLES,
    assert_cover,
    reference_cost,
    shipped,
    small_segmenter,
)


@given(TITLES)
@settings(max_examples=300, deadline=None)
def test_bags_cover_any_text_in_order_without_overlap(title: str) -> None:
    assert_cover(title, small_segmenter().segment(title))


LONG = {
    "words": "红色连衣裙" * 2000,
    "letters": "a" * 10_000,
    "digits": "1" * 10_000,
    "emoji": "👩\u200d👧" * 3000,
    "marks": "e\u0301\u0301" * 3000,
    "spaces": " " * 10_000,
    "unknown": "弌" * 10_000,
    "decimals": "1." * 5000,
    "products": "1*" * 5000,
    "hyphens": "a-" * 5000,
}


@pytest.mark.parametrize("title", LONG.values(), ids=LONG)
def test_ten_thousand_characters_are_covered(title: str) -> None:
    assert_cover(title, small_segmenter().segment(title))


@given(st.lists(TITLES, max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_title_is_cut_alone_as_in_any_batch(titles: list[str]) -> None:
    packed = small_segmenter().segment_batch(titles)
    assert packed.offsets[0] == 0
    assert packed.offsets[-1] == len(packed.starts)
    assert small_segmenter().unpack(titles, packed) == [
        small_segmenter().segment(title) for title in titles
    ]


@given(TITLES, st.text("红绿裙子机壳a1墙贝儿", min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_an_entry_changes_no_title_that_does_not_hold_it(title: str, entry: str) -> None:
    more = small_segmenter(ENTRIES + f"{entry}\tadded\t9\n")
    bags = more.segment(title)
    assert_cover(title, bags)
    if entry not in fold(without_invisible(title)):
        assert bags == small_segmenter().segment(title)


def test_compiled_and_plain_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    titles = ["".join(rng.choice(list(ALPHABET + "\u0301👗"), 30)) for _ in range(200)]
    plain = shipped().segment_batch(titles)
    monkeypatch.setattr(kernels, "COMPILE_FROM", 1)
    compiled = shipped().segment_batch(titles)
    for name in ("starts", "ends", "kinds", "types", "offsets", "costs"):
        assert np.array_equal(getattr(plain, name), getattr(compiled, name)), name


@given(
    st.text(st.one_of(st.sampled_from(ALPHABET), st.sampled_from("\u0301👩\u200d　")), max_size=16)
)
@settings(max_examples=250, deadline=None)
def test_the_cost_is_that_of_the_reference(title: str) -> None:
    assert small_segmenter().segment_batch([title]).costs[0] == reference_cost(title)


@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
@settings(max_examples=250, deadline=None)
def test_the_cost_of_numbers_sizes_and_offers_is_that_of_the_reference(title: str) -> None:
    assert small_segmenter().segment_batch([title]).costs[0] == reference_cost(title)
