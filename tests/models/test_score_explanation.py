"""What a score is made of: the pieces of the title, and where in the image each fits best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bagformer_cli.api import Retriever
from bagformer_cli.config import load_config
from bagformer_cli.errors import InputError
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.score_explanation import GridCell, image_cells
from bagformer_cli.training.initial_model import new_model
from tests.support.datasets import picture
from tests.support.small_model import TINY, saved_model, small_model

TITLE = "红色碎花连衣裙 2件装"
BAGS = ["红色", "碎花", "连衣裙", "2件装"]
GRID = [GridCell(row, column, 4, 4) for row in range(1, 5) for column in range(1, 5)]


def model(*settings: str) -> RetrievalModel:
    torch.manual_seed(0)
    return new_model(load_config("demo", [*TINY, "image.size=32", *settings])).eval()


def test_a_place_is_counted_from_one_and_its_middle_is_in_percent() -> None:
    place = GridCell(row=1, column=8, rows=4, columns=8)
    assert (place.x, place.y) == (93.75, 12.5)


@pytest.mark.parametrize(
    ("settings", "cells"),
    [
        ([], [None, *GRID]),  # the class vector comes first
        (["model.image_first=false"], GRID),
        (["model.codes=2"], [None, *GRID, None, None]),
        (
            ["model.keep=8"],
            [GridCell(row, column, 2, 4) for row in (1, 2) for column in (1, 2, 3, 4)],
        ),
        (["model.interaction=cls"], [None]),
        (["model.keep=1"], [None]),
    ],
)
def test_every_vector_of_an_image_has_its_grid_cell(
    settings: list[str], cells: list[GridCell | None]
) -> None:
    small = model(*settings)
    (vectors,) = Retriever(small).encode_images([picture(0)])
    assert image_cells(small, len(vectors)) == cells


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ([], BAGS),
        (["model.bag_fusion=early"], BAGS),
        (["model.interaction=tokenwise"], [*"红色碎花连衣裙", "2", "件", "装"]),
        (["model.codes=2"], [*BAGS, None, None]),
        (["model.keep=3"], [None, "红色", "碎花"]),
        (["model.keep=3", "model.codes=1"], [None, "红色", "碎花", None]),
        (["model.interaction=cls"], [None]),
        (["text.max_tokens=8"], ["红色", "碎花", "连衣"]),
    ],
)
def test_every_vector_of_a_title_has_its_characters(
    settings: list[str], pieces: list[str | None]
) -> None:
    retriever = Retriever(model(*settings))
    (found,) = retriever.explain(picture(0), [TITLE])
    assert [part.text for part in found.parts] == pieces


def test_the_parts_sum_to_the_score() -> None:
    retriever = Retriever(model())
    titles = [TITLE, "蓝色牛仔裤"]
    scores = retriever.score(retriever.encode_images([picture(3)]), retriever.encode_texts(titles))
    for i, found in enumerate(retriever.explain(picture(3), titles)):
        assert found.title == titles[i]
        assert sum(part.score for part in found.parts) == pytest.approx(found.t2i, rel=1e-5)
        assert found.t2i == pytest.approx(scores.t2i[i, 0].item(), rel=1e-5)
        assert found.i2t == pytest.approx(scores.i2t[0, i].item(), rel=1e-5)


def test_a_bag_meets_the_patch_that_is_closest() -> None:
    retriever = Retriever(model())
    (image,) = retriever.encode_images([picture(0)])
    (words,) = retriever.encode_texts([TITLE])
    (found,) = retriever.explain(picture(0), [TITLE])
    for part, best in zip(found.parts, (words @ image.T).argmax(1).tolist(), strict=True):
        assert part.cell == [None, *GRID][best]


def test_regions_have_no_grid() -> None:
    reads_regions = model(
        "image.regions={width: 8, maximum: 4, boxes: false}", "model.cross=null", "objectives.itm=0"
    )
    with pytest.raises(InputError, match="no patch grid"):
        image_cells(reads_regions, 4)


def test_xmr_score_explains(tmp_path: Path, xmr: Callable[..., Any]) -> None:
    folder = saved_model(tmp_path / "model")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "image.png")
    wanted = ["score", tmp_path / "image.png", TITLE, "--checkpoint", folder, "--explain"]
    found = xmr(*wanted, "--json").json()
    (parts,) = found["explained"]
    assert [part["text"] for part in parts] == BAGS
    assert sum(part["score"] for part in parts) == pytest.approx(
        found["text_to_image"][0], rel=1e-5
    )
    for part in parts:
        assert part["patch"] is None or set(part["patch"]) == {
            "row", "column", "rows", "columns", "x", "y"
        }  # fmt: skip
    shown = xmr(*wanted).out
    for words in (*BAGS, "part of the score", "best patch"):
        assert words in shown
    assert "(left" in shown or "whole image" in shown


def test_a_single_title_is_a_list_of_one() -> None:
    retriever = Retriever(small_model())
    single, listed = retriever.encode_texts("红色"), retriever.encode_texts(["红色"])
    assert torch.equal(single.values, listed.values)
