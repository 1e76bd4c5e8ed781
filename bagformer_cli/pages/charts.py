"""Charts as SVG, drawn in the colours of the page.

Only what the pages need: recall over a logarithmic axis, two histograms over each other, and curves
of training. An SVG of a plotting library would bring fonts and colours that do not follow the
reader's light or dark screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
COLOURS = ("var(--accent)", "var(--second)")
RUN_COLOURS = tuple(f"var(--run{number})" for number in range(1, 9))
"""Colours of :func:`line_chart`; the template defines them for light and dark screens."""

DASHES = ("", "7 3", "2 3")
"""Patterns of the lines, so that more lines than colours differ."""

MOST_POINTS = 300
"""A longer line is drawn through means of neighbouring points: the chart is 400 pixels wide."""

UNLIMITED = (-math.inf, math.inf)
"""Limits of values that may be any number."""

_MARKED = 30  # a line of at most 30 points shows each of them


@dataclass(frozen=True)
class Series:
    """A named line or histogram.

    Attributes:
        name: Its name in the legend.
        values: Its values.
    """

    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A curve of :func:`line_chart`.

    Attributes:
        name: Its name, shown by a pointer that rests on it.
        x: Horizontal positions, in increasing order.
        y: One finite value for each of them.
        style: Number of its colour and pattern, from 0.
        level: A value drawn as a dotted horizontal line, for comparison; None: none.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    style: int = 0
    level: float | None = None


def line_style(number: int) -> tuple[str, str]:
    """Return the colour and the dash pattern of a line, by its number."""
    colours = len(RUN_COLOURS)
    return RUN_COLOURS[number % colours], DASHES[number // colours % len(DASHES)]


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    *,
    logarithmic: bool = False,
    limits: tuple[float, float] = UNLIMITED,
) -> Markup:
    """Draw curves over a linear horizontal axis that begins at 0.

    Args:
        title: The name of the values.
        lines: The curves; one without points draws nothing.
        x_label: Name of the horizontal axis.
        logarithmic: Use a logarithmic vertical axis where all values are positive.
        limits: Least and greatest value that there can be: the vertical axis stays within them.
    """
    drawn = [_thinned(line) for line in lines if len(line.x)]
    values = [*(line.y for line in drawn), *(np.array([line.level]) for line in drawn
                                             if line.level is not None)]  # fmt: skip
    together = np.concatenate(values) if values else np.zeros(1)
    logarithmic = logarithmic and bool((together > 1e-30).all())
    scale = np.log10 if logarithmic else np.asarray
    ticks = _decades(together) if logarithmic else _axis(together.min(), together.max(), limits)
    low = min(float(together.min()), ticks[0])
    high = max(float(together.max()), ticks[-1])
    bottom, span = float(scale(low)), max(float(scale(high) - scale(low)), 1e-12)
    most = max((float(line.x[-1]) for line in drawn), default=1.0) or 1.0

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / most

    def y(value: float) -> float:
        return _y((float(scale(value)) - bottom) / span)

    parts = [_x_title(x_label)]
    parts += [_grid_line(y(value), _number(value)) for value in ticks]
    parts += [_tick(x(value), _number(value)) for value in _round_numbers(0, most) if value <= most]
    for line in drawn:
        colour, dash = line_style(line.style)
        stroke = f'stroke="{colour}" stroke-dasharray="{dash}"'
        points = [(x(a), y(b)) for a, b in zip(line.x.tolist(), line.y.tolist(), strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        marks = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in points
        )
        level = ""
        if line.level is not None:
            at = f"{y(line.level):.1f}"
            level = (
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="{colour}" '
                'stroke-dasharray="1 4"/>'
            )
        parts.append(
            f"<g><title>{escape(line.name)}</title>{level}"
            f'<polyline points="{path}" fill="none" {stroke} stroke-width="2"/>'
            f"{marks if len(points) <= _MARKED else ''}</g>"
        )
    ends = "; ".join(f"{line.name}: {_number(line.y[0])} → {_number(line.y[-1])}" for line in drawn)
    return Markup(
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}. '
        f'{escape(ends)}">{"".join(parts)}</svg></figure>'
    )


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


def _thinned(line: Line) -> Line:
    """Replace neighbouring points by their means where a line has too many."""
    if len(line.x) <= MOST_POINTS:
        return line
    starts = np.linspace(0, len(line.x), MOST_POINTS + 1).astype(int)[:-1]
    sizes = np.diff([*starts, len(line.x)])
    x, y = (np.add.reduceat(values, starts) / sizes for values in (line.x, line.y))
    return replace(line, x=x, y=y)


def _axis(low: float, high: float, limits: tuple[float, float]) -> list[float]:
    """Return round numbers that cover a range, without those that no value can reach.

    >>> _axis(80, 80, UNLIMITED), _axis(80, 80, (0, 100)), _axis(0, 0, (0, 1))
    ([40.0, 60.0, 80.0, 100.0, 120.0], [40.0, 60.0, 80.0, 100.0], [0.0, 0.2, 0.4, 0.6])
    """
    least, most = min(limits[0], low), max(limits[1], high)  # of a damaged log, perhaps
    return [number for number in _round_numbers(low, high) if least <= number <= most]


def _round_numbers(low: float, high: float) -> list[float]:
    """Return three to seven round numbers that cover a range.

    >>> _round_numbers(0, 480)
    [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]
    """
    low, high = float(low), float(high)
    if high - low < 1e-9 * max(abs(high), 1e-6):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999), default=raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _decades(values: NDArray[np.float64]) -> list[float]:
    """Return powers of ten that cover positive values, at most seven of them."""
    first = math.floor(math.log10(values.min()))
    last = max(math.ceil(math.log10(values.max())), first + 1)
    return [10.0**power for power in range(first, last + 1, (last - first) // 6 + 1)]


def _number(value: float) -> str:
    """Write a number of an axis.

    >>> _number(0.0005), _number(0.00295), _number(20.0), _number(12000.0)
    ('0.0005', '0.00295', '20', '12,000')
    """
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.5g}".replace("e-0", "e-").replace("e+0", "e")


def _y(share: float) -> float:
    """Return the vertical position of a share of the axis, from 0 to 1."""
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _frame(x_label: str, y_label: str) -> list[str]:
    return [_x_title(x_label), f'<text x="{LEFT}" y="{TOP - 2}">{escape(y_label)}</text>']


def _x_title(label: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>'


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
