"""Accuracy of the first image by attribute."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bagformer_cli.data.attributes import Thing, header_line, record_line
from bagformer_cli.evaluation.attributes import accuracy_by_attribute, first_image_accuracy

RED_DRESS = Thing("dress", "red", "dots", "white")
BLUE_BAG = Thing("handbag", "blue", "solid", "black")
BLUE_DRESS = Thing("dress", "blue", "dots", "white")
RED_BAG = Thing("handbag", "red", "solid", "black")


def test_accuracy_by_attribute_by_hand() -> None:
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


def test_queries_that_the_file_does_not_describe_are_left_out(tmp_path: Path) -> None:
    split: Any = SimpleNamespace(
        name="valid", query_ids=np.array([1, 2, 3]), image_ids=np.array([10, 11])
    )
    assert first_image_accuracy(tmp_path, split, np.array([0, 0, 0])) == {}
    (tmp_path / "attributes.jsonl").write_text(
        header_line({})
        + record_line("image_id", 10, "valid", [RED_DRESS])
        + record_line("query_id", 1, "valid", [Thing("dress")])
        + record_line("query_id", 3, "valid", [Thing("dress")])
    )
    found = first_image_accuracy(tmp_path, split, np.array([0, 0, 1]))  # image 11 is not described
    assert found == {"kind": 50.0, "binding": 100.0, "all": 50.0}
