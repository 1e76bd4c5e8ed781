"""``attributes.jsonl``: what images show, what queries name, and columns for an index."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagformer_cli.data.attributes import (
    Thing,
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


NAMES = {"kind": {"dress": "连衣裙"}, "colour": {"red": "红色"}}


def write_attributes(path: Path, header: str) -> None:
    path.write_text(
        header
        + record_line("image_id", 10, "train", [RED_DRESS, BLUE_BAG])
        + record_line("image_id", 11, "valid", [RED_BAG])
        + record_line("query_id", 1, "valid", [Thing("handbag", "red")]),
        "utf-8",
    )


def test_an_attributes_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "attributes.jsonl"
    write_attributes(path, header_line(NAMES, seed=7))
    assert read_header(path) == {
        "format": "xmr-attributes",
        "version": 1,
        "seed": 7,
        "names": NAMES,
    }
    everything = read_attributes(tmp_path)
    assert everything.images == {10: (RED_DRESS, BLUE_BAG), 11: (RED_BAG,)}
    assert everything.queries == {1: (Thing("handbag", "red"),)}
    valid = read_attributes(path, "valid")
    assert list(valid.images) == [11]
    assert list(read_attributes(path, "train").queries) == []


def test_columns_are_those_of_the_first_thing_with_the_names_to_show(tmp_path: Path) -> None:
    write_attributes(tmp_path / "attributes.jsonl", header_line(NAMES))
    known = read_attributes(tmp_path)
    assert known.columns(10) == {"category": "连衣裙", "colour": "红色", "pattern": "dots"}
    assert known.columns(11) == {"category": "handbag", "colour": "红色", "pattern": "solid"}
    assert known.columns(12) == {}


def test_the_file_of_an_older_demo_set_has_keys_for_names(tmp_path: Path) -> None:
    old = '{"format": "xmr-demo-attributes", "version": 1, "seed": 7, "images": 60}\n'
    write_attributes(tmp_path / "attributes.jsonl", old)
    assert read_attributes(tmp_path).columns(10) == {
        "category": "dress",
        "colour": "red",
        "pattern": "dots",
    }


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "{}", '{"image_id": 1, "split": "train", "things": [{"size": 3}]}', "7"],
)
def test_a_broken_attributes_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "attributes.jsonl"
    path.write_text(header_line({}) + line + "\n")
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
        with pytest.raises(DataError, match="not an attributes file"):
            read_header(other)
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not an attributes file"):
        read_header(other)
