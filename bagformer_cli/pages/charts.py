"""Charts as SVG, drawn in the colours of the page.

Only what the pages need: lines over a logarithmic axis, and two histograms over each other. An SVG
of a plotting library would bring fonts and colours that do not follow the reader's light or dark
screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
COLOURS = ("var(--accent)", "var(--second)")


@dataclass(frozen=True)
class Series:
    """A named line or histogram.

    Attributes:
        name: Its name in the legend.
        values: Its values.
    """

    name: str
    values: NDArray[np.float64]


def recall_curves(series: Sequence[Series], x_label: str, y_label: str) -> Markup:
    """Draw recall@k, in percent, over k = 1, 2, … on a logarithmic axis.

    Args:
        series: At most two lines; value i belongs to k = i + 1.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
    """
    longest = max(len(one.values) for one in series)
    span = math.log(max(longest, 2))

    def x(k: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(k) / span

    parts = _frame(x_label, y_label)
    for percent in range(0, 101, 20):
        parts.append(_grid_line(_y(percent / 100), f"{percent}"))
    for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if k <= longest:
            parts.append(_tick(x(k), str(k)))
    for one, colour in zip(series, COLOURS, strict=False):
        points = " ".join(
            f"{x(i + 1):.1f},{_y(value):.1f}" for i, value in enumerate(one.values.tolist())
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return _svg(parts, series)


def histograms(series: Sequence[Series], x_label: str, y_label: str, bins: int = 40) -> Markup:
    """Draw the distributions of values over each other.

    Args:
        series: At most two sets of values.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        bins: Number of bars.
    """
    finite = [one.values[np.isfinite(one.values)] for one in series]
    together = np.concatenate(finite) if finite else np.zeros(1)
    low, high = (float(together.min()), float(together.max())) if len(together) else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts = [np.histogram(values, edges)[0] for values in finite]
    most = max(1, *(int(one.max(initial=0)) for one in counts))
    width = (WIDTH - LEFT - RIGHT) / bins
    parts = _frame(x_label, y_label)
    for share in (0, 0.5, 1):
        parts.append(_grid_line(_y(share), f"{most * share:,.0f}"))
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(_tick(LEFT + (WIDTH - LEFT - RIGHT) * step / 4, f"{value:.2f}"))
    for one, colour in zip(counts, COLOURS, strict=False):
        for i, count in enumerate(one.tolist()):
            top = _y(count / most)
            parts.append(
                f'<rect x="{LEFT + i * width:.1f}" y="{top:.1f}" width="{width:.1f}" '
                f'height="{_y(0) - top:.1f}" fill="{colour}" fill-opacity="0.55"/>'
            )
    return _svg(parts, series)


def _y(share: float) -> float:
    """Return the vertical position of a share of the axis, from 0 to 1."""
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _frame(x_label: str, y_label: str) -> list[str]:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="{LEFT}" y="{TOP - 2}">{escape(y_label)}</text>',
    ]


def _grid_line(y: float, label: str) -> str:
    return (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def _tick(x: float, label: str) -> str:
    y = HEIGHT - BOTTOM
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}" stroke="var(--quiet)"/>'
        f'<text x="{x:.1f}" y="{y + 17}" text-anchor="middle">{escape(label)}</text>'
    )


def _svg(parts: Sequence[str], series: Sequence[Series]) -> Markup:
    names = ", ".join(one.name for one in series)
    legend = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(one.name)}</span>'
        for one, colour in zip(series, COLOURS, strict=False)
    )
    return Markup(
        f'<figure class="chart"><figcaption>{legend}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(names)}">'
        f"{''.join(parts)}</svg></figure>"
    )
