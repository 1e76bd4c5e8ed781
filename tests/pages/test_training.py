"""The page of training runs: every curve, every run, nothing from outside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.pages.charts import MOST_POINTS, Line, line_chart
from bagformer_cli.pages.training import training_page
from bagformer_cli.training.run_history import read_histories
from tests.training.test_run_history import LINES, train_line, write_run


def points(chart: str) -> list[list[tuple[float, float]]]:
    """Read the points of each curve of a chart."""
    return [
        [(float(a), float(b)) for a, b in (pair.split(",") for pair in line.split())]
        for line in re.findall(r'<polyline points="([^"]*)"', chart)
    ]


def test_a_chart_keeps_the_order_of_values() -> None:
    line = Line("a", np.array([0.0, 50.0, 100.0]), np.array([3.0, 1.0, 2.0]), level=5.0)
    (drawn,) = points(line_chart("loss", [line], "step"))
    x, y = zip(*drawn, strict=True)
    assert x[0] < x[1] < x[2]
    assert y[0] < y[2] < y[1]  # an SVG counts from the top
    assert "3 → 2" in line_chart("loss", [line], "step")


@pytest.mark.parametrize(
    "values", [[0.0], [2.5, 2.5], [-3.0, 3.0], [1e-9, 1e9], [1e300, -1e300], [5e-324, 1.0]]
)
@pytest.mark.parametrize("logarithmic", [False, True])
def test_any_values_have_a_chart_within_its_frame(values: list[float], logarithmic: bool) -> None:
    line = Line("a", np.arange(1.0, len(values) + 1), np.array(values))
    chart = line_chart("loss", [line], "step", logarithmic=logarithmic)
    (drawn,) = points(chart)
    assert all(0 <= a <= 460 and 0 <= b <= 260 for a, b in drawn)
    assert "nan" not in chart


def test_a_long_curve_is_drawn_through_means() -> None:
    line = Line("a", np.arange(90_000.0), np.tile([0.0, 1.0], 45_000))
    (drawn,) = points(line_chart("loss", [line], "step"))
    assert len(drawn) == MOST_POINTS
    assert "0.5 → 0.5" in line_chart("loss", [line], "step")


@pytest.mark.parametrize(("value", "limits"), [(80.0, (0, 100)), (100.0, (0, 100)), (0.0, (0, 1))])
def test_an_axis_stays_within_the_limits_of_its_values(
    value: float, limits: tuple[float, float]
) -> None:
    line = Line("a", np.array([10.0]), np.array([value]))

    def ticks(chart: str) -> list[float]:
        return [float(text) for text in re.findall(r'text-anchor="end">([^<]*)<', chart)]

    drawn = ticks(line_chart("share", [line], "step", limits=limits))
    assert len(drawn) >= 3
    assert limits[0] <= min(drawn) <= value <= max(drawn) <= limits[1]
    free = ticks(line_chart("share", [line], "step"))
    assert min(free) < limits[0] or max(free) > limits[1]


@pytest.mark.parametrize("value", [-1.0, 1.2, 100.0, 1e9])
def test_a_value_outside_its_limits_is_drawn_all_the_same(value: float) -> None:
    line = Line("damaged log", np.array([1.0, 2.0]), np.array([value, value]))
    (drawn,) = points(line_chart("share", [line], "step", limits=(0, 1)))
    assert all(0 <= a <= 460 and 0 <= b <= 260 for a, b in drawn)


def test_lines_beyond_the_colours_have_other_patterns() -> None:
    lines = [Line(str(n), np.arange(2.0), np.arange(2.0), n) for n in range(20)]
    chart = line_chart("loss", lines, "step")
    styles = re.findall(r'(stroke="[^"]*" stroke-dasharray="[^"]*") stroke-width', chart)
    assert len(set(styles)) == 20


def test_the_page_has_what_the_runs_have(tmp_path: Path) -> None:
    first = write_run(tmp_path / "<b>a</b>", [*LINES, train_line(31, gradient_norm=2.0)])
    second = write_run(tmp_path / "b", LINES[:2], learning_rate=0.1)
    page = training_page(read_histories([first, second]))
    for title in ("text → image, %", "ITC loss", "learning rate", "gradient norm"):
        assert title in page, title
    assert "pairs per second" not in page
    assert page.count("<polyline") == 2 * 5 + 1
    assert "training.learning_rate" in page
    assert "<b>a</b>" not in page
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)


def test_a_run_without_figures_has_a_page(tmp_path: Path) -> None:
    page = training_page(read_histories([write_run(tmp_path / "a", [])]))
    assert "no figures are recorded yet" in page
    assert "<polyline" not in page


def test_xmr_report(tmp_path: Path, xmr: Callable[..., Any]) -> None:
    one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b", LINES[:3], learning_rate=0.1)
    file = tmp_path / "report.html"
    run = xmr("report", one, other, "--output", file, "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert [one["steps"] for one in report["runs"]] == [30, 30]
    assert report["differing_settings"] == {"training.learning_rate": [0.001, 0.1]}
    assert file.read_text("utf-8").lstrip().startswith("<!doctype html>")
    shown = xmr("report", one, other, "--output", file)
    assert "training.learning_rate" in shown.out


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_axe_finds_no_serious_fault(tmp_path: Path, scheme: Any, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright import sync_api

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    file = tmp_path / "report.html"
    file.write_text(training_page(read_histories(runs)), "utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        browser.close()
