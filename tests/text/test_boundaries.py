"""Learned boundaries: features, learning, and how bags are cut with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bagformer_cli.errors import DataError, InputError
from bagformer_cli.text import jit
from bagformer_cli.text.bio import MarkedTitle
from bagformer_cli.text.boundaries import TRUST, Boundaries
from bagformer_cli.text.boundary_features import FEATURES, WEIGHTS
from bagformer_cli.text.characters import class_table, codes_of, fold_table
from bagformer_cli.text.costs import KIND_COST, NO_CUTS
from bagformer_cli.text.cover_arrays import PackedBags, Titles
from bagformer_cli.text.lexicon import Lexicon, saved_lexicon
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tools.learn import held_out_quality, learn

COLOURS, SHAPES, GOODS = "红蓝绿黑白黄", "方圆长短大小", "碗盘杯锅壶盆"


def marked(colour: str, shape: str, thing: str) -> MarkedTitle:
    """红 方碗: the last two characters are one span, which no dictionary here knows."""
    return MarkedTitle(1, f"新款{colour}色{shape}{thing}", ((2, 4, "C"), (4, 6, "P")))


def all_titles() -> list[MarkedTitle]:
    return [marked(c, s, g) for c in COLOURS for s in SHAPES for g in GOODS]


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Lexicon:
    path = tmp_path_factory.mktemp("words") / "words.tsv"
    path.write_text("新款\tseason\t100\tx\n红色\tcolour\t100\tx\n", encoding="utf-8")
    return Lexicon.load([path])


@pytest.fixture(scope="module")
def learned(lexicon: Lexicon) -> Boundaries:
    return learn([t for i, t in enumerate(all_titles()) if i % 3], lexicon)


def cut(lexicon: Lexicon, boundaries: Boundaries | None, *titles: str) -> list[str]:
    segmenter = Segmenter(replace(lexicon, boundaries=boundaries))
    bags = segmenter.unpack(titles, segmenter.segment_batch(titles))
    return ["│".join(bag.text for bag in row) for row in bags]


def packed(lexicon: Lexicon, titles: Sequence[str]) -> tuple[Titles, PackedBags]:
    codes, offsets = codes_of(titles)
    texts = Titles(fold_table()[codes], class_table()[codes], offsets)
    return texts, PackedBags(*jit._PLAIN.cover(texts, lexicon.arrays, KIND_COST, NO_CUTS))


def test_words_that_no_dictionary_has_are_learned_from_titles_with_others(
    lexicon: Lexicon, learned: Boundaries
) -> None:
    unseen = [title.text for i, title in enumerate(all_titles()) if i % 3 == 0]
    assert cut(lexicon, None, "新款白色圆壶") != ["新款│白色│圆壶"]
    found = cut(lexicon, learned, *unseen)
    assert found == [f"{text[:2]}│{text[2:4]}│{text[4:]}" for text in unseen]
    before, after = held_out_quality(all_titles(), lexicon)
    assert before.exact_share < 0.6
    assert after.exact_share == 1


def test_no_copy_of_a_held_out_title_is_learned_from(
    lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = all_titles()[:40]
    copies = [titles[n % 7] for n in range(60)] + titles + titles
    used: list[MarkedTitle] = []

    def spy(seen: Sequence[MarkedTitle], *others: Any) -> Boundaries:
        used.extend(seen)
        return learn(seen, *others)

    monkeypatch.setattr("bagformer_cli.text.tools.learn.learn", spy)
    before, _ = held_out_quality(copies, lexicon)
    texts = {title.text for title in titles}
    assert len({title.text for title in used}) == len(texts) * 9 // 10
    held_out = [title for title in copies if title not in used]
    assert before.spans.total() == sum(len(title.spans) for title in held_out) > 0


def test_types_of_entries_and_patterns_stay(lexicon: Lexicon, learned: Boundaries) -> None:
    segmenter = Segmenter(replace(lexicon, boundaries=learned))
    bags = [(bag.text, bag.type) for bag in segmenter.segment("新款红色方碗 2件")]
    assert bags[:2] == [("新款", "season"), ("红色", "colour")]
    assert bags[2][0] == "方碗"
    assert "".join(text for text, _ in bags) == "新款红色方碗2件"


def test_a_title_is_cut_alone_as_among_others_with_spaces_and_invisible_characters(
    lexicon: Lexicon, learned: Boundaries
) -> None:
    titles = ["新款红色方碗", "", "  ", "a1 红\u200b色 方碗", "红", "方碗新款 x"]
    assert cut(lexicon, learned, *titles) == [cut(lexicon, learned, one)[0] for one in titles]
    assert cut(lexicon, learned, "红\u200b色方碗") == ["红\u200b色│方碗"]


TITLE = "新款空军一号红色方碗a1款"


@settings(deadline=None)  # the first example builds the lexicon
@given(st.lists(st.integers(-(10**6), 10**6), min_size=len(TITLE), max_size=len(TITLE)))
def test_no_learned_boundary_takes_a_word_of_the_user_apart(cuts: list[int]) -> None:
    lexicon = own_words("空军一号", "方碗", "方碗a1")
    codes, offsets = codes_of([TITLE])
    texts = Titles(codes, class_table()[codes], offsets)
    found = jit._PLAIN.cover(texts, lexicon.arrays, KIND_COST, np.array(cuts, np.int32))
    edges = {*found[0].tolist(), *found[1].tolist()}
    for word in ("空军一号", "方碗"):
        start, end = TITLE.index(word), TITLE.index(word) + len(word)
        inside = edges & set(range(start + 1, end))
        assert not inside or not {start, end} <= edges  # only a bag over one of its ends may


@cache
def own_words(*words: str) -> Lexicon:
    with TemporaryDirectory() as folder:
        general = Path(folder) / "general.tsv"
        lines = [f"{word}\t-\t900\tx" for word in ("空军", "一号", "新款", "红色", "方", "碗")]
        general.write_text("\n".join(lines), encoding="utf-8")
        own = Path(folder) / "own.txt"
        own.write_text("\n".join(words), encoding="utf-8")
        return Lexicon.load([general, own])


def test_a_word_of_the_user_stays_whole_where_its_parts_were_learned(tmp_path: Path) -> None:
    parts = [
        MarkedTitle(1, f"{c}{n}鞋{s}", ((0, 1, "C"), (1, 3, "B"), (3, 4, "P"), (4, 5, "P")))
        for c in COLOURS
        for n in ("空军", "一号", "海军", "二号")
        for s in SHAPES
    ]
    parts += [
        MarkedTitle(1, f"{c}空军一号{s}", ((0, 1, "C"), (1, 3, "B"), (3, 5, "B"), (5, 6, "P")))
        for c in COLOURS
        for s in SHAPES
    ]
    plain = own_words()
    learned = learn(parts, plain)
    assert cut(plain, learned, "红空军一号方") == ["红│空军│一号│方"]
    own = own_words("空军一号")
    assert cut(own, learned, "红空军一号方") == ["红│空军一号│方"]
    replace(own, boundaries=learned).save(tmp_path / "lexicon.txt")
    again = Lexicon.load(saved_lexicon(tmp_path / "lexicon.txt"))
    assert cut(again, again.boundaries, "红空军一号方") == ["红│空军一号│方"]
    assert again.fingerprint == replace(own, boundaries=learned).fingerprint.split()[0] + (
        f" {learned.fingerprint}"
    )


def test_compiled_and_plain_kernels_give_the_same_features_and_costs(
    lexicon: Lexicon, learned: Boundaries
) -> None:
    titles = ["新款红色方碗 iPhone15 2.5m", "é红色\u0301", "", "a", "短 长"]
    texts, bags = packed(lexicon, titles)
    plain, compiled = jit._PLAIN, jit._compiled()
    features = plain.boundary_features(texts, bags)
    assert features.shape == (len(texts.characters), FEATURES)
    assert features.max() < WEIGHTS
    np.testing.assert_array_equal(features, compiled.boundary_features(texts, bags))
    costs = plain.boundary_costs(texts, bags, learned.costs)
    np.testing.assert_array_equal(costs, compiled.boundary_costs(texts, bags, learned.costs))
    sums = np.where(features < 0, 0, learned.costs[features]).sum(1)
    np.testing.assert_array_equal(costs, sums)
    expected = -1000 * TRUST * learned.weights.astype(np.float64)
    np.testing.assert_allclose(learned.costs, expected, atol=0.5)
    assert (features[texts.offsets[:-1][np.diff(texts.offsets) > 0]] == -1).all()
    np.testing.assert_array_equal(
        compiled.cover(texts, lexicon.arrays, KIND_COST, costs)[0],
        plain.cover(texts, lexicon.arrays, KIND_COST, costs)[0],
    )


def test_a_saved_lexicon_has_its_boundaries_beside_it(
    lexicon: Lexicon, learned: Boundaries, tmp_path: Path
) -> None:
    whole = replace(lexicon, boundaries=learned)
    whole.save(tmp_path / "lexicon.txt")
    again = Lexicon.load(saved_lexicon(tmp_path / "lexicon.txt"))
    assert cut(again, again.boundaries, "新款白色圆壶") == ["新款│白色│圆壶"]
    lexicon.save(tmp_path / "alone.txt")
    alone = Lexicon.load([tmp_path / "alone.txt"])
    assert again.fingerprint != alone.fingerprint


def test_a_damaged_or_foreign_file_is_refused(learned: Boundaries, tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    learned.save(path)
    assert np.array_equal(Boundaries.load(path).weights, learned.weights)
    with pytest.raises(InputError, match="one such file"):
        Lexicon.load(["builtin", path, path])
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="no file of learned boundaries"):
        Lexicon.load([path])
    save_file({"x": np.zeros(3, np.float32)}, path)
    with pytest.raises(DataError, match="no file of learned boundaries"):
        Boundaries.load(path)
    Boundaries(np.full(WEIGHTS, np.nan, np.float16)).save(path)
    with pytest.raises(DataError, match="damaged"):
        Boundaries.load(path)


def test_too_few_marks_are_refused(lexicon: Lexicon) -> None:
    with pytest.raises(DataError, match="too few marked spans"):
        learn(all_titles()[:3], lexicon)


def test_boundaries_are_learned_and_used_from_the_command_line(
    xmr: Callable[..., Any], tmp_path: Path
) -> None:
    def lines(title: MarkedTitle) -> str:
        tags = ["O"] * len(title.text)
        for start, end, label in title.spans:
            tags[start:end] = [f"B-{label}"] + [f"I-{label}"] * (end - start - 1)
        return "".join(f"{c} {t}\n" for c, t in zip(title.text, tags, strict=True)) + "\n"

    gold, out = tmp_path / "gold.txt", tmp_path / "learned.safetensors"
    gold.write_text("".join(map(lines, all_titles())), encoding="utf-8")
    words = tmp_path / "words.tsv"
    words.write_text("新款\tseason\t100\tx\n红色\tcolour\t100\tx\n", encoding="utf-8")
    given = ("--no-builtin", "--lexicon", words)
    train = ("dict", "train", gold, *given, "--out")
    report = xmr(*train, out, "--json").json()
    assert report["titles"] == 216
    assert report["held_out"]["after"]["exact"] > report["held_out"]["before"]["exact"]
    bags = xmr("bags", "新款白色圆壶", *given, "--lexicon", out, "--json").json()["bags"]
    assert [bag["text"] for bag in bags] == ["新款", "白色", "圆壶"]
    refused = xmr(*train, tmp_path / "learned.tsv")
    assert refused.code == 2
    assert "learned.safetensors" in refused.err
