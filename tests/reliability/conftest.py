"""A tiny model, a shop folder, and a dataset for attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.inputs.conftest import model, retriever, shop
from tests.support.black_box import case_folder
from tests.support.datasets import picture, write_split

__all__ = ["home", "model", "retriever", "shop"]


@pytest.fixture
def count(record_property: Callable[[str, Any], None]) -> Callable[[str, int, int], None]:
    """Count tries of an attack: ``count("index add", 20, 20)`` (see ``attacks.py``)."""

    def add(detail: str, tries: int, survived: int) -> None:
        record_property("attack", (detail, tries, survived))

    return add


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with photos, a table and the dataset ``set``."""
    folder = case_folder("", tmp_path / "home")
    queries = [(n, f"红色商品{n}号", (100 + n,)) for n in range(1, 17)]
    images = [(100 + n, picture(n)) for n in range(1, 17)]
    for split in ("train", "valid"):
        write_split(folder / "set", split, queries, images)
    rows = [f"a{n},p{n}.jpg,红裙{n},{n}" for n in range(10)]
    (folder / "t.csv").write_text("\n".join(["id,image,title,price", *rows]) + "\n", "utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A tmpfs of the size given as parameter (default 1m); skipped where mounting is forbidden."""
    import subprocess

    folder = tmp_path / "disk"
    folder.mkdir()
    size = getattr(request, "param", "1m")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)
