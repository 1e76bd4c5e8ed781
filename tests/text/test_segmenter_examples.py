"""The segmenter on titles worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bagformer_cli.text import segmenter
from tests.support.reference_cover import ENTRIES, cut, shipped, small_segmenter


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
    assert [(b.source, b.type) for b in small_segmenter().segment(title)] == [(source, kind)]


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
        small_segmenter(f"蓝色\t{kind}\t20\n包\thead\t300\n").segment_batch(["蓝色包"])
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
    other = small_segmenter(ENTRIES + "裤\tcategory\n")
    assert other.fingerprint != small_segmenter().fingerprint
    assert segmenter.VERSION in other.fingerprint
