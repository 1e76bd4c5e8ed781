"""A model that has seen drawn images only says so when it is used on a photo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.datasets import DEMO, is_drawn_image
from bagformer_cli.demo import DRAWN_IMAGE, write_demo
from tests.support.small_model import saved_model, write_table

WARNING = "has never seen a photo"


def test_score_and_search_warn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xmr: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path, 4)
    saved_model(tmp_path / "model")
    scored = xmr("score", "photos/1.png", "连衣裙", "--checkpoint", "model")
    assert scored.code == 0
    assert scored.err.count(WARNING) == 1
    xmr("index", "build", "products.csv", "index/", "--checkpoint", "model")
    found = xmr("search", "--image", "photos/1.png", "--index", "index/")
    assert found.code == 0, found.err
    assert found.err.count(WARNING) == 1
    assert WARNING not in xmr("search", "连衣裙", "--index", "index/").err


def test_the_image_that_the_demo_writes_is_no_photo(tmp_path: Path) -> None:
    write_demo(tmp_path / DEMO, images=60, workers=1)
    assert is_drawn_image(tmp_path / DRAWN_IMAGE)
    assert not is_drawn_image(tmp_path / "mine.jpg")
    assert not is_drawn_image(tmp_path / "elsewhere" / DRAWN_IMAGE)
