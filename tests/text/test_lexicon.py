"""Dictionaries: formats, errors, merging, the cache, checking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.assets import asset_folder
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.messages import in_language
from bagformer_cli.original.text import WordList
from bagformer_cli.text.characters import fold
from bagformer_cli.text.dictionaries import parse_dictionary, read_dictionary
from bagformer_cli.text.dictionary_lines import TYPES, known_type
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tools.check import check_dictionaries, repair
from bagformer_cli.text.type_names import type_name

Write = Callable[..., Path]


def words(lexicon: Lexicon) -> dict[str, str | None]:
    return {entry.word: entry.type for entry in lexicon.entries()}


def test_a_word_a_line_is_a_ranking(write: Write) -> None:
    dictionary = read_dictionary(write("连衣裙", "iphone 15", "手机壳"))
    assert dictionary.words == ["连衣裙", "iphone 15", "手机壳"]
    assert dictionary.weights == sorted(dictionary.weights, reverse=True)


def test_jiebas_format(write: Write) -> None:
    dictionary = read_dictionary(write("连衣裙 30 n", "杭州 10 ns", "手机" + " 60"))
    assert dictionary.types == [None, "place", None]
    assert dictionary.weights[0] == pytest.approx(3 * dictionary.weights[1])


def test_typed_lines_and_their_defaults(write: Write) -> None:
    dictionary = read_dictionary(
        write("# type: brand", "# weight: 4", "回力", "红色\tcolour", "裙\t-\t9\tmine")
    )
    assert dictionary.types == ["brand", "colour", None]
    assert dictionary.weights == [4, 4, 9]
    assert dictionary.origins == ["words.txt", "words.txt", "mine"]
    assert dictionary.weighed == [False, False, True]
    assert dictionary.complete == [False, False, True]


def test_marked_titles_are_a_dictionary(write: Write) -> None:
    title = ["红 O", "帽 B-HCCX", "子 I-HCCX", "帽 B-HCCX", "子 I-HCCX", "鸿 B-HPPX", ""]
    dictionary = read_dictionary(write(*title))
    assert dict(zip(dictionary.words, dictionary.types, strict=True)) == {
        "帽子": "category",
        "鸿": "brand",
    }
    assert dictionary.weights[0] == 2 * dictionary.weights[1]


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("裙\n".encode() + b"\xff\xfe\xfa\n", 2, "not UTF-8"),
        ("裙\n裤\tcategory\tmuch\n".encode(), 2, "weight"),
        ("裙\n裤\tcategory\t-1\n".encode(), 2, "weight"),
        ("裙\n\tcategory\n".encode(), 2, "no word"),
        ("裙\n裤\tc\t1\to\tx\n".encode(), 2, "4 fields"),
        (f"裙\n{'长' * 65}\n".encode(), 2, "more than 64 characters"),
        ("裙\n\u200b\ufeff\n".encode(), 2, "can be seen"),
        ("裙\n松鹤院,未知类\n裤\n".encode(), 2, "comma"),
    ],
)
def test_a_broken_line_costs_itself_alone(
    tmp_path: Path, content: bytes, line: int, found: str
) -> None:
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    dictionary = read_dictionary(path)
    assert dictionary.words[0] == "裙"
    (problem,) = dictionary.problems
    assert (problem.line, problem.harmless) == (line, False)
    assert found in problem.message
    (remark,) = Lexicon.load([path]).remarks
    assert str(path) in remark
    assert f"line {line}" in remark
    assert Lexicon.load([path]).remarks == (remark,)  # from the cache, too


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("裙\n\n裤\n".encode(), 2, "empty"),
        ("裙\n  \n裤\n".encode(), 2, "empty"),
        ("裙\n裤\n裙\n".encode(), 3, "already, in line 1"),
        (b"\xef\xbb\xbf" + "裙\n裤\n".encode(), 1, "byte-order mark"),
        ("裙\n裤\n".encode("gb18030"), 2, "gb18030"),
        ("裙\n裤\n".encode("utf-16"), 1, "utf-16"),
        ("裙\n裤\n".encode("utf-16-le"), 1, "utf-16-le"),
        ("裙\n裤\n".encode("utf-32"), 1, "utf-32"),
    ],
)
def test_what_loses_nothing_is_harmless(
    tmp_path: Path, content: bytes, line: int, found: str
) -> None:
    path = tmp_path / "untidy.txt"
    path.write_bytes(content)
    dictionary = read_dictionary(path)
    assert dictionary.words[:2] == ["裙", "裤"]
    (problem,) = dictionary.problems
    assert (problem.line, problem.harmless) == (line, True)
    assert found in problem.message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\xd8\n", b"\xff\xff\xff\n", b"\t\tx\n"])
def test_a_dictionary_without_a_usable_line_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_dictionary(path)
    assert str(path) in str(caught.value.where)
    assert "dict check" in str(caught.value.hint)
    assert caught.value.exit_code == 2


FORMS = {
    "comments and blank lines": ("# a list\n裙\n\n# end\n裤\n", ["裙", "裤"]),
    "Windows": ("裙\r\n裤\r\n", ["裙", "裤"]),
    "an old Mac": ("裙\r裤\r", ["裙", "裤"]),
    "THUOCL": ("苹果\t1234\n雪梨\t12\n", ["苹果", "雪梨"]),
    "jieba with tabs": ("苹果\t1234\tn\n北京\t12\tns\n", ["苹果", "北京"]),
    "jieba": ("苹果 1234 n\n雪梨 12\n北京 ns\n香蕉\n", ["苹果", "雪梨", "北京", "香蕉"]),
    "wide blanks": ("苹果\u30001234\n雪梨   12  n \n", ["苹果", "雪梨"]),
    "blanks in words": ("Love Live 手办 3 nz\nEdu Trust认证 2000\n裙 5\n",
                        ["Love Live 手办", "Edu Trust认证", "裙"]),
    "latin names in a list": ("iphone 15\niphone 15 pro\nralph lauren\n裙\n小米\n大衣\n",
                              ["iphone 15", "iphone 15 pro", "ralph lauren", "裙", "小米", "大衣"]),
    "names that end in numbers": ("小米 13\n小米 14\n小米 14 pro\n",
                                  ["小米 13", "小米 14", "小米 14 pro"]),
    "a few numbers in a long list": ("\n".join([*"裙裤衫帽鞋袜巾包伞镜", "裤子", "小米 14"]),
                                     [*"裙裤衫帽鞋袜巾包伞镜", "裤子", "小米 14"]),
    "CSV": ("红色,colour\n耐克,brand,5\n", ["红色", "耐克"]),
    "CSV with headings": ("词,类型,词频\n红色,colour,5\n\"耐克, 正品\",brand,6\n",
                          ["红色", "耐克, 正品"]),
    "TSV with headings": ("type\tword\ncolour\t红色\n", ["红色"]),
    "commas in words": ("裙\nsky,zoom\n裤\n1,5-戊二醇\n", ["裙", "sky,zoom", "裤", "1,5-戊二醇"]),
    "a known type after a comma": ("云感绒,材质\n云朵鹿\n冰川纹\n月影石，品牌\n南屿家\n",
                                   ["云感绒", "云朵鹿", "冰川纹", "月影石", "南屿家"]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_dictionaries_come_in_many_forms(tmp_path: Path, form: str) -> None:
    content, expected = FORMS[form]
    path = tmp_path / "d.txt"
    path.write_bytes(content.encode())
    dictionary = read_dictionary(path)
    assert dictionary.words == expected
    assert all(problem.harmless for problem in dictionary.problems)


def test_types_may_have_their_chinese_names(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    lines = ["雾霾蓝\t颜色", "云感绒,材质", "奶盖杯 5 品类", "月影石\tBrand", "松鹤院\t门派"]
    path.write_text("\n".join([*lines, "# type: 产地", "南屿\t-", "长汀"]), "utf-8")
    dictionary = read_dictionary(path)
    assert dictionary.words == ["雾霾蓝", "云感绒", "奶盖杯", "月影石", "松鹤院", "南屿", "长汀"]
    assert dictionary.types == ["colour", "material", "category", "brand", "门派", None, "place"]


def test_every_name_that_a_chinese_table_shows_is_read_as_its_type() -> None:
    with in_language("zh"):
        names = {kind: type_name(kind) for kind in TYPES}
    for kind, name in names.items():
        assert name != kind
        assert known_type(name) == kind, (kind, name)


def test_a_field_that_is_no_tag_of_jieba_is_a_type(write: Write) -> None:
    dictionary = read_dictionary(write("红色\tcolour", "北京 12 ns", "苹果 5 n", "耐克 9 brand"))
    assert dictionary.types == ["colour", "place", None, "brand"]


@given(st.lists(st.text("红裙子奶盖a1 \t,#.\u200b\ufeff\r", max_size=8), max_size=8))
@settings(max_examples=200, deadline=None)
def test_every_line_is_an_entry_or_named(tmp_path_factory: Any, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("d") / "d.txt"
    path.write_bytes("\n".join(lines).encode())
    dictionary = parse_dictionary(path)
    whole = path.read_bytes().decode().removeprefix("\ufeff").replace("\r\n", "\n")
    count = len(whole.replace("\r", "\n").removesuffix("\n").split("\n")) if whole else 0
    comments = [line for line in whole.replace("\r", "\n").split("\n")
                if line.startswith("#") and "\t" not in line]  # fmt: skip
    named = {problem.line for problem in dictionary.problems if not problem.whole_file}
    assert len({*dictionary.lines, *named}) + len(comments) >= count
    assert all(word and word == word.strip() for word in dictionary.words)


def test_words_with_two_types_are_named(write: Write) -> None:
    first = write("红色\tcolour", "苹果\tbrand", name="a.tsv")
    second = write("苹果\tcategory", name="b.tsv")
    lexicon = Lexicon.load([first, second])
    assert words(lexicon)["苹果"] == "brand"
    (remark,) = lexicon.remarks
    assert "苹果" in remark
    assert f"{first}:2" in remark
    assert f"{second}:1" in remark


def test_a_users_type_replaces_a_shipped_one(write: Write) -> None:
    own = write("连衣裙\tbrand", name="a.tsv")
    assert words(Lexicon.load())["连衣裙"] == "category"
    assert words(Lexicon.load(["builtin", own]))["连衣裙"] == "brand"


def test_a_missing_dictionary_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.txt"):
        Lexicon.load([tmp_path / "nothing.txt"])


def test_a_last_line_without_end_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("裙\r\n裤".encode())
    assert read_dictionary(path).words == ["裙", "裤"]


def test_entries_are_folded_and_merged(write: Write) -> None:
    first = write("ＬＥＤ灯\tlamp", "led灯\tcategory", "Café\tbrand", name="a.tsv")
    second = write("led灯", "裙", name="b.txt")
    assert words(Lexicon.load([first, second])) == {"led灯": "lamp", "cafe": "brand", "裙": None}


def test_two_entries_side_by_side_stay_two_but_in_a_users_list(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write("儿童", "滑板车", "儿童滑板车", "回力鞋", "电动车")
    assert "儿童滑板车" in words(Lexicon.load([plain]))
    monkeypatch.setattr("bagformer_cli.text.merging.LARGE", 5)  # as a list nobody chose by hand
    monkeypatch.setattr("bagformer_cli.text.lexicon.FORMAT", "another cache")
    assert "儿童滑板车" not in words(Lexicon.load([plain]))
    whole = write("儿童滑板车\tcategory\t5", name="whole.tsv")
    assert "儿童滑板车" in words(Lexicon.load([plain, whole]))
    brand = write("儿童滑板车\tbrand", name="brand.tsv")
    assert "儿童滑板车" in words(Lexicon.load([plain, brand]))


@given(
    st.lists(st.text("红绿裙子男女鞋空军一号2件a", min_size=1, max_size=7), min_size=1, max_size=6)
)
@settings(max_examples=25, deadline=None)
def test_every_word_of_a_users_list_is_one_bag(tmp_path_factory: Any, listed: list[str]) -> None:
    path = tmp_path_factory.mktemp("d") / "d.txt"
    path.write_text("\n".join(listed) + "\n", "utf-8")
    frequent = path.with_name("frequent.tsv")  # with all four fields: their weights stay
    frequent.write_text("".join(f"{word}\t-\t9000\tx\n" for word in PARTS), "utf-8")
    segmenter = Segmenter(Lexicon.load([frequent, path]))
    for word in listed:
        (bag,) = segmenter.segment(word)
        assert (bag.text, bag.source) == (word, "lexicon")


def test_what_is_never_a_word_leaves_the_background_alone(write: Write) -> None:
    never = write("子女\tnever", name="never.tsv")
    assert "子女" in words(Lexicon.load(["jieba"]))
    assert "子女" not in words(Lexicon.load([never, "jieba"]))
    own = words(Lexicon.load(["jieba", write("子女\taudience", name="own.tsv"), never]))
    assert own["子女"] == "audience"  # a dictionary of one's own has the last word
    assert "never" not in own.values()


def test_the_originals_list_has_no_word_that_is_never_one(write: Write) -> None:
    assert WordList.load([write("子女\tnever", "裙\tcategory", name="a.tsv")]).words == ("裙",)


def test_saved_and_loaded_it_is_the_same(write: Write, tmp_path: Path) -> None:
    lexicon = Lexicon.load(
        [write("裙\tcategory\t3", "件\tunit", "机\thead\t370", "款\tsuffix\t9", "红", name="a.tsv")]
    )
    lexicon.save(tmp_path / "model" / "lexicon.txt")
    again = Lexicon.load([tmp_path / "model" / "lexicon.txt"])
    assert again.fingerprint == lexicon.fingerprint
    assert again.arrays.cost.tolist() == lexicon.arrays.cost.tolist()
    assert again.arrays.head[ord("机")] == lexicon.arrays.head[ord("机")] > 0
    assert again.arrays.suffix[ord("款")] == lexicon.arrays.suffix[ord("款")] > 0


PARTS = ("红绿", "裙子", "男", "女鞋", "空军", "一号", "军一", "号2", "件a")


def test_folding_keeps_every_character_in_its_place() -> None:
    text = "ＬＥＤ　Café ５ＸＬ①ﬁ裙👗\u200d"
    assert len(fold(text)) == len(text)
    assert fold("ＬＥＤ　Café ５ＸＬ") == "led cafe 5xl"


# --- what ships ----------------------------------------------------------------------------------


def test_the_shipped_dictionaries_are_sound() -> None:
    files = sorted(asset_folder("entity_dicts").glob("*.tsv"))
    assert len(files) >= 20
    for file in files:
        dictionary = parse_dictionary(file)
        assert not dictionary.problems, file
        assert "Written for this project" in file.read_text("utf-8").splitlines()[0]
        assert all(kind for kind in dictionary.types), file


def test_the_shipped_lexicon_has_every_type() -> None:
    lexicon = Lexicon.load()
    own = [e for e in lexicon.entries() if e.origin.endswith(".tsv")]
    assert len(own) >= 20_000
    assert {"category", "brand", "colour", "material", "pattern", "style", "audience"} <= {
        e.type for e in own
    }
    assert {"season", "scene", "function", "selling", "unit", "head", "suffix"} <= {
        e.type for e in own
    }


# --- xmr dict ------------------------------------------------------------------------------------


def test_check_finds_every_kind(write: Write) -> None:
    path = write(
        "儿童", "滑板车", "儿童滑板车", "ＬＥＤ灯", "led灯", "长" * 65, "红\u200b色", name="a.txt"
    )
    other = write("滑板车\tcategory", "儿童\taudience", name="b.tsv")
    third = write("儿童\tbrand", name="c.tsv")
    found = check_dictionaries([path, other, third], against=())
    seen = {(Path(f.file).name, f.line, f.kind) for f in found}
    assert {
        ("a.txt", 5, "same"),
        ("a.txt", 6, "broken"),
        ("c.tsv", 1, "conflict"),
    } <= seen
    broken = write("裙", "", "裙", name="d.txt")
    assert [(f.line, f.kind) for f in check_dictionaries([broken], against=())] == [
        (2, "untidy"),
        (3, "untidy"),
    ]


def test_check_says_what_never_matches(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagformer_cli.text.merging.LARGE", 3)
    large = write("儿童", "滑板车", "儿童滑板车")
    (found,) = check_dictionaries([large], against=())
    assert (found.line, found.kind) == (3, "unreachable")
    assert "儿童" in found.message


def test_repair_leaves_a_dictionary_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "裙 3 n\n\n裤 2 n\n".encode())
    assert repair(path, tmp_path / "good.txt") == 1
    assert read_dictionary(tmp_path / "good.txt").words == ["裙", "裤"]
    path.write_bytes("裙\n裤\n裙\n".encode("gb18030"))
    assert repair(path, tmp_path / "good.txt") == 1
    assert (tmp_path / "good.txt").read_text("utf-8") == "裙\n裤\n"


def test_xmr_dict_check_and_stats(xmr: Callable, write: Write) -> None:  # type: ignore[type-arg]
    good = write("裙\tcategory", "红色\tcolour", name="a.tsv")
    run = xmr("dict", "check", good, "--no-builtin", "--json")
    assert (run.code, run.json()["findings"]) == (0, [])
    bad = write("裙", "裤\tcategory\tmuch", name="b.txt")
    run = xmr("dict", "check", bad, "--no-builtin", "--json")
    assert run.code == 2
    assert run.json()["findings"][0]["line"] == 2
    titles = write("红色裙", "裙 裙", "【裙】，★窬", name="titles.txt")
    run = xmr("dict", "stats", good, "--no-builtin", "--titles", titles, "--json")
    assert run.code == 0
    found = run.json()
    assert found["entries"] == 2
    assert found["titles"]["count"] == 3
    assert found["titles"]["bags"]["lexicon"] == 5
    assert found["titles"]["unknown"] == {"窬": 1}  # no punctuation
    assert found["titles"]["entries_used"] == 2
