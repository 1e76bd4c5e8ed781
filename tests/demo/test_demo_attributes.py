"""What a picture holds, what a query names, and the file that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.demo.attributes import (
    Thing,
    accuracy_by_attribute,
    answers,
    header_line,
    read_attributes,
    read_header,
    record_line,
)
from bagformer_cli.errors import DataError, InputError

RED_DRESS = Thing("dress", "red", "dots", "white")
BLUE_BAG = Thing("handbag", "blue", "solid", "black")
BLUE_DRESS = Thing("dress", "blue", "dots", "white")
RED_BAG = Thing("handbag", "red", "solid", "black")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ([Thing("dress")], True),
        ([Thing("dress", "red")], True),
        ([Thing("dress", "red", "dots", "white")], True),
        ([Thing("dress", "blue")], False),
        ([Thing("dress", None, "solid")], False),
        ([Thing("dress", "red", None, "black")], False),
        ([Thing("dress", "red"), Thing("handbag", "blue")], True),
        ([Thing("dress", "blue"), Thing("handbag", "red")], False),
        ([Thing("dress", "red"), Thing("mug")], False),
    ],
)
def test_an_image_answers_when_everything_named_is_there_as_said(
    query: list[Thing], found: bool
) -> None:
    assert answers([RED_DRESS, BLUE_BAG], query) is found


def test_accuracy_is_told_by_attribute() -> None:
    asked = [
        [Thing("dress", "red"), Thing("handbag", "blue")],
        [Thing("dress", "red"), Thing("handbag", "blue")],
        [Thing("dress", "red")],
        [Thing("dress", None, "dots")],
    ]
    shown = [
        [RED_DRESS, BLUE_BAG],  # right
        [BLUE_DRESS, RED_BAG],  # all there, wrongly bound
        [RED_BAG],  # another kind
        [Thing("dress", "red", "solid", "white")],  # another pattern
    ]
    assert accuracy_by_attribute(asked, shown) == {
        "kind": 3 / 4,
        "colour": 3 / 3,
        "pattern": 0 / 1,
        "binding": 1 / 2,  # of the first two: the others lack something named
        "all": 1 / 4,
    }


def test_accuracy_counts_the_part_only_where_one_is_named() -> None:
    asked = [[Thing("dress", "red", None, "white")], [Thing("dress", "red", None, "green")]]
    assert accuracy_by_attribute(asked, [[RED_DRESS], [RED_DRESS]]) == {
        "kind": 1.0,
        "colour": 1.0,
        "part": 0.5,
        "binding": 0.5,
        "all": 0.5,
    }
    assert accuracy_by_attribute([], []) == {}
    with pytest.raises(ValueError, match="1 queries, 0 images"):
        accuracy_by_attribute([[RED_DRESS]], [])


def test_an_attributes_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "attributes.jsonl"
    path.write_text(
        header_line(7, 60)
        + record_line("image_id", 10, "train", [RED_DRESS, BLUE_BAG])
        + record_line("image_id", 11, "valid", [RED_BAG])
        + record_line("query_id", 1, "valid", [Thing("handbag", "red")])
    )
    assert read_header(path) == {
        "format": "xmr-demo-attributes",
        "version": 1,
        "seed": 7,
        "images": 60,
    }
    everything = read_attributes(tmp_path)
    assert everything.images == {10: (RED_DRESS, BLUE_BAG), 11: (RED_BAG,)}
    assert everything.queries == {1: (Thing("handbag", "red"),)}
    valid = read_attributes(path, "valid")
    assert list(valid.images) == [11]
    assert list(read_attributes(path, "train").queries) == []


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "{}", '{"image_id": 1, "split": "train", "things": [{"size": 3}]}', "7"],
)
def test_a_broken_attributes_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "attributes.jsonl"
    path.write_text(header_line(0, 60) + line + "\n")
    with pytest.raises(DataError) as caught:
        read_attributes(path)
    assert caught.value.where == f"{path}:2"
    assert caught.value.exit_code == 2


def test_another_file_is_not_taken_for_an_attributes_file(tmp_path: Path) -> None:
    other = tmp_path / "attributes.jsonl"
    with pytest.raises(InputError, match="No such file"):
        read_header(other)
    for text in ("", "hello\n", '{"format": "xmr-demo-attributes", "version": 99}\n', "[]\n"):
        other.write_text(text)
        with pytest.raises(DataError, match="not a demo set's"):
            read_header(other)
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a demo set's"):
        read_header(other)
