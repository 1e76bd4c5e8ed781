"""Recall against bytes per image: the storage types, the table and the plot."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from bagformer_cli.interaction import MultiVectors
from recall_vs_bytes import COLOURS, Point, plot, results_table, store_as


@pytest.mark.parametrize(
    ("name", "size"),
    [("float32", 64), ("float16", 32), ("int8", 16), ("residual4", 10)],
)
def test_vectors_are_stored_in_the_named_type(name: str, size: int) -> None:
    values = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    items = MultiVectors(values, torch.tensor([0, 20, 60]))
    stored = store_as(items, name)
    assert stored.storage == name
    assert stored.nbytes == 60 * size + (8 if name == "int8" else 0)


def test_the_plot_has_every_point_and_a_label_for_every_reduction(tmp_path: Path) -> None:
    points = [
        Point(reduction, name, 3, 100 + 7 * i, 50 + i)
        for reduction in ("all", "pool 2")
        for i, name in enumerate(COLOURS)
    ]
    plot(points, tmp_path / "p.svg", "title")
    assert results_table(points)[2].startswith("| all | 3 | 100: 50.0 | 107: 51.0 |")
    assert len(results_table(points)) == 4
    drawn = ElementTree.parse(tmp_path / "p.svg").getroot()
    kind = "{http://www.w3.org/2000/svg}"
    circles = drawn.findall(f"{kind}circle")
    assert len(circles) == len(points) + len(COLOURS)
    labels = [text.text for text in drawn.findall(f"{kind}text")]
    assert labels.count("all") == labels.count("pool 2") == 1
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < 860
        assert 0 < float(circle.attrib["cy"]) < 600
