"""The plot of differences: every interval is drawn, and zero separates the supported ones."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bagformer_cli.evaluation.compare import Difference
from interval_plot import COLOURS, WIDTH, IntervalRow, interval_plot

SVG = "{http://www.w3.org/2000/svg}"
BETTER, OPEN = Difference(4.0, 1.0, 7.0), Difference(2.0, -3.0, 7.0)


def drawn(rows: list[IntervalRow], series: list[str], path: Path) -> ElementTree.Element:
    interval_plot(rows, series, path, "a < b & c", "points")
    return ElementTree.parse(path).getroot()


def test_every_difference_has_a_point_and_every_row_a_label(tmp_path: Path) -> None:
    rows = [IntervalRow("first", [BETTER, OPEN]), IntervalRow("second", [None, BETTER])]
    root = drawn(rows, ["one", "two"], tmp_path / "p.svg")
    points = root.findall(f"{SVG}circle")
    assert [point.attrib["fill"] for point in points] == [COLOURS[0], "white", COLOURS[1]]
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert {"a < b & c", "points", "first", "second", "one", "two", "0", "+5"} <= set(texts)


def test_a_point_lies_on_its_side_of_zero_and_in_the_middle_of_its_interval(
    tmp_path: Path,
) -> None:
    worse = Difference(-12.0, -14.0, -10.0)
    root = drawn([IntervalRow("a", [BETTER]), IntervalRow("b", [worse])], [""], tmp_path / "p.svg")
    ticks = {text.text: float(text.attrib["x"]) for text in root.findall(f"{SVG}text")}
    right, left = (float(point.attrib["cx"]) for point in root.findall(f"{SVG}circle"))
    step = ticks["+5"] - ticks["0"]
    assert right - ticks["0"] == pytest.approx(4 / 5 * step, abs=0.2)
    assert left - ticks["0"] == pytest.approx(-12 / 5 * step, abs=0.2)
    assert all(0 < x < WIDTH for x in ticks.values())


def test_a_long_label_leaves_room_for_the_plot(tmp_path: Path) -> None:
    label = "fast, steps × 3 + captioner rerank − fast, steps × 5"
    root = drawn([IntervalRow(label, [BETTER])], [""], tmp_path / "p.svg")
    (point,) = root.findall(f"{SVG}circle")
    end = next(float(t.attrib["x"]) for t in root.findall(f"{SVG}text") if t.text == label)
    assert end < float(point.attrib["cx"]) < WIDTH


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 differences of 1 series"):
        interval_plot([IntervalRow("a", [None])], [""], tmp_path / "p.svg", "", "")
    assert not (tmp_path / "p.svg").exists()
