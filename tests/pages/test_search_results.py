"""The HTML page of search results: complete, self-contained, and safe to open."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagformer_cli.errors import InputError
from bagformer_cli.index.results import Hit
from bagformer_cli.pages.search_results import QueryResults, page, write_page


def hit(title: str, thumbnail: bytes | None = None) -> Hit:
    return Hit(1, 0.9, 0.9, "p<1>", title, None, {"price": 3}, "late", 0.9, thumbnail=thumbnail)


def noise(side: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_the_page_shows_every_query_and_every_result() -> None:
    shown = page([QueryResults("红色", [hit("连衣裙"), hit("雨伞")]), QueryResults("蓝色", [])])
    assert shown.count("<h2>") == 2
    assert shown.count("<li>") == 2
    assert "price 3" in shown


def test_the_page_shows_the_filter_and_that_there_are_fewer_results() -> None:
    shown = page([QueryResults("红", [hit("裙")], None, "price < 9", 5), QueryResults("蓝", [])])
    assert "Filter: price &lt; 9 · 1 results of 5 asked for" in shown
    assert shown.count("Filter") == 1


def test_text_from_the_catalogue_is_escaped() -> None:
    shown = page([QueryResults("<script>", [hit("a < b & c")])])
    assert "<script>" not in shown
    assert "a &lt; b &amp; c" in shown
    assert "p&lt;1&gt;" in shown


def test_images_are_inside_the_page_and_large_ones_are_scaled_down() -> None:
    small, large = noise(20), noise(700)
    shown = page([QueryResults("x", [hit("y", small)], large)])
    assert shown.count("data:image/png;base64,") == 1
    assert shown.count("data:image/jpeg;base64,") == 1
    assert len(shown) < len(large)


@pytest.mark.parametrize("name", ["found.png", "found.jpg", "found"])
def test_a_file_that_is_no_page_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="HTML page") as caught:
        write_page(tmp_path / name, [])
    assert caught.value.expected == "found.html"
    assert not (tmp_path / name).exists()
