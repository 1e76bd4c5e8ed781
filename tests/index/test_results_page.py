"""Fonts of the contact sheet: one of the machine's, or a word about there being none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from bagformer_cli.index import fonts
from bagformer_cli.index import results_page as sheet
from bagformer_cli.index.results_page import Found, contact_sheet, write_sheet
from bagformer_cli.index.search import Hit


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    fonts.chinese_font.cache_clear()
    yield
    fonts.chinese_font.cache_clear()


def hit(title: str) -> Hit:
    return Hit(1, 0.9, 0.9, "p1", title, None, {}, "late", 0.9)


def test_without_a_font_it_is_said_and_the_rest_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "font_folders", lambda: [tmp_path])
    (tmp_path / "NotoSansCJK-Regular.ttc").write_bytes(b"no font")
    assert fonts.chinese_font() is None
    found = [Found("红色 dress", [hit("连衣裙")])]
    said = write_sheet(tmp_path / "a.png", found)
    assert said is not None
    assert "No font" in said
    assert ".html" in said
    assert write_sheet(tmp_path / "a.html", found) is None
    assert write_sheet(tmp_path / "b.png", [Found("dress", [hit("red")])]) is None
    same = contact_sheet([Found("dress", [hit("")])])
    with Image.open(tmp_path / "a.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(same))


def test_a_font_that_has_the_characters_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No font with Chinese is at hand in tests: what decides is asked, not the characters."""
    inner = tmp_path / "truetype" / "wqy"
    inner.mkdir(parents=True)
    for name in (
        "wqy-microhei.ttc",
        "NotoSansCJK-Bold.ttc",
        "NotoSansCJK-Regular.ttc",
        "Arial.ttf",
    ):
        (inner / name).write_bytes(b"")
    has = {"wqy-microhei.ttc", "Arial.ttf"}
    monkeypatch.setattr(fonts, "font_folders", lambda: [tmp_path / "none", tmp_path])
    monkeypatch.setattr(fonts, "draws", lambda file: file.name in has)
    assert fonts.chinese_font() == inner / "wqy-microhei.ttc"
    has |= {"NotoSansCJK-Regular.ttc", "NotoSansCJK-Bold.ttc"}
    fonts.chinese_font.cache_clear()
    assert fonts.chinese_font() == inner / "NotoSansCJK-Regular.ttc"


def test_whether_a_font_draws_is_seen_in_what_it_draws(tmp_path: Path) -> None:
    file = pillows_own(tmp_path)
    assert fonts.draws(file, "abc")
    assert not fonts.draws(file, "红")
    assert not fonts.draws(tmp_path / "nowhere.ttf")


def pillows_own(folder: Path) -> Path:
    own = ImageFont.load_default(20)
    assert isinstance(own, ImageFont.FreeTypeFont)
    assert isinstance(own.font_bytes, bytes)
    file = folder / "own.ttf"
    file.write_bytes(own.font_bytes)
    return file


@pytest.mark.parametrize(
    ("platform", "part"), [("linux", ".local"), ("darwin", "Library"), ("win32", "Windows")]
)
def test_every_system_has_its_places(
    platform: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_DATA_HOME", "XDG_DATA_DIRS", "WINDIR", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    folders = fonts.font_folders()
    assert any(part in str(folder) for folder in folders)
    assert len(set(folders)) == len(folders) >= 2


def test_the_sheet_draws_with_what_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = pillows_own(tmp_path)
    monkeypatch.setattr(sheet, "chinese_font", lambda: file)
    drawn, bare = contact_sheet([Found("红", [])]), contact_sheet([Found("", [])])
    assert not np.array_equal(np.asarray(drawn), np.asarray(bare))  # a box at least
