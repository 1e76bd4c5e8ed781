"""An index opens only models that the user has chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli.index.trust import is_own_model, remember_model
from tests.support.small_model import saved_model, write_table


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("cache", "home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_own_folders_are_the_working_directory_and_home_but_not_the_index(places: Path) -> None:
    index = str(places / "work/index")
    assert is_own_model(places / "work/runs/a/best", index)
    assert is_own_model(places / "home/models/a", index)
    assert not is_own_model(places / "downloads/model", index)
    assert not is_own_model(places / "work/index/model", index)
    assert not is_own_model(places / "work/../downloads/model", "s3://bucket/index")
    (places / "work/link").symlink_to(places / "downloads")
    assert not is_own_model(places / "work/link/model", index)


def test_a_model_is_remembered_once_and_a_cache_that_cannot_be_written_is_no_error(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        remember_model(places / "downloads/model")
    assert is_own_model(places / "downloads/model", "index")
    assert (places / "cache/models.txt").read_text().count("\n") == 1
    monkeypatch.setenv("XMR_CACHE", "/proc/nowhere")
    remember_model(places / "other")


def test_an_index_of_a_model_that_was_never_chosen_asks_for_trust(
    xmr: Callable[..., Any], places: Path
) -> None:
    folder = places / "data"
    model = saved_model(folder / "model")
    table = write_table(folder, 3)
    index = places / "data/index"
    assert xmr("index", "build", table, index, "--checkpoint", model).code == 0
    search = ("search", "红", "--index", index, "--json")
    assert xmr(*search).code == 0  # the builder has chosen the model
    (places / "cache/models.txt").unlink()
    refused = xmr(*search)
    assert refused.code == 2
    assert "--trust" in refused.err
    assert xmr("index", "add", table, index).code == 2
    assert xmr(*search, "--trust").code == 0
    assert xmr(*search).code == 2  # --trust is for one command
    assert xmr(*search, "--checkpoint", model).code == 0
    assert xmr(*search).code == 0
