"""Every page of the documents has a Chinese twin with the same headings, figures, code and links.

``python -m tests.support.twins NAME`` shows all differences of a page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import chinese
from tests.support import commands_page, configuration_page, twins
from tests.support.twins import DOCS, english_pages, name_of, twin_of

ENGLISH_ONLY = {"log"}  # says so in its first lines
WITHOUT_TWIN: set[str] = set()

PAIRS = [page for page in english_pages() if twin_of(page).exists()]


def test_every_page_has_a_twin() -> None:
    missing = {name_of(page) for page in english_pages() if not twin_of(page).exists()}
    assert missing == ENGLISH_ONLY | WITHOUT_TWIN


def test_every_twin_has_a_page() -> None:
    for twin in DOCS.rglob("*.zh.md"):
        assert twin.with_name(twin.name.replace(".zh.md", ".md")).exists(), twin.name


@pytest.mark.parametrize("page", PAIRS, ids=name_of)
def test_twins_say_the_same(page: Path) -> None:
    if name_of(page) in twins.GENERATED:
        ours, theirs = (twins.sections(one) for one in (page, twin_of(page)))
        assert [one.level for one in ours] == [one.level for one in theirs]
        return
    found = list(twins.differences(page, twin_of(page)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAIRS, ids=name_of)
def test_chinese_pages_link_to_chinese_pages(page: Path) -> None:
    twin = twin_of(page)
    for link in twins.LINK.findall(twins.FENCE.sub("", twin.read_text("utf-8"))):
        file = (twin.parent / link.partition("#")[0]).resolve()
        if file != page and file.suffix == ".md" and not re.search(r"\.zh(-CN)?\.md$", file.name):
            assert not twin_of(file).exists(), f"{link}: link to its twin"


def test_generated_pages_are_up_to_date_in_chinese() -> None:
    """`make docs` writes them."""
    for page, text in (
        (commands_page.PAGES["zh"], commands_page.page("zh")),
        (configuration_page.PAGES["zh"], configuration_page.page("zh")),
    ):
        assert page.read_text("utf-8") == text


@pytest.mark.parametrize(
    "page", [page for page in PAIRS if ": begin -->" in page.read_text("utf-8")], ids=name_of
)
def test_tables_of_experiments_are_those_of_the_english_page(page: Path) -> None:
    """`python docs/experiments/chinese.py PAGE` writes them."""
    assert twin_of(page).read_text("utf-8") == chinese.translate_sections(page)


@pytest.mark.parametrize("paper", [p for p in PAIRS if p.parent.name == "papers"], ids=name_of)
def test_figures_of_a_paper_are_those_of_the_results(paper: Path) -> None:
    """A page of a paper repeats figures: a result that changed has to change there too."""
    results = [DOCS / f"{name}.md" for name in ("methods", "bags", "performance")]
    read = [section for page in results for section in twins.sections(page)]
    known = {number for one in read for row in [one.numbers, *one.rows] for number in row}
    for section in twins.sections(paper):
        if section.heading == "Measured":
            repeated = {number for row in section.rows for number in row}
            assert repeated <= known, repeated - known


def _differences(tmp_path: Path, english: str, chinese: str) -> list[str]:
    for name, text in (("page.md", english), ("page.zh.md", chinese)):
        (tmp_path / name).write_text(text, "utf-8")
    twins.sections.cache_clear()
    twins.headings.cache_clear()
    return list(twins.differences(tmp_path / "page.md", tmp_path / "page.zh.md"))


ENGLISH = """\
# Title

It takes 3 million rows, `--set a=1` and [a link](page.md#next).

| a | 1.5 |
|---|---|
| b | 2 |

```bash
xmr eval   # measure
```

## Next

Two.
"""
CHINESE = """\
# 标题

`--set a=1` 用于 300 万行，见[链接](page.zh.md#下一节)。

| 甲 | 1.5 |
|---|---|
| 乙 | 2 |

```bash
xmr eval   # 评测
```

## 下一节

两个。
"""


def test_a_good_translation_passes(tmp_path: Path) -> None:
    assert not _differences(tmp_path, ENGLISH, CHINESE)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("300 万", "400 万", "numbers"),
        ("| 2 |", "| 3 |", "table row 2"),
        ("| 乙 | 2 |\n", "", "table rows"),
        ("xmr eval", "xmr train", "block of code"),
        ("`--set a=1`", "`--set a=2`", "code"),
        ("#下一节", "", "links"),
        ("## 下一节", "### 下一节", "level"),
        ("## 下一节", "", "headings"),
    ],
)
def test_a_changed_fact_is_found(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in CHINESE
    found = _differences(tmp_path, ENGLISH, CHINESE.replace(old, new, 1))
    assert any(named in one for one in found)
