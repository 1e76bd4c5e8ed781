"""Broken lines and images of a dataset: named, and the rest is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.data.muge import MugeFolder, MugeImageWriter, Query, write_queries
from bagformer_cli.data.store import preprocess as stages
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.errors import DataError, InputError
from tests.support.character_encoder import Characters
from tests.support.datasets import image_line, picture, query_line, write_split
from tests.support.remarks import Remarks


def _break(path: Path, line: bytes) -> str:
    """Append a line; where it stands."""
    with open(path, "ab") as stream:
        stream.write(line)
    return f"{path}:{len(path.read_bytes().splitlines())}"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("imgs.tsv", b"no tab here\n", "no tab"),
        ("imgs.tsv", b"x\t%%%\n", "not a whole number"),
        ("imgs.tsv", image_line(10, picture(5)), "id 10 occurs twice.*first on line 3"),
        ("queries.jsonl", b"{\n", "not JSON"),
        ("queries.jsonl", query_line("4", "a", []), "not a whole number"),
        ("queries.jsonl", query_line(9, "a", []), "id 9 occurs twice.*first on line 3"),
        ("queries.jsonl", query_line(4, "a", [10, 99]), "not in the images file.*id 99"),
    ],
)
def test_a_broken_line_is_named_and_the_rest_is_kept(
    dataset: MugeFolder, file: str, line: bytes, message: str
) -> None:
    path = dataset.path / f"MR_train_{file}"
    good = path.read_bytes()
    where = _break(path, line)
    with pytest.raises(DataError, match=message) as caught:
        preprocess(dataset, encoder=Characters())
    assert caught.value.where == where
    with pytest.raises(DataError, match=message):
        preprocess(dataset, encoder=Characters())
    path.write_bytes(good)
    assert list(preprocess(dataset, encoder=Characters()).split("train").query_ids) == [7, 5, 9, 1]


BROKEN_IMAGES = [
    (b"77\t%%%\n", "not base64"),
    (b"77\t\n", "empty"),
    (image_line(77, b"text"), "not an image"),
    (image_line(77, picture(1, (64, 64), "JPEG")[:-99]), "cut off"),
    (image_line(77, picture(1, (64, 64), "JPEG")[:-99] + b"\xff\xd9"), "cut off"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN_IMAGES)
def test_a_broken_image_costs_itself_and_is_named(
    dataset: MugeFolder, line: bytes, message: str
) -> None:
    path = dataset.images_path("train")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    queries = dataset.queries_path("train")
    queries.write_bytes(queries.read_bytes() + query_line(4, "坏", [77, 10]))
    said = Remarks()
    split = preprocess(dataset, encoder=Characters(), progress=said).split("train")
    np.testing.assert_array_equal(split.image_ids, [20, 40, 10, 30])
    np.testing.assert_array_equal(split.items, [3, 2, 0, 2, 2])
    np.testing.assert_array_equal(split.item_ids, [30, 10, 20, 10, 10])
    np.testing.assert_array_equal(split.item_offsets, [0, 2, 2, 3, 4, 5])
    (named,) = said.warnings
    assert f"{path}:2, image 77: " in named
    assert message in named
    said = Remarks()
    preprocess(dataset, encoder=Characters(), progress=said)
    (counted,) = said.warnings
    assert f"left out of {path}: 1." in counted


def test_a_query_whose_only_image_is_broken_has_no_answer(dataset: MugeFolder) -> None:
    _break(dataset.images_path("train"), image_line(77, b"text"))
    _break(dataset.queries_path("train"), query_line(4, "坏", [77]))
    split = preprocess(dataset, encoder=Characters()).split("train")
    np.testing.assert_array_equal(split.item_offsets, [0, 2, 2, 3, 4, 4])
    assert len(split.texts) == len(split.tokens) == 5


@pytest.mark.usefixtures("many_shards")
def test_lines_are_counted_with_the_broken_images_before_them(tmp_path: Path) -> None:
    images = [(n, picture(n, (20, 20)) if n % 3 else b"broken") for n in range(30)]
    folder = write_split(tmp_path, "train", [(1, "a", (4,))], [*images, (29, picture(7))])
    with pytest.raises(DataError, match=r"id 29 occurs twice.*first on line 30") as caught:
        preprocess(folder, encoder=None, workers=2)
    assert caught.value.where == f"{folder.images_path('train')}:31"
    write_split(tmp_path, "train", [(1, "a", (4,))], images)
    said = Remarks()
    preprocess(folder, encoder=None, progress=said)
    assert len(said.warnings) == stages.MAX_NAMED
    assert [int(text.split(":")[2].split(",")[0]) for text in said.warnings] == [*range(1, 31, 3)]


def test_a_file_without_any_readable_image_is_refused(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "train", [(1, "a", (3,))], [(3, b"x"), (4, b"y")])
    with pytest.raises(DataError, match="No image of this file") as caught:
        preprocess(folder, encoder=None)
    assert "2 broken images; line 1" in str(caught.value.found)


@pytest.mark.usefixtures("many_shards")
def test_a_broken_line_far_into_the_file_has_the_right_number(tmp_path: Path) -> None:
    images = [(n, picture(n, (20, 20))) for n in range(30)]
    folder = write_split(tmp_path, "train", [(1, "a", (3,))], images)
    where = _break(folder.images_path("train"), b"broken")
    with pytest.raises(DataError) as caught:
        preprocess(folder, encoder=None, workers=2)
    assert caught.value.where == where == f"{folder.images_path('train')}:31"


def test_a_missing_images_file_is_named(tmp_path: Path) -> None:
    write_queries(tmp_path / "MR_train_queries.jsonl", [Query(1, "a", (1,))])
    with pytest.raises(InputError, match=r"MR_train_imgs\.tsv"):
        preprocess(MugeFolder(tmp_path), encoder=None)


def test_text_only_needs_no_images_and_later_takes_them_up(tmp_path: Path) -> None:
    write_queries(tmp_path / "MR_train_queries.jsonl", [Query(1, "包", (1,))])
    folder = MugeFolder(tmp_path)
    made = preprocess(folder, encoder=Characters(), text_only=True)
    split = made.split("train")
    np.testing.assert_array_equal(split.tokens.ids, [1, ord("包")])
    with pytest.raises(InputError, match="without its images"):
        _ = split.image_ids
    with MugeImageWriter(folder.images_path("train")) as writer:
        writer.write(1, picture(1))
    encoder = Characters()
    split = preprocess(folder, encoder=encoder).split("train")
    np.testing.assert_array_equal(split.items, [0])
    assert encoder.seen == []
    preprocess(folder, encoder=Characters(), text_only=True)
    assert len(made.split("train").image_ids) == 1


def test_an_unknown_split_is_named(dataset: MugeFolder) -> None:
    with pytest.raises(InputError, match="no split 'test'"):
        preprocess(dataset, encoder=None).split("test")
