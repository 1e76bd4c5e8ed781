r"""The lines of dictionaries as people have them: word lists, jieba's, THUOCL's, tables.

    空军一号                      a word
    空军一号 5 nz                 jieba: word, count, tag; count and tag may be missing
    空军一号<TAB>1234             THUOCL: word, count
    空军一号<TAB>shoe<TAB>5       word, type, weight, origin; only the word is required
    空军一号,shoe,5               the same as CSV; a row of headings may name the columns

Every line is read by itself, so that one file may mix these forms. Only what a line alone cannot
tell is decided for the whole file (:class:`Form`): whether its commas part fields, and whether a
number or a tag after a blank is one. In a list of words `小米 14` is a phone; in jieba's form it is
a word that was counted 14 times. A comma before a known type parts fields in every file; the comma
may be a Chinese one (`，`), and the type may have its Chinese name (:data:`CHINESE_TYPES`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

from bagformer_cli.messages import tr

UNTYPED = "-"
"""Written in a file for an entry without a type."""

SAMPLE = 1000
"""Lines from which the form of a file is taken."""

LEAST_SHARE = 0.1
"""Share of the lines that must end in a count (or in a tag) for a file to have counts (or tags)."""

_TAGS = (
    "a ad ag an b bg c d df dg e eng f g h i in j k l m mg mq n ng nr nrfg nrt ns nsf nt nz nw o p "
    "q qg qe r rg rr rz s t tg u ud ug uj ul uv uz v vd vg vi vn vq x xc y yg z zg un per loc org "
    "time"
)
TAGS = frozenset(_TAGS.split())
"""Part-of-speech tags of jieba. They say nothing about the type, except those of places."""

_TYPES = (
    "category brand colour material pattern style audience season scene function selling place "
    "name model unit head suffix never"
)
TYPES = frozenset(_TYPES.split())
"""Types of the shipped dictionaries, which may stand where jieba has a tag: `奶盖杯 5 category`."""

_CHINESE_TYPES = {
    "audience": "人群 适用人群",
    "brand": "品牌",
    "category": "品类 类目",
    "colour": "颜色 色彩 color",
    "function": "功能",
    "head": "中心语",
    "material": "材质 材料 面料",
    "model": "型号",
    "name": "名称",
    "never": "从不成袋",
    "pattern": "图案 花纹",
    "place": "地名 产地",
    "scene": "场景",
    "season": "季节",
    "selling": "营销词",
    "style": "风格",
    "suffix": "后缀",
    "unit": "单位",
}
CHINESE_TYPES = {name: kind for kind, names in _CHINESE_TYPES.items() for name in names.split()}
"""Other names of the types: those that Chinese tables and messages show (:mod:`.type_names`),
common ones of the same meaning, and the American spelling."""

PLACE_TAGS = frozenset({"ns", "nsf", "loc"})

COLUMNS = {
    "word": "word words term entity entry name keyword 词 词语 词条 单词 实体 名称 关键词",
    "type": "type label tag pos class category 类型 类别 标签 词性 类",
    "weight": "weight 权重",
    "times": "count freq frequency df tf 词频 频次 频率 次数 数量",
    "origin": "origin source 来源",
}
_HEADINGS = {name: column for column, names in COLUMNS.items() for name in names.split()}

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NAMED = "|".join(CHINESE_TYPES)
_COUNTED = re.compile(rf"(\S.*?)\s+(\d+)(?:\s+([A-Za-z]\w*|{_NAMED}))?")
_TAGGED = re.compile(rf"(\S.*?)\s+([A-Za-z]+|{_NAMED})")
_COMMA = re.compile(r"[一-鿿]\s*[,，]|[,，]\s*[一-鿿]")  # not that of `sky,zoom` or `1,5-戊二醇`


class Row(NamedTuple):
    """The fields of a line, as written; an empty text where the line has none.

    Args:
        word: The word.
        type: Its type, :data:`UNTYPED` for none.
        weight: A weight per million words.
        times: How often the word was seen.
        origin: Where the entry comes from.
    """

    word: str
    type: str = ""
    weight: str = ""
    times: str = ""
    origin: str = ""


class Form(NamedTuple):
    """The rules by which the lines of one file are read.

    Args:
        counted: A number after an ideograph and a blank is a count.
        counted_latin: So is a number after a latin letter or a digit and a blank.
        tagged: A tag of jieba after an ideograph and a blank is one.
        commas: Commas part fields.
        headings: The columns that the first line names, none: it is an entry.
    """

    counted: bool
    counted_latin: bool
    tagged: bool
    commas: bool
    headings: tuple[str, ...] = ()


def is_comment(line: str) -> bool:
    """Return whether a line is a comment: it begins with # and has no tab."""
    return line.startswith("#") and "\t" not in line


def form_of(lines: Sequence[str]) -> Form:
    """Decide what a line alone cannot tell, from the first lines of a file."""
    filled = [line.strip() for line in lines[:SAMPLE] if line.strip() and not is_comment(line)]
    plain = [line for line in filled if "\t" not in line]
    found = [match for match in map(_COUNTED.fullmatch, plain) if match]
    sure = any(_is_tag(match[3]) for match in found)  # word count tag
    # `小米 13` and `小米 14` are no counts of one word.
    distinct = len({match[1] for match in found}) >= 0.9 * len(found)
    latin = sum(match[1][-1].isascii() for match in found)
    counts = len(found) - latin
    tags = sum(_tag_of(line) is not None for line in plain)
    least = max(1, LEAST_SHARE * len(plain))
    headings = _headings(filled[0]) if filled else ()
    return Form(
        counted=sure or (distinct and counts >= least),
        counted_latin=distinct
        and 2 * len(found) >= len(plain)
        and (counts > 0 or latin == len(plain)),
        tagged=sure or counts + tags >= least,
        commas=bool(headings and plain[:1] == filled[:1])
        or 2 * sum("," in line or "，" in line for line in plain) > len(plain),
        headings=headings,
    )


def _headings(line: str) -> tuple[str, ...]:
    parts = _split(line, commas=True)
    named = tuple(_HEADINGS.get(part.lower(), "") for part in parts)
    return named if len(parts) > 1 and named[0] and all(named) else ()


def _split(line: str, commas: bool) -> list[str]:
    if "\t" in line:
        return [part.strip() for part in line.split("\t")]
    if commas:
        line = line if "," in line else line.replace("，", ",")
        return [part.strip() for part in next(csv.reader([line]), [])]
    return [line]


def known_type(given: str) -> str | None:
    """Return the type that a text names, in English or Chinese, or None.

    >>> known_type("颜色"), known_type("Brand"), known_type("衣服")
    ('colour', 'brand', None)
    """
    lower = given.lower()
    return lower if lower in TYPES else CHINESE_TYPES.get(lower)


def _is_tag(text: str | None) -> bool:
    return text is not None and (text.lower() in TAGS or known_type(text) is not None)


def has_fields(line: str, form: Form) -> bool:
    """Tell whether tabs or commas part the fields of a line."""
    if "\t" in line or form.commas:
        return True
    if "," not in line and "，" not in line:
        return False
    parts = _split(line, commas=True)
    return 1 < len(parts) <= 4 and bool(parts[0]) and known_type(parts[1]) is not None


def has_unread_comma(line: str, form: Form) -> bool:
    """Tell whether a line is read as one word though it has a comma that might part fields."""
    return _COMMA.search(line) is not None and not has_fields(line, form)


def _tag_of(line: str) -> re.Match[str] | None:
    """Match an ideograph, a blank and a tag or a type at the end of a line."""
    found = _TAGGED.fullmatch(line)
    return found if found and _is_tag(found[2]) and not found[1][-1].isascii() else None


def read_row(line: str, form: Form) -> Row | str:
    """Read one line that is neither empty nor a comment.

    Returns:
        Its fields, or what is wrong with it.
    """
    parts = _split(line, commas=has_fields(line, form))
    if len(parts) == 1:
        return _read_blanks(line.strip(), form)
    if form.headings and len(parts) <= len(form.headings):
        given = dict(zip(form.headings, parts, strict=False))
        return Row(**given) if given.get("word") else tr("The line has no word.")
    if not parts[0]:
        return tr("The line has no word.")
    if len(parts) > 4:
        return tr("The line has more than 4 fields: word, type, weight, origin.")
    if len(parts) < 4 and _NUMBER.fullmatch(parts[1]):  # THUOCL, jieba with tabs
        return Row(parts[0], type=parts[2] if len(parts) > 2 else "", times=parts[1])
    word, kind, weight, origin = [*parts, "", "", ""][:4]
    return Row(word, kind, weight, origin=origin)


def _read_blanks(line: str, form: Form) -> Row:
    """Read a line whose fields are parted by blanks, if it has more than one."""
    counted = _COUNTED.fullmatch(line)
    if counted:
        word, count, tag = counted.groups()
        if _is_tag(tag) or (form.counted_latin if word[-1].isascii() else form.counted):
            return Row(word, type=tag or "", times=count)
    elif form.tagged and (tagged := _tag_of(line)):
        return Row(tagged[1], type=tagged[2])
    return Row(line)
