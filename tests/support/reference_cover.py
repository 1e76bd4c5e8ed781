"""The cost of the cheapest cover of a title, by trying every last bag of every beginning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from bagformer_cli.text import cover, cover_arrays, patterns
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
def small_segmenter(content: str = ENTRIES) -> Segmenter:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "entries.tsv"
        path.write_text(content, "utf-8")
        return Segmenter(Lexicon.load([path]))


@cache
def shipped() -> Segmenter:
    return Segmenter(Lexicon.load())


def cut(title: str, content: str = ENTRIES) -> list[str]:
    return [bag.text for bag in small_segmenter(content).segment(title)]


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
    lexicon, piece = small_segmenter().lexicon.arrays, text[start:end]
    if kinds[start] == SPACE:
        return
    entry, heads, suffixes = plain_entries()
    if piece in entry:
        yield lexicon.cost[entry[piece]]
    found = patterns_from(text, kinds, start)
    head, suffix = heads.get(piece[-1]), suffixes.get(piece[-1])
    if (head or suffix) and fine(text, kinds, end - 1):
        takes = lexicon.follows[entry[piece[:-1]]] if piece[:-1] in entry else 0
        for extra, bit in ((head, cover_arrays.TAKES_HEAD), (suffix, cover_arrays.TAKES_SUFFIX)):
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
    lexicon = small_segmenter().lexicon
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
