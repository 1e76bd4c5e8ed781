"""Titles, queries and dictionaries as people have them: what cannot be seen changes nothing."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.black_box import DATA, Shop, assert_no_bug, assert_refused, is_named

INVISIBLE = ["\u200b", "\u200c", "\u200e", "\u2060", "\ufeff", "\u00ad", "\ufe0f"]
NAMES = [f"U+{ord(character):04X}" for character in INVISIBLE]
TITLE = "红色碎花连衣裙 iPhone15 2件装"


def bags(xmr: Callable[..., Any], *titles: str, options: tuple[object, ...] = ()) -> list[Any]:
    """Texts of the bags of each title."""
    run = xmr("bags", *titles, *options, "--json")
    assert run.code == 0, run.err
    return [[bag["text"] for bag in line["bags"]] for line in run.lines()]


def bags_of_file(xmr: Callable[..., Any], file: Path, *options: object) -> dict[str, list[str]]:
    run = xmr("bags", "--input", file, *options, "--json")
    assert run.code == 0, run.err
    return {line["text"]: [bag["text"] for bag in line["bags"]] for line in run.lines()}


# Invisible characters.


@pytest.mark.parametrize("character", INVISIBLE, ids=NAMES)
@pytest.mark.parametrize("at", [0, 1, 4, 7, 9, 16, len(TITLE)])
def test_an_invisible_character_changes_no_vector(retriever: Any, character: str, at: int) -> None:
    with_it = TITLE[:at] + character + TITLE[at:]
    # One by one: with several threads, equal rows of one batch may differ in the last bit.
    first, second = (retriever.encode_texts([title]).values for title in (TITLE, with_it))
    assert first.shape == second.shape
    assert torch.equal(first, second)


@pytest.mark.parametrize("character", INVISIBLE, ids=NAMES)
@pytest.mark.parametrize("at", [0, 1, 4, 7, len(TITLE)])
def test_an_invisible_character_changes_no_bag(
    xmr: Callable[..., Any], character: str, at: int
) -> None:
    with_it = TITLE[:at] + character + TITLE[at:]
    plain, other = bags(xmr, TITLE, with_it)
    assert [text.replace(character, "") for text in other] == plain
    run = xmr("bags", with_it, "--json")
    line = run.lines()[0]
    for bag in line["bags"]:
        assert line["text"][bag["start"] : bag["end"]] == bag["text"]


def test_a_query_of_invisible_characters_alone_is_refused(shop: Shop) -> None:
    shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    run = shop.xmr("search", "\u200b\ufeff", "--index", shop.index)
    assert_refused(run)


def test_a_title_of_invisible_characters_alone_is_no_title(shop: Shop) -> None:
    table = shop.write("t.csv", "id,image,title\na0,,\u200b\ufeff\na1,p1.jpg,红裙\n")
    run = shop.build(table)
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert is_named(run.json()["skipped"], 2, "a0")


@pytest.mark.parametrize("character", INVISIBLE, ids=NAMES)
def test_dictionaries_and_titles_meet_in_spite_of_invisible_characters(
    xmr: Callable[..., Any], tmp_path: Path, character: str
) -> None:
    lexicon = tmp_path / "words.txt"
    lexicon.write_text(f"潮玩{character}盲盒\n", "utf-8")
    found = bags(xmr, "潮玩盲盒正品", options=("--lexicon", lexicon, "--no-builtin"))[0]
    assert found[0] == "潮玩盲盒"


# Full-width letters and digits.


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("ｉＰｈｏｎｅ１５手机", "iPhone15手机"),
        ("２件装", "2件装"),
        ("ＮＩＫＥ　红鞋", "NIKE 红鞋"),
        ("５０％棉", "50%棉"),
    ],
)
def test_full_width_reaches_the_model_folded(retriever: Any, wide: str, narrow: str) -> None:
    first = retriever.encode_texts([wide]).values
    second = retriever.encode_texts([narrow]).values
    assert first.shape == second.shape
    assert torch.equal(first, second)


def test_full_width_and_half_width_titles_have_the_same_bags(xmr: Callable[..., Any]) -> None:
    wide, narrow = bags(xmr, "ｉＰｈｏｎｅ１５手机２件装", "iPhone15手机2件装")
    assert list(map(len, wide)) == list(map(len, narrow))


# Half an emoji, bytes that are not text.


@pytest.mark.parametrize("file", ["sur.jsonl", "jsur.jsonl", "jsur2.jsonl", "jsur3.jsonl"])
@pytest.mark.parametrize("command", ["index build", "data import", "encode"])
def test_half_an_emoji_costs_its_own_row(shop: Shop, command: str, file: str) -> None:
    table = shop.case("11-surrogates-and-names") / file
    if command == "index build":
        run = shop.build(table)
        assert_no_bug(run)
        assert run.code == 0, run.err
        titles = {one["title"] for one in shop.products().values()}
        assert titles & {"蓝裤", "蓝"}
        assert len(titles) == 2 or is_named(run.json()["skipped"], 1, "p0.jpg")
        return
    out = shop.folder / "out"
    if command == "data import":
        run = shop.xmr("data", "import", table, "--out", out, "--json")
    else:
        run = shop.xmr("encode", table, "--out", out, "--checkpoint", shop.model, "--json")
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert out.is_dir()
    run.err.encode()
    run.out.encode()


@pytest.mark.parametrize("broken", ["title", "id", "image", "brand", "the name of a field"])
@pytest.mark.parametrize(
    "half",
    [
        "\\ud800",
        pytest.param("\\udfff", marks=pytest.mark.slow),
        pytest.param("\\ud83d", marks=pytest.mark.slow),
        "\\u0000",
    ],
)
def test_half_a_character_in_any_field_costs_its_own_row(
    shop: Shop, half: str, broken: str
) -> None:
    row = {"id": "bad", "image": "p1.jpg", "title": "白鞋", "brand": "某牌"}
    bad = json.dumps(row, ensure_ascii=False)
    if broken == "the name of a field":
        bad = bad.replace('"brand"', f'"brand{half}"')
    else:
        bad = bad.replace(json.dumps(row[broken], ensure_ascii=False)[:-1],
                          json.dumps(row[broken], ensure_ascii=False)[:-1] + half, 1)  # fmt: skip
    good = [{"id": f"a{n}", "image": f"p{n}.jpg", "title": "红裙", "brand": "乙"} for n in (0, 2)]
    lines = [json.dumps(good[0]), bad, json.dumps(good[1])]
    run = shop.build(shop.write("t.jsonl", "\n".join(lines) + "\n"))
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert {"a0", "a2"} <= set(shop.products())
    assert len(shop.products()) == 3 or is_named(run.json()["skipped"], 2, "bad")


def test_a_line_of_titles_that_is_not_utf8_is_named(
    xmr: Callable[..., Any], tmp_path: Path
) -> None:
    titles = tmp_path / "t.txt"
    titles.write_bytes("红裙\n".encode() + b"\xed\xa0\xbd\n" + "蓝裤\n".encode())
    run = xmr("bags", "--input", titles, "--json")
    assert_no_bug(run)
    assert is_named([run.err], 2, "t.txt:2")


# jieba's user dictionaries.


EXPECTED = {
    "潮玩盲盒小熊猫联名": ["潮玩盲盒", "小熊猫联名"],
    "冰丝凉感裤男": ["冰丝凉感裤", "男"],
    "奶盖杯": ["奶盖杯"],
    "凯特琳奶盖杯": ["凯特琳", "奶盖杯"],
    "Edu Trust认证": ["Edu Trust认证"],
}
ENTRIES = {
    "d_jieba_all.txt": {"潮玩盲盒", "小熊猫联名", "冰丝凉感裤"},
    "d_jieba_one.txt": {"潮玩盲盒", "奶盖杯"},
    "d_jieba_mixed.txt": {bag for found in EXPECTED.values() for bag in found} - {"男"},
}


# Each dictionary is merged with the built-in one, which takes seconds.
@pytest.mark.parametrize(
    "builtin", [pytest.param(True, marks=pytest.mark.slow), False], ids=["with built-in", "alone"]
)
@pytest.mark.parametrize("name", ENTRIES)
def test_every_line_of_a_jieba_dictionary_is_an_entry(
    xmr: Callable[..., Any], name: str, builtin: bool
) -> None:
    folder = DATA / "04-jieba-user-dict"
    options = () if builtin else ("--no-builtin",)
    found = bags_of_file(xmr, folder / "t.txt", "--lexicon", folder / name, *options)
    for title, expected in EXPECTED.items():
        for bag in expected:
            if bag in ENTRIES[name]:
                assert bag in found[title], (bag, found[title])


LINES = {
    "潮玩盲盒": "潮玩盲盒",
    "奶盖杯 5": "奶盖杯",
    "凯特琳 nz": "凯特琳",
    "冰丝凉感裤 300 nz": "冰丝凉感裤",
    "Edu Trust认证 2000": "Edu Trust认证",
    "Love Live手办 3 nz": "Love Live手办",
}


@pytest.mark.parametrize("order", list(itertools.permutations(LINES, 2)))
def test_any_two_kinds_of_lines_stand_in_one_dictionary(
    xmr: Callable[..., Any], tmp_path: Path, order: tuple[str, str]
) -> None:
    lexicon = tmp_path / "user.txt"
    lexicon.write_text("\n".join(order) + "\n", "utf-8")
    titles = [f"{LINES[line]}正品" for line in order]
    found = bags(xmr, *titles, options=("--lexicon", lexicon, "--no-builtin"))
    assert [one[0] for one in found] == [LINES[line] for line in order]


@pytest.mark.parametrize("line", ["冰丝凉感裤  300  nz", "冰丝凉感裤 300 ", " 冰丝凉感裤 300 nz"])
def test_blanks_part_the_fields_of_a_line(
    xmr: Callable[..., Any], tmp_path: Path, line: str
) -> None:
    lexicon = tmp_path / "user.txt"
    lexicon.write_text(f"{line}\n奶盖杯 5\n", "utf-8")
    found = bags(xmr, "冰丝凉感裤男", options=("--lexicon", lexicon, "--no-builtin"))
    assert found[0][0] == "冰丝凉感裤"


# Plain word lists.


WORDS = ["空军一号", "小白鞋女", "冰丝凉感", "红色碎花连衣裙", "两件套装", "iPhone手机壳"]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("before", ["", "新款"])
@pytest.mark.parametrize("after", ["", "正品"])
def test_a_word_list_wins_over_built_in_parts(
    xmr: Callable[..., Any], tmp_path: Path, word: str, before: str, after: str
) -> None:
    lexicon = tmp_path / "mine.txt"
    lexicon.write_text("\n".join(WORDS) + "\n", "utf-8")
    assert word in bags(xmr, before + word + after, options=("--lexicon", lexicon))[0]


def test_a_word_list_of_one_word_wins(xmr: Callable[..., Any], tmp_path: Path) -> None:
    lexicon = tmp_path / "mine.txt"
    lexicon.write_text("空军一号\n", "utf-8")
    assert bags(xmr, "空军一号", "耐克空军一号运动鞋", options=("--lexicon", lexicon)) == [
        ["空军一号"],
        ["耐克", "空军一号", "运动鞋"],
    ]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("\ufeff空军一号\n奶盖杯\n", "a byte-order mark"),
        ("空军一号\n\n奶盖杯\n", "an empty line"),
        ("空军一号\n奶盖杯\n空军一号\n", "a repeated line"),
        ("空军一号\r\n奶盖杯\r\n", "line ends of Windows"),
        ("空军一号\n奶盖杯", "no line end"),
        ("\ufeff空军一号\n \n空军一号\n奶盖杯\n\n", "all of them"),
    ],
)
@pytest.mark.parametrize(
    "command", ["bags", pytest.param("dict check", marks=pytest.mark.slow), "dict stats"]
)
def test_what_harms_nobody_in_a_dictionary_is_a_warning(
    xmr: Callable[..., Any], tmp_path: Path, command: str, content: str, kind: str
) -> None:
    lexicon = tmp_path / "mine.txt"
    lexicon.write_bytes(content.encode())
    if command == "bags":
        found = bags(xmr, "空军一号", "奶盖杯", options=("--lexicon", lexicon, "--no-builtin"))
        assert found == [["空军一号"], ["奶盖杯"]]
    else:
        run = xmr(*command.split(), lexicon)
        assert_no_bug(run)
        assert run.code == 0, (run.out, run.err)


def test_a_titles_file_with_a_mark_begins_with_its_first_character(
    xmr: Callable[..., Any], tmp_path: Path
) -> None:
    titles = tmp_path / "t.txt"
    titles.write_text("\ufeff红色连衣裙\n", "utf-8")
    found = bags_of_file(xmr, titles)
    assert next(iter(found.values())) == bags(xmr, "红色连衣裙")[0]


# What Python callers hand in.


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, b"bytes", ["list"]], ids=repr)
def test_a_title_that_is_no_text_is_one_error_with_its_position(
    retriever: Any, wrong: object
) -> None:
    with pytest.raises(Exception, match=r"\b[12]\b") as caught:
        retriever.encode_texts(["红裙", wrong])
    assert isinstance(caught.value, (TypeError, ValueError)) or type(
        caught.value
    ).__module__.startswith("bagformer_cli")


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, ["list"]], ids=repr)
def test_an_image_that_is_none_is_one_error_with_its_position(
    retriever: Any, wrong: object
) -> None:
    with pytest.raises(Exception, match=r"\b[01]\b") as caught:
        retriever.encode_images([wrong])
    assert isinstance(caught.value, (TypeError, ValueError)) or type(
        caught.value
    ).__module__.startswith("bagformer_cli")


def test_a_generator_of_titles_is_read_or_explained(retriever: Any) -> None:
    titles = ["红裙", "蓝裤"]
    message = None
    try:
        found = retriever.encode_texts(title for title in titles)
    except Exception as error:
        message = str(error)
    if message is None:
        assert torch.equal(found.values, retriever.encode_texts(titles).values)
    else:
        assert "list" in message
        assert "has no len" not in message


@pytest.mark.parametrize("wrong", [None, 7, float("nan")])
def test_bags_of_no_text_is_one_error(retriever: Any, wrong: object) -> None:
    with pytest.raises(Exception, match=r"str|text|title") as caught:
        retriever.bags(wrong)
    assert not isinstance(caught.value, AttributeError)
    assert "NoneType" not in str(caught.value) or "title" in str(caught.value)


# Titles that are cut.


LONG = "红色碎花连衣裙" * 8


def said_to_be_cut(text: str) -> bool:
    return bool(re.search(r"25 tokens|longer than|max_tokens|\bcut\b", text))


def test_search_says_that_a_query_is_cut(shop: Shop) -> None:
    shop.built(shop.write("t.csv", "id,image,title\na0,p0.jpg,红裙\n"))
    run = shop.xmr("search", LONG, "--index", shop.index)
    assert run.code == 0, run.err
    assert said_to_be_cut(run.err)


@pytest.mark.parametrize("command", ["index build", "encode"])
def test_titles_that_are_cut_are_counted(shop: Shop, command: str) -> None:
    table = shop.write(
        "t.csv", f"id,image,title\na0,p0.jpg,{LONG}\na1,p1.jpg,红裙\na2,p2.jpg,{LONG}尾\n"
    )
    if command == "index build":
        run = shop.build(table)
    else:
        run = shop.xmr("encode", table, "--out", shop.folder / "v", "--checkpoint", shop.model)
    assert run.code == 0, run.err
    assert said_to_be_cut(run.err)
    assert re.search(r"\b2\b", run.err)
