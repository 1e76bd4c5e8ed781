"""The segmenter: a cover of any text, the cheapest one, of one title alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.text import cover, patterns, segmenter
from bagformer_cli.text import jit as kernels
from bagformer_cli.text.characters import (
    DIGIT,
    LATIN,
    MARK,
    OTHER,
    SPACE,
    class_table,
    fold,
    is_blank,
    without_invisible,
)
from bagformer_cli.text.costs import KIND_COST
from bagformer_cli.text.dictionaries import RULES
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Bag, Segmenter

ENTRIES = """\
红色\tcolour\t20
碎花\tpattern\t10
连衣裙\tcategory\t8
衣\t-\t8
裙\tcategory\t8
动车\t-\t8
电动车\tcategory\t8
电动\tfunction\t10
手机\tcategory\t8
手机壳\tcategory\t8
消毒\tfunction\t8
led\tcategory\t8
加厚\tfunction\t10
包邮\tselling\t15
calvin klein\tbrand\t4
304不锈钢\tmaterial\t10
不锈钢\tmaterial\t15
壳\thead\t370
柜\thead\t370
灯\thead\t370
子\thead\t10
款\tsuffix\t100
件\tunit
袋\tunit
盒\tunit
g\tunit
mm\tunit
元\tunit
折\tunit
包\tunit
成新\tunit
型\tunit
"""

ALPHABET = (
    "红色碎花连衣裙电动车手机壳消毒柜灯件袋墙饰贝儿欣第三款 a1led3g02m./*-:+x×ＡＢ１calvin klein"
    "加厚包邮子满买送减打折元码sl~"
)
TITLES = st.text(
    st.one_of(
        st.sampled_from(ALPHABET),
        st.sampled_from("　\n\té́\u200d\ufe0f👩🏽👧🇨🇳ש\u202eمहि한ガ\x00\ufffd\ud83d①"),
        st.characters(),
    ),
    max_size=50,
)


@cache
def _small(content: str = ENTRIES) -> Segmenter:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "entries.tsv"
        path.write_text(content, "utf-8")
        return Segmenter(Lexicon.load([path]))


@cache
def shipped() -> Segmenter:
    return Segmenter(Lexicon.load())


def cut(title: str, content: str = ENTRIES) -> list[str]:
    return [bag.text for bag in _small(content).segment(title)]


# --- any text ------------------------------------------------------------------------------------


def assert_cover(title: str, bags: list[Bag]) -> None:
    end = 0
    for bag in bags:
        assert end <= bag.start < bag.end
        assert is_blank(title[end : bag.start])
        assert bag.text == title[bag.start : bag.end]
        assert not bag.text[0].isspace()
        assert not bag.text[-1].isspace()
        assert not is_blank(bag.text)
        end = bag.end
    assert is_blank(title[end:])


@given(TITLES)
@settings(max_examples=300, deadline=None)
def test_bags_cover_any_text_in_order_without_overlap(title: str) -> None:
    assert_cover(title, _small().segment(title))


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
    assert_cover(title, _small().segment(title))


@given(st.lists(TITLES, max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_title_is_cut_alone_as_in_any_batch(titles: list[str]) -> None:
    packed = _small().segment_batch(titles)
    assert packed.offsets[0] == 0
    assert packed.offsets[-1] == len(packed.starts)
    assert _small().unpack(titles, packed) == [_small().segment(title) for title in titles]


@given(TITLES, st.text("红绿裙子机壳a1墙贝儿", min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_an_entry_changes_no_title_that_does_not_hold_it(title: str, entry: str) -> None:
    more = _small(ENTRIES + f"{entry}\tadded\t9\n")
    bags = more.segment(title)
    assert_cover(title, bags)
    if entry not in fold(without_invisible(title)):
        assert bags == _small().segment(title)


def test_compiled_and_plain_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    titles = ["".join(rng.choice(list(ALPHABET + "\u0301👗"), 30)) for _ in range(200)]
    plain = shipped().segment_batch(titles)
    monkeypatch.setattr(kernels, "COMPILE_FROM", 1)
    compiled = shipped().segment_batch(titles)
    for name in ("starts", "ends", "kinds", "types", "offsets", "costs"):
        assert np.array_equal(getattr(plain, name), getattr(compiled, name)), name


# --- the cheapest cover, against an obvious one ---------------------------------------------------


def reference_cost(title: str) -> float:
    """The cost of the cheapest cover, by trying every last bag of every beginning."""
    title = without_invisible(title)
    text, kinds = fold(title), kinds_of(title)
    best = [0.0] + [float("inf")] * len(text)
    for end in range(1, len(text) + 1):
        if kinds[end - 1] == SPACE:
            best[end] = best[end - 1]
        for start in range(end):
            if fine(text, kinds, start) and fine(text, kinds, end):
                for cost in costs(text, kinds, start, end):
                    best[end] = min(best[end], best[start] + cost)
    return best[-1]


def costs(text: str, kinds: list[int], start: int, end: int) -> Iterator[float]:
    lexicon, piece = _small().lexicon.arrays, text[start:end]
    if kinds[start] == SPACE:
        return
    entry, heads, suffixes = plain_entries()
    if piece in entry:
        yield lexicon.cost[entry[piece]]
    found = patterns_from(text, kinds, start)
    head, suffix = heads.get(piece[-1]), suffixes.get(piece[-1])
    if (head or suffix) and fine(text, kinds, end - 1):
        takes = lexicon.follows[entry[piece[:-1]]] if piece[:-1] in entry else 0
        for extra, bit in ((head, cover.TAKES_HEAD), (suffix, cover.TAKES_SUFFIX)):
            if extra and takes & bit:
                yield lexicon.cost[entry[piece[:-1]]] + extra + KIND_COST[patterns.COMPOUND]
        if (end - 1, KIND_COST[patterns.LETTERS], True) in found:
            yield KIND_COST[patterns.LETTERS] + (head or suffix) + KIND_COST[patterns.COMPOUND]
    ideographs = all(kinds[at] == OTHER and fine(text, kinds, at) for at in range(start + 1, end))
    if ideographs and kinds[start] == OTHER and 2 <= len(piece) <= cover.LONGEST_NAME:
        yield KIND_COST[patterns.NAME] + len(piece) * KIND_COST[cover.NAME_CHARACTER]
        if head and len(piece) == 2:
            yield head + KIND_COST[cover.PAIR]
    for to, cost, _ in found:
        if to == end:
            yield cost
    if not any(fine(text, kinds, at) for at in range(start + 1, end)):
        yield KIND_COST[patterns.TOKEN] * len(piece)


@cache
def plain_entries() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """The entries with their index, heads and suffixes with their cost."""
    lexicon = _small().lexicon
    plain = [e.word for e in lexicon.entries() if e.type not in RULES]
    heads, suffixes = (
        {chr(code): int(costs[code]) for code in np.flatnonzero(costs)}
        for costs in (lexicon.arrays.head, lexicon.arrays.suffix)
    )
    return {word: i for i, word in enumerate(plain)}, heads, suffixes


def kinds_of(title: str) -> list[int]:
    kinds: list[int] = []
    for character in title.encode("utf-32-le", "surrogatepass").decode("utf-32-le", "replace"):
        kind = int(class_table()[ord(character)])
        follows = kind == MARK and kinds and kinds[-1] != SPACE
        kinds.append(kinds[-1] if follows else kind)
    return kinds


def fine(text: str, kinds: list[int], at: int) -> bool:
    if at in (0, len(text)) or SPACE in (kinds[at - 1], kinds[at]):
        return True
    marks = class_table()[ord(text[at])] == MARK or text[at - 1] == "\u200d"
    return not marks and not (kinds[at - 1] == kinds[at] and kinds[at] in (LATIN, DIGIT))


# The patterns as regular expressions. A mark inside a word or number stands as ı or ٠ there.
L, D = "[a-zı]", "[0-9٠]"
NUMBER = f"{D}+(?:[.]{D}+)?"
UNIT = "(?:成新|mm|[件袋盒g元折包型])"
COUNT = f"(?:{NUMBER}|[一二三四五六七八九十百千两半]{{1,4}}+)"
SIZE = f"(?:{D}+x+|x*)[sml](?!{L}|{D})码?+"
PIECES = [
    "12", "1.5", "1/2", "三", "第", "件", "g", "mm", "袋", "成新", "型", "*", "x", "-", "/", ":",
    "+", "满", "买", "减", "送", "打", "折", "立", "s", "xl", "m", "码", "led", "a", "灯", "款",
    ".", " ", "'",
]  # fmt: skip


def match(pattern: str, text: str, at: int) -> int:
    """Where ``pattern`` ends that begins at ``at`` (``at`` itself where it does not)."""
    found = re.compile(pattern).match(text, at)
    return found.end() if found else at


def patterns_from(title: str, kinds: list[int], start: int) -> set[tuple[int, int, bool]]:
    """End and cost of every match of a pattern that begins at ``start``; whether it is a word."""
    stand_in = {LATIN: "ı", DIGIT: "٠"}
    text = "".join(
        character if character.isascii() or class_table()[ord(character)] != MARK
        else stand_in.get(kind, character)
        for character, kind in zip(title, kinds, strict=True)
    )  # fmt: skip
    found: set[tuple[int, int]] = set()
    if kinds[start] == LATIN:
        found |= {(end, patterns.LETTERS) for end in words(text, kinds, start)}
        if (end := match(f"{L}(?!{L})[型字级款版类码]", text, start)) > start:
            found.add((end, patterns.MODEL))
        if (end := match(f"[mφ]{NUMBER}[*×]{NUMBER}{UNIT}?", text, start)) > start:
            found.add((end, patterns.QUANTITY))
    if kinds[start] == DIGIT:
        found |= set(amounts(text, start))
    if kinds[start] in (LATIN, DIGIT):
        size = match(SIZE, text, start)
        sizes = match(f"{SIZE}[-~–—]{SIZE}", text, start)
        if sizes > start or text[start:size].endswith("码"):
            found.add((max(size, sizes), patterns.QUANTITY))
        for joints in range(16):
            run = f"(?:{L}|{D})++(?:[-._](?:{L}|{D})++){{{joints}}}"
            end = match(run, text, start)
            if re.search(L, text[start:end]) and re.search(D, text[start:end]):
                found.add((with_pluses(text, kinds, end), patterns.MODEL))
    if text[start] in "第一二三四五六七八九十百千两半":
        end = match(f"第?(?>{COUNT}){UNIT}", text, start)
        found |= {(end, patterns.COUNTED)} if end > start else set()
    priced = set()
    for end, kind in found:
        glued = kind == patterns.NUMBER and (
            match(L, text, end) > end or re.search(f"(?<!{L}){L}$", text[:start]) is not None
        )
        cost = KIND_COST[kind] + (KIND_COST[cover.GLUED] if glued else 0)
        priced.add((end, cost, kind == patterns.LETTERS))
    for end in offers(text, start):
        priced.add((end, KIND_COST[patterns.OFFER], False))
        unit = match(UNIT, text, end)
        cost = KIND_COST[patterns.OFFER] + KIND_COST[patterns.QUANTITY]
        priced.add((unit, cost, False))
    return priced


def words(text: str, kinds: list[int], start: int) -> Iterator[int]:
    for joints in range(16):
        end = match(f"{L}++(?:['’&.+_-]{L}++){{{joints}}}", text, start)
        if end > start:
            yield with_pluses(text, kinds, end)


def with_pluses(text: str, kinds: list[int], end: int) -> int:
    """Two plus signs, or one that nothing follows, belong to the word before them."""
    last = match("[+]+", text, end)
    follows = last < len(text) and kinds[last] in (LATIN, DIGIT, OTHER)
    return end if last - end < 2 and follows else last


def amounts(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Numbers, and quantities such as 8-12mm, 1/2袋, 120g/盒, 3件-6件, 100g*12袋."""
    end, kind = match(NUMBER, text, start), patterns.NUMBER
    while True:
        yield end, kind
        for _ in range(patterns.MOST_JOINED):
            end = match(f"[-~–—:]{NUMBER}", text, end)
            yield end, kind
        fraction = re.compile(f"/({D}+)").match(text, end)
        if fraction and int(fraction[1][:3]) in (2, 4, 8, 16, 32):
            end = fraction.end()
        unit = match(UNIT, text, end)
        if unit > end:
            kind = patterns.QUANTITY
            yield unit, kind
            end = match(f"/(?=[^a-z]){UNIT}", text, unit)
            both = re.compile(f"[-~–—]{NUMBER}({UNIT})").match(text, unit)
            if both and both[1][-1] == text[unit - 1]:
                end = both.end()
            yield end, kind
        after = match(f"[*x×](?={D})", text, end)
        if after == end:
            return
        end, kind = match(NUMBER, text, after), patterns.QUANTITY


def offers(text: str, start: int) -> Iterator[int]:
    head = match(f"[满买拍充](?>{COUNT})(?>{UNIT}?)", text, start)
    if head == start:
        return
    verb = match("[立即再就]?[减送打返赠发得享]", text, head)
    if verb == head and text[start] == "满":
        verb = match("[立即再就]?-", text, head)
    end = match(COUNT, text, verb) if verb > head else match(f"(?>{COUNT})折", text, head)
    if end > max(verb, head):
        yield end


@given(
    st.text(st.one_of(st.sampled_from(ALPHABET), st.sampled_from("\u0301👩\u200d　")), max_size=16)
)
@settings(max_examples=250, deadline=None)
def test_the_cost_is_that_of_the_reference(title: str) -> None:
    assert _small().segment_batch([title]).costs[0] == reference_cost(title)


@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
@settings(max_examples=250, deadline=None)
def test_the_cost_of_numbers_sizes_and_offers_is_that_of_the_reference(title: str) -> None:
    assert _small().segment_batch([title]).costs[0] == reference_cost(title)


# --- worked by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "bags"),
    [
        ("红色碎花连衣裙", "红色|碎花|连衣裙"),
        ("电动车", "电动车"),  # not 电|动车
        ("ＬＥＤ灯", "ＬＥＤ灯"),  # full width matches, a latin word takes a head
        ("消毒柜", "消毒柜"),  # an entry with a head
        ("墙饰 红色", "墙饰|红色"),  # what no entry explains stays together
        ("贝儿欣手机", "贝儿欣|手机"),
        ("手机壳", "手机壳"),
        ("Calvin Klein手机", "Calvin Klein|手机"),
        ("304不锈钢", "304不锈钢"),
        ("100g*12袋", "100g*12袋"),
        ("8-12mm", "8-12mm"),
        ("120g/盒", "120g/盒"),
        ("2件红色", "2件|红色"),
        ("5XL", "5XL"),
        ("A4", "A4"),
        ("iPhone15Pro手机壳", "iPhone15Pro|手机壳"),
        ("711632e1-91b80", "711632e1-91b80"),
        ("l'oreal", "l'oreal"),
        ("coca-cola 2.5g", "coca-cola|2.5g"),
        ("M8*30红色", "M8*30|红色"),
        ("M8*30mm", "M8*30mm"),
        ("1.8x2.0mm", "1.8x2.0mm"),  # x is no unit before a number
        ("0-3-6件", "0-3-6件"),
        ("1:64车", "1:64|车"),
        ("1/2袋", "1/2袋"),
        ("6/7袋", "6|/|7袋"),  # two sizes, not a fraction
        ("26g7", "26g7"),  # a model, not 26 g and 7
        ("3mm2g", "3mm|2g"),
        ("第2件 三件", "第2件|三件"),
        ("A字裙", "A字|裙"),
        ("加厚款 手机款 手机子", "加厚款|手机|款|手机子"),  # a suffix is no part of a product
        ("LED款", "LED款"),
        ("9成新 9.5成新", "9成新|9.5成新"),
        ("12型 A型", "12型|A型"),
        ("满199减20", "满199减20"),
        ("满3件打8折 满三件打八折 满3件8折包邮", "满3件打8折|满三件打八折|满3件8折|包邮"),
        ("满300元-40元 买2件送1件 拍3立减5", "满300元-40元|买2件送1件|拍3立减5"),
        ("满2件减9包邮", "满2件减9|包邮"),  # not 9包
        ("买2件 满3件", "买|2件|满|3件"),  # no offer yet
        ("S码-XXL XS-3XL XL码 2XL-4XL", "S码-XXL|XS-3XL|XL码|2XL-4XL"),
        ("3m 3m-5m", "3m|3m-5m"),
        ("1-2-3-4件 2g-5g 2g-5件", "1-2-3-4件|2g-5g|2g|-|5件"),
        ("SPF50+PA+++ 1g", "SPF50|+|PA+++|1g"),
        ("2g+3g", "2g|+|3g"),
        ("ledx", "ledx"),  # never inside a word
        ("1304不锈钢", "1304|不锈钢"),  # never inside a number
        ("裙\u0301", "裙\u0301"),  # a mark stays with its character
        ("👩\u200d👧红色", "👩\u200d|👧|红色"),  # one token joins them in the end
        ("  红色\u3000\n裙 ", "红色|裙"),
        ("", ""),
        (" \t", ""),
    ],
)
def test_worked_by_hand(title: str, bags: str) -> None:
    assert "|".join(cut(title)) == bags


@pytest.mark.parametrize(
    ("title", "source", "kind"),
    [
        ("红色", "lexicon", "colour"),
        ("2件", "pattern", "quantity"),
        ("第三件", "pattern", "quantity"),
        ("2.5", "pattern", "number"),
        ("a4", "pattern", "model"),
        ("adidas", "pattern", "latin"),
        ("消毒柜", "pattern", "compound"),
        ("贝儿欣", "pattern", "name"),
        ("★", "token", None),
    ],
)
def test_a_bag_says_what_found_it(title: str, source: str, kind: str | None) -> None:
    assert [(b.source, b.type) for b in _small().segment(title)] == [(source, kind)]


@pytest.mark.parametrize(
    "expected",
    [
        "蓝色│包", "红色│裙", "红色│连衣裙", "蓝色│双肩包", "深蓝色│包", "格子│包", "条纹│裤",
        "新款│蓝色│包│包邮", "红色│裙│2件",
        "蓝色款",  # a suffix is no product
        "消毒柜", "棉布裙", "加绒裤",  # material or function with a head: the name of a product
        "碎花裙",  # a product of the dictionary
    ],
)  # fmt: skip
def test_a_colour_and_a_pattern_are_bags_before_a_product_of_any_length(expected: str) -> None:
    title = expected.replace("│", "")
    assert [bag.text for bag in shipped().segment(title)] == expected.split("│")


def test_no_colour_joins_a_head_unless_the_dictionary_has_the_word() -> None:
    entries = list(shipped().lexicon.entries())
    words = {entry.word for entry in entries}
    heads = [entry.word for entry in entries if entry.type == "head"]
    looks = [e.word for e in entries if e.type in ("colour", "pattern") and len(e.word) == 2]
    titles = [look + head for look in looks for head in heads if look + head not in words]
    packed = shipped().segment_batch(titles)
    assert len(titles) > 10_000
    joined = [title for title, n in zip(titles, np.diff(packed.offsets), strict=True) if n < 2]
    assert not joined


def test_a_colour_with_a_head_costs_what_one_bag_would() -> None:
    """Only the bags of a title change, not how the rest of it is cut."""
    apart, joined = (
        _small(f"蓝色\t{kind}\t20\n包\thead\t300\n").segment_batch(["蓝色包"])
        for kind in ("colour", "material")
    )
    assert apart.costs.tolist() == joined.costs.tolist()
    assert [apart.offsets.tolist(), joined.offsets.tolist()] == [[0, 2], [0, 1]]


def test_an_unknown_character_matches_no_entry() -> None:
    entries = "窬裙\tcategory\t8\n红裙\tcategory\t8\n"
    assert cut("👗裙", entries) == ["👗", "裙"]
    assert cut("窬裙", entries) == ["窬裙"]


def test_types_come_from_the_shipped_dictionaries() -> None:
    bags = shipped().segment("回力 女童红色纯棉碎花连衣裙 韩版 夏季 包邮 iPhone15Pro 304不锈钢")
    assert {b.text: b.type for b in bags if b.source == "lexicon"} == {
        "回力": "brand",
        "女童": "audience",
        "红色": "colour",
        "纯棉": "material",
        "碎花": "pattern",
        "连衣裙": "category",
        "韩版": "style",
        "夏季": "season",
        "包邮": "selling",
        "304不锈钢": "material",
    }


@pytest.mark.parametrize(
    "bags",
    [
        "裙子|女 帽子|女 鞋子|女|新款",  # not 子女
        "笔记本|电脑包|皮 东北|非|转基因",
        "9成新 95新 99新 九成新",
        "86型|开关 三星|手机 6星",
        "韩国|东大门 5g|全网通 3d|打印机 全球购 11选5",
        "B族|维生素 南韩丝 kt猫 三得利 v脸 0糖|0脂 适用于|小米 粉紫色",
        "冷暖型 修身型 拉链式 便捷式 少女款 情侣款 兔笼子 矮凳子 宿舍用 狗用",
        "满199减20 满三件打八折 买一送一|口红 S码-XXL",
    ],
)
def test_cut_as_a_reader_would(bags: str) -> None:
    titles = bags.split(" ")
    packed = shipped().segment_batch([title.replace("|", "") for title in titles])
    found = shipped().unpack([title.replace("|", "") for title in titles], packed)
    assert ["|".join(bag.text for bag in title) for title in found] == titles


def test_the_fingerprint_follows_the_lexicon() -> None:
    other = _small(ENTRIES + "裤\tcategory\n")
    assert other.fingerprint != _small().fingerprint
    assert segmenter.VERSION in other.fingerprint
