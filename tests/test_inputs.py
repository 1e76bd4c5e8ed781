"""What Python callers may pass as titles and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagformer_cli.errors import InputError
from bagformer_cli.inputs import image_list, one_title, require_vectors, title_list
from bagformer_cli.vectors.multi_vectors import MultiVectors

PICTURE = Image.new("RGB", (2, 2))


class Series:
    """A column as pandas has it: an index and values."""

    def __iter__(self) -> Any:
        return iter(["红裙", "蓝裤"])

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)


@pytest.mark.parametrize(
    "titles",
    [
        ["红裙", "蓝裤"],
        ("红裙", "蓝裤"),
        np.array(["红裙", "蓝裤"]),
        np.array(["红裙", "蓝裤"], object),
        {"红裙": 1, "蓝裤": 2}.keys().__iter__(),
        Series(),
    ],
    ids=["list", "tuple", "array", "array of objects", "iterator", "series"],
)
def test_titles_come_in_any_ordered_collection(titles: Any) -> None:
    found = title_list(titles)
    assert found == ["红裙", "蓝裤"]
    assert {type(title) for title in found} == {str}


def test_a_single_item_is_a_list_of_one(tmp_path: Path) -> None:
    assert title_list("红裙") == title_list(np.array("红裙")) == ["红裙"]
    for image in (PICTURE, "a.jpg", tmp_path, b"\xff\xd8"):
        assert image_list(image) == [image]
    assert image_list([bytearray(b"\xff\xd8")]) == [b"\xff\xd8"]
    assert title_list([]) == image_list([]) == []


@pytest.mark.parametrize("wrong", [None, 7, 1.5, {"a": 1}, {"a"}, b"text", object()])
def test_what_has_no_order_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="A list of one or more items is expected") as caught:
        title_list(wrong)
    assert type(wrong).__name__ in str(caught.value.found)


@pytest.mark.parametrize(
    "wrong", [None, float("nan"), 7, b"x", ["红"], np.float64("nan")], ids=repr
)
def test_an_item_that_is_no_text_is_named_by_position_and_type(wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        title_list(["红裙", wrong])
    assert caught.value.where == "title 2"
    assert type(wrong).__name__ in str(caught.value.found)
    with pytest.raises(InputError, match="not a text"):
        one_title(wrong)


@pytest.mark.parametrize("blank", ["", "  ", "\u200b\ufeff", "\u3000\n"])
def test_a_title_without_a_character_that_can_be_seen_is_empty(blank: str) -> None:
    with pytest.raises(InputError, match="empty") as caught:
        title_list(["红裙", blank])
    assert caught.value.where == "title 2"


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, ["a.jpg"], np.zeros((2, 2, 3))])
def test_an_item_that_is_no_image_is_named_by_position(wrong: Any) -> None:
    with pytest.raises(InputError, match="not an image") as caught:
        image_list(["a.jpg", PICTURE, wrong])
    assert caught.value.where == "image 3"


def test_scores_are_of_vectors() -> None:
    with pytest.raises(InputError, match="images") as caught:
        require_vectors(["a.jpg"], MultiVectors, "images", "encode_images")
    assert "encode_images" in str(caught.value.expected)
