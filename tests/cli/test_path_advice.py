"""Advice about a wrong path names what is there, and never the path that was refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.cli.path_advice import path_advice


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / ".hidden").touch()
    (tmp_path / "pictures" / "red.jpg").touch()
    (tmp_path / "products.csv").touch()
    return tmp_path


def test_a_misspelt_name_is_corrected_wherever_it_stands_in_the_path(shop: Path) -> None:
    assert path_advice(f"{shop}/product.csv", "missing") == f"Did you mean {shop}/products.csv?"
    advice = path_advice(f"{shop}/picture/red.jpg", "missing")
    assert advice == f"Did you mean {shop}/pictures/red.jpg?"


def test_a_missing_folder_is_named(shop: Path) -> None:
    advice = path_advice(f"{shop}/zebra/a/b.csv", "missing")
    assert advice == f"The folder {shop}/zebra does not exist."
    assert path_advice(f"{shop}/zebra", "missing").startswith("Check the path.")


@pytest.mark.parametrize("reason", ["missing", "file"])
def test_a_file_where_a_folder_is_needed_is_named(shop: Path, reason: str) -> None:
    for path in (f"{shop}/products.csv", f"{shop}/products.csv/out"):
        expected = f"{shop}/products.csv is a file. Name a folder."
        assert path_advice(path, reason) == expected
    assert path_advice("/dev/null/out", reason) == "/dev/null is a file. Name a folder."
    assert path_advice("/dev/null", reason) == "/dev/null is a file. Name a folder."


def test_a_folder_where_a_file_is_needed_suggests_one_of_its_files(shop: Path) -> None:
    expected = f"Name a file, for example {shop}/pictures/red.jpg."
    assert path_advice(f"{shop}/pictures", "folder") == expected
    (shop / "empty").mkdir()
    assert path_advice(f"{shop}/empty", "folder") == "Name a file."
