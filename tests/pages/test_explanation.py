"""The page and the picture of a score: every part with its map, and numbers that add up."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagformer_cli.errors import InputError
from bagformer_cli.models.score_explanation import GridCell, ScoreExplanation, ScorePart
from bagformer_cli.pages import fonts
from bagformer_cli.pages.explanation import explanation_page, write_explanation
from bagformer_cli.pages.explanation_picture import GAP, LINE, draw
from bagformer_cli.pages.heat_map import COLOURS, OPACITY, Scale
from tests.support.small_model import saved_model

GRID = np.array([[0.1, 0.5], [0.3, -0.2]], np.float32)


def explanation(*names: str | None) -> ScoreExplanation:
    parts = [
        ScorePart(name, 0.5, 0.5 / (0.5 * len(names)), GridCell(1, 2, 2, 2), GRID) for name in names
    ]
    return ScoreExplanation("red <b>dress</b>", 0.5 * len(names), 1.25, parts)


def one_vector() -> ScoreExplanation:
    return ScoreExplanation("dress", 0.7, 0.7, [ScorePart(None, 0.7, 1.0, None)])


def jpeg(size: tuple[int, int] = (80, 40)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "white").save(stream, "JPEG")
    return stream.getvalue()


def test_the_lowest_and_the_highest_cosine_have_the_first_and_the_last_colour() -> None:
    scale = Scale.of(explanation("red", "dress").parts)
    assert scale is not None
    assert (scale.low, scale.high) == (pytest.approx(-0.2), 0.5)
    pixels = np.asarray(scale.overlay(GRID))
    assert pixels.shape == (2, 2, 4)
    assert pixels[1, 1, :3].tolist() == COLOURS[0].tolist()
    assert pixels[0, 1, :3].tolist() == COLOURS[-1].tolist()
    assert set(pixels[..., 3].ravel().tolist()) == {round(255 * OPACITY)}


def test_equal_cosines_can_be_drawn() -> None:
    flat = np.full((2, 3), 0.25, np.float32)
    assert Scale(0.25, 0.25).overlay(flat).size == (3, 2)


def test_the_numbers_of_the_page_add_up_to_the_score() -> None:
    page = explanation_page(jpeg(), [explanation("red", "dress")])
    found = re.search(r": ([\d. +]+) = <b>([\d.]+)</b>", page)
    assert found is not None
    assert sum(map(float, found[1].split(" + "))) == pytest.approx(float(found[2]))
    assert page.count("<figure>") == 2
    assert page.count("left:50.000%;top:0.000%;width:50.000%;height:50.000%") == 2
    assert page.count("data:image/png;base64,") == 1 + 2  # the image, and two maps


def test_a_title_is_shown_as_text() -> None:
    page = explanation_page(jpeg(), [explanation("<script>")])
    assert "<script>" not in page
    assert "red &lt;b&gt;dress&lt;/b&gt;" in page


def test_a_model_of_single_vectors_has_no_map() -> None:
    page = explanation_page(jpeg(), [one_vector()])
    assert "whole title" in page
    assert "no map" in page
    assert 'class="frame"' not in page


def test_the_frame_is_around_the_best_cell() -> None:
    picture = draw(Image.new("RGB", (80, 40), "white"), [explanation("red")])
    left, top = GAP + 40, GAP + LINE + GAP // 2  # the cell in row 1, column 2
    assert picture.getpixel((left, top)) == (0, 0, 0)
    assert picture.getpixel((left + 2, top + 2)) == (255, 255, 255)
    assert picture.getpixel((left + 20, top + 10)) != (255, 255, 255)  # the highest cosine's colour


def test_many_parts_take_several_rows() -> None:
    image = Image.new("RGB", (80, 40), "white")
    few, many = (draw(image, [explanation(*["red"] * count)]) for count in (5, 6))
    assert many.width == few.width
    assert many.height > few.height


def test_characters_without_a_font_are_an_error_and_not_boxes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fonts, "chinese_font_files", lambda: ())
    with pytest.raises(InputError, match="No installed font") as caught:
        draw(Image.new("RGB", (8, 8)), [explanation("红色")])
    assert set(str(caught.value.found)) >= {"红", "色"}
    assert "red" not in str(caught.value.found)


def test_an_english_picture_needs_no_installed_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "chinese_font_files", lambda: ())
    assert draw(Image.new("RGB", (8, 8)), [explanation("red", None)]).width > 8


@pytest.mark.skipif(not fonts.chinese_font_files(), reason="no font with Chinese characters")
def test_installed_chinese_fonts_are_used() -> None:
    assert draw(Image.new("RGB", (8, 8)), [explanation("红色")]).width > 8


@pytest.mark.parametrize("name", ["found.jpg", "found"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="HTML page or a PNG") as caught:
        write_explanation(tmp_path / name, jpeg(), [explanation("red")])
    assert "found.png" in str(caught.value.expected)


def test_xmr_score_writes_both(tmp_path: Path, xmr: Callable[..., Any]) -> None:
    folder = saved_model(tmp_path / "model")
    (tmp_path / "image.jpg").write_bytes(jpeg())
    words = ["score", tmp_path / "image.jpg", "led 100g", "--checkpoint", folder, "--explain"]
    for name, beginning in (("out.html", b"<!doctype html>"), ("out.png", b"\x89PNG")):
        run = xmr(*words, "--output", tmp_path / name, "--json")
        assert run.code == 0, run.err
        assert run.json()["output"] == str(tmp_path / name)
        assert (tmp_path / name).read_bytes().lstrip().startswith(beginning)
