"""Recall against bytes: the types that are compared, and the picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from bagformer_cli.bench.fewer import COLOURS, Point, plot, stored_as, table
from bagformer_cli.interaction import MultiVectors


@pytest.mark.parametrize(
    ("name", "size"),
    [("float32", 64), ("float16", 32), ("int8", 16), ("residual4", 10), ("residual2", 6)],
)
def test_every_type_is_stored_as_it_is_called(name: str, size: int) -> None:
    values = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    items = MultiVectors(values, torch.tensor([0, 20, 60]))
    stored = stored_as(items, name)
    assert stored.storage == name
    assert stored.nbytes == 60 * size + (8 if name == "int8" else 0)


def test_the_picture_has_every_point_and_names_every_way(tmp_path: Path) -> None:
    points = [
        Point(way, name, 3, 100 + 7 * i, 0, 50 + i)
        for way in ("all", "pool 2")
        for i, name in enumerate(COLOURS)
    ]
    plot(points, tmp_path / "p.svg", "title")
    assert table(points)[2].startswith("| all | 3 | 100: 50.0 | 107: 51.0 |")
    assert len(table(points)) == 4
    drawn = ElementTree.parse(tmp_path / "p.svg").getroot()
    kind = "{http://www.w3.org/2000/svg}"
    circles = drawn.findall(f"{kind}circle")
    assert len(circles) == len(points) + len(COLOURS)
    said = [text.text for text in drawn.findall(f"{kind}text")]
    assert said.count("all") == said.count("pool 2") == 1
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < 860
        assert 0 < float(circle.attrib["cy"]) < 600
