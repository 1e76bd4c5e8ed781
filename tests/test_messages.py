"""One sentence, two languages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bagformer_cli import messages
from bagformer_cli.errors import DataError
from bagformer_cli.messages import catalogue, in_language, language, process_language, tr
from bagformer_cli.text.lines import Problem, raise_first

VARIABLES = ("XMR_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    process_language.cache_clear()
    catalogue.cache_clear()
    yield
    process_language.cache_clear()
    catalogue.cache_clear()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "XMR_LANG": "zh"}, "zh"),
        ({"LANG": "zh_TW.UTF-8", "XMR_LANG": "en"}, "en"),
        ({"XMR_LANG": "cn"}, "zh"),
        ({"XMR_LANG": "CN"}, "zh"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_CN"}, "zh"),
    ],
)
def test_the_environment_decides_the_language(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert language() == expected


def test_english_needs_no_catalogue() -> None:
    assert tr("No such file: {path}", path="a.txt") == "No such file: a.txt"


def test_a_sentence_without_values_keeps_its_braces() -> None:
    assert tr('{"a": 1}') == '{"a": 1}'


def test_chinese_comes_from_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMR_LANG", "zh")
    assert tr("title {n}", n=3) == "第 3 个标题"


def test_an_edited_catalogue_shows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "zh" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "xmr.po").write_text('msgid "{n} images"\nmsgstr "{n} 张图片"\n', "utf-8")
    monkeypatch.setenv("XMR_LANG", "zh")
    monkeypatch.setattr(messages, "LOCALES", tmp_path)
    assert tr("{n} images", n=3) == "3 张图片"


def test_an_untranslated_sentence_is_said_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMR_LANG", "zh")
    assert tr("no such sentence {n}", n=3) == "no such sentence 3"


def test_a_value_may_hold_braces() -> None:
    assert tr("found {text}", text="{x}") == "found {x}"


def test_chinese_sentences_follow_each_other_without_a_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XMR_LANG", "zh")
    wrong = [Problem(line, "坏。", "x") for line in range(1, 1003)]
    with pytest.raises(DataError, match=r"坏。（后面还有 1,001 处问题。）"):
        raise_first("a.txt", wrong, "y")


def test_one_thread_and_one_task_have_their_language() -> None:
    async def name(requested: str | None) -> tuple[str, str]:
        with in_language(requested):
            await asyncio.sleep(0)
            return tr("title {n}", n=3), await asyncio.to_thread(tr, "title {n}", n=3)

    async def all_names() -> list[tuple[str, str]]:
        return await asyncio.gather(name("zh"), name("en"), name(None), name("zh"))

    chinese, english = ("第 3 个标题",) * 2, ("title 3",) * 2
    assert asyncio.run(all_names()) == [chinese, english, english, chinese]
    with in_language("zh"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(language).result() == "en"  # a thread of its own context
        assert language() == "zh"
    assert language() == "en"
