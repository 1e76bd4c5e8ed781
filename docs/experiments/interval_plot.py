"""Draw differences with their intervals as an SVG file (a forest plot).

::

    label of a row   ├────●────┤          ● the interval lies above zero
                          ├───○────┤      ○ it does not; one line for each series
                          0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bagformer_cli.evaluation.compare import Difference
from bagformer_cli.files import write_text

COLOURS = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd")
WIDTH, MARGIN = 860, 24
TOP, BOTTOM = 58, 52
LINE, GAP = 14, 10
"""Height of one interval, and space between rows."""
CHARACTER = 6.6
"""Mean width of a character, which makes room for the labels."""


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One row of the plot.

    Attributes:
        label: Its name, at the left.
        differences: One difference for each series; None: it was not measured.
    """

    label: str
    differences: Sequence[Difference | None]


def interval_plot(
    rows: Sequence[IntervalRow], series: Sequence[str], path: Path, title: str, x_label: str
) -> None:
    """Draw every difference as a point on the line of its 95 % interval.

    Args:
        rows: The rows, from the top.
        series: Names of the differences of a row, at most four; a single one has no legend.
        path: SVG file to write.
        title: Line above the plot.
        x_label: What the differences are, and their unit.

    Raises:
        ValueError: There is nothing to draw, or there are more series than colours.
    """
    drawn = [one for row in rows for one in row.differences if one is not None]
    if not drawn or len(series) > len(COLOURS):
        raise ValueError(f"{len(drawn)} differences of {len(series)} series cannot be drawn")
    low = 5 * math.floor(min(0.0, *(one.lower for one in drawn)) / 5)
    high = 5 * math.ceil(max(5.0, *(one.upper for one in drawn)) / 5)
    left = MARGIN + CHARACTER * max(len(row.label) for row in rows)
    row_height = LINE * len(series) + GAP
    bottom = TOP + row_height * len(rows)
    height = bottom + BOTTOM

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - MARGIN - left)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{MARGIN}" y="22" font-size="14">{escape(title)}</text>',
    ]
    if len(series) > 1:
        parts += _legend(series)
    for value in range(low, high + 1, 5):
        colour, tick = ("#eee", f"{value:+d}".replace("-", "−")) if value else ("#888", "0")
        parts.append(
            f'<path d="M{x(value):.1f} {TOP}V{bottom}" stroke="{colour}"/>'
            f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{tick}</text>'
        )
    middle = (x(low) + x(high)) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{bottom + 40}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for number, row in enumerate(rows):
        top = TOP + number * row_height + GAP / 2
        centre = top + LINE * len(series) / 2
        parts.append(
            f'<text x="{left - 10:.0f}" y="{centre + 4:.1f}" text-anchor="end">'
            f"{escape(row.label)}</text>"
        )
        for place, (one, colour) in enumerate(zip(row.differences, COLOURS, strict=False)):
            if one is None:
                continue
            y = top + LINE * (place + 0.5)
            fill = colour if one.supported else "white"
            parts.append(
                f'<path d="M{x(one.lower):.1f} {y:.1f}H{x(one.upper):.1f}" stroke="{colour}"/>'
                f'<circle cx="{x(one.mean):.1f}" cy="{y:.1f}" r="4" '
                f'fill="{fill}" stroke="{colour}"/>'
            )
    write_text(path, "\n".join([*parts, "</svg>"]) + "\n")


def _legend(series: Sequence[str]) -> list[str]:
    """Return the names of the series with their colours, in one line under the title."""
    parts, left = [], float(MARGIN)
    for name, colour in zip(series, COLOURS, strict=False):
        parts.append(
            f'<rect x="{left:.0f}" y="36" width="10" height="10" fill="{colour}"/>'
            f'<text x="{left + 16:.0f}" y="45">{escape(name)}</text>'
        )
        left += 16 + CHARACTER * len(name) + 20
    return parts
