"""What is made from image files notices that a file was replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.index import encoded
from bagformer_cli.index.encoded import digest_for
from tests.support.datasets import picture, write_split


def digests(source: Path) -> list[str]:
    return [digest_for(part) for part in open_catalogue(source, part_size=2).parts]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    rows = [f"{number},{number}.png,裙\n" for number in range(5)]
    path = tmp_path / "t.csv"
    path.write_text("id,image,title\n" + "".join(rows), "utf-8")
    return path


def test_only_the_part_of_a_replaced_image_changes(table: Path) -> None:
    before = digests(table)
    assert digests(table) == before
    image = table.parent / "2.png"
    image.write_bytes(picture(9, (30, 30)))
    after = digests(table)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_an_image_of_the_same_size_is_noticed_by_its_time(table: Path) -> None:
    image = table.parent / "2.png"
    image.write_bytes(b"a" * 100)
    os.utime(image, ns=(10**18, 10**18))
    before = digests(table)
    image.write_bytes(b"b" * 100)
    os.utime(image, ns=(10**18, 10**18 + 1))
    assert digests(table) != before


def test_images_that_appear_or_vanish_are_noticed(table: Path) -> None:
    before = digests(table)
    (table.parent / "4.png").unlink()
    gone = digests(table)
    assert gone[:2] == before[:2]
    assert gone[2] != before[2]


def test_a_touched_table_and_a_copied_folder_change_nothing(table: Path, tmp_path: Path) -> None:
    before = digests(table)
    os.utime(table)
    assert digests(table) == before


def test_rows_without_an_image_and_broken_rows_have_no_files(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"title": "裙"}\n{"title": 7, "image": 3}\n{"image": "a\\u0000b"}\n', "utf-8")
    assert len(digests(path)) == 2


def test_images_of_a_folder_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    before = digests(tmp_path)
    (tmp_path / "a.png").write_bytes(picture(2, (30, 30)))
    assert digests(tmp_path) != before


def test_images_of_a_dataset_are_noticed_by_content(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "valid")
    before = digests(tmp_path)
    os.utime(folder.images_path("valid"))
    assert digests(tmp_path) == before
    write_split(tmp_path, "valid", images=[(10, picture(8)), (11, picture(11))])
    assert digests(tmp_path) != before


def test_vectors_of_another_decoding_are_made_again(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(table)
    monkeypatch.setattr(encoded, "DECODING", "another")
    assert not set(digests(table)) & set(before)
