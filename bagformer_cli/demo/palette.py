"""Twelve colours and eight patterns: their names, their pixels, and which go together.

A pattern is a set of masks, drawn once per process on a large sheet. For each thing a random part
of the sheet is cut out and laid over the base colour; marks are light on dark colours and dark on
light ones.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Colour:
    """One of the twelve colours.

    Args:
        key: Key in ``attributes.jsonl``.
        rgb: Red, green and blue, 0 to 255.
        name: Most frequent name in titles and queries.
        others: Other names.
    """

    key: str
    rgb: RGB
    name: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One of the eight patterns or materials; the fields are those of :class:`Colour`."""

    key: str
    name: str
    others: tuple[str, ...]


COLOURS: tuple[Colour, ...] = (
    Colour("red", (212, 32, 40), "红色", ("大红色", "正红色")),
    Colour("orange", (245, 128, 26), "橙色", ("橘色",)),
    Colour("yellow", (250, 214, 40), "黄色", ("明黄色",)),
    Colour("green", (44, 146, 62), "绿色", ("草绿色",)),
    Colour("cyan", (46, 190, 200), "青色", ("湖青色",)),
    Colour("blue", (36, 78, 200), "蓝色", ("宝蓝色",)),
    Colour("purple", (126, 58, 172), "紫色", ("葡萄紫",)),
    Colour("pink", (250, 156, 192), "粉色", ("粉红色",)),
    Colour("brown", (118, 72, 42), "棕色", ("咖啡色",)),
    Colour("black", (34, 34, 38), "黑色", ("纯黑色",)),
    Colour("white", (247, 247, 245), "白色", ("纯白色",)),
    Colour("grey", (146, 149, 154), "灰色", ("烟灰色",)),
)

PATTERNS: tuple[Pattern, ...] = (
    Pattern("solid", "纯色", ("素色",)),
    Pattern("stripes", "条纹", ("横条纹",)),
    Pattern("dots", "波点", ("圆点",)),
    Pattern("plaid", "格子", ("格纹",)),
    Pattern("floral", "碎花", ("印花",)),
    Pattern("leopard", "豹纹", ("豹点",)),
    Pattern("gradient", "渐变", ("渐变色",)),
    Pattern("sequins", "亮片", ("闪片",)),
)

COLOUR_KEYS = tuple(colour.key for colour in COLOURS)
PATTERN_KEYS = tuple(pattern.key for pattern in PATTERNS)
SOLID = PATTERN_KEYS.index("solid")
GRADIENT = PATTERN_KEYS.index("gradient")
WHITE = COLOUR_KEYS.index("white")
GREY = COLOUR_KEYS.index("grey")

SHEET = 640
"""Side of a pattern sheet in pixels; the largest size of a thing."""


def goes_together(colour: int, pattern: int) -> bool:
    """Say whether a pattern is visible in a colour; a gradient from white to white is not."""
    return not (pattern == GRADIENT and colour in (WHITE, GREY))


def jitter(rgb: RGB, rng: random.Random, spread: float = 9.0) -> RGB:
    """Vary ``rgb`` a little, as another lamp or another dye would."""
    gain = rng.uniform(0.95, 1.04)
    r, g, b = (max(0, min(255, round(c * gain + rng.uniform(-spread, spread)))) for c in rgb)
    return r, g, b


def mix(one: RGB, two: RGB, share: float) -> RGB:
    """Mix ``one`` with ``share`` (0 to 1) of ``two``."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(one, two, strict=True))
    return r, g, b


def lightness(rgb: RGB) -> float:
    """Compute the perceived lightness, 0 to 255."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def cloth(size: int, rgb: RGB, pattern: str, rng: random.Random) -> Image.Image:
    """Make a square of cloth: ``size`` pixels of colour ``rgb`` with ``pattern`` on it.

    Args:
        size: Side in pixels, at most :data:`SHEET`.
        rgb: The base colour.
        pattern: A key of :data:`PATTERNS`, but for ``solid``.
        rng: Decides variant and place of the marks.
    """
    base = Image.new("RGB", (size, size), rgb)
    light = lightness(rgb)
    pale = (252, 250, 244) if light < 205 else (74, 70, 92)
    dark = mix(rgb, (20, 14, 12), 0.72) if light > 92 else mix(rgb, (214, 178, 128), 0.85)
    if pattern == "gradient":
        # a fade to a pale tint towards the bottom or the side
        fade = _fade().resize((size, size), Image.Resampling.NEAREST)
        if rng.random() < 0.3:
            fade = fade.transpose(Image.Transpose.ROTATE_90)
        base.paste(mix(rgb, (255, 255, 255), 0.93), mask=fade)
        return base
    marks = {
        "stripes": (pale,),
        "dots": (pale,),
        "plaid": (mix(rgb, dark, 0.75), pale),
        "floral": ((58, 128, 66) if light > 80 else (120, 190, 120), pale, (250, 190, 40)),
        "leopard": (dark, mix(rgb, dark, 0.45)),
        "sequins": (mix(rgb, (0, 0, 0), 0.42), mix(rgb, (255, 255, 255), 0.8)),
    }[pattern]
    if pattern == "floral" and light < 205:
        marks = (marks[0], rng.choice([pale, (255, 214, 226), (255, 240, 190)]), marks[2])
    zoom = max(1.0, min(2.0, 1.25 * (size / 128) ** 0.5))  # larger things, larger marks
    masks = _sheets(pattern, rng.randrange(VARIANTS[pattern]))
    side = min(SHEET, max(1, round(size / zoom)))
    x, y = rng.randrange(SHEET - side + 1), rng.randrange(SHEET - side + 1)
    for rgb_of_mark, sheet in zip(marks, masks, strict=True):
        crop = sheet.crop((x, y, x + side, y + side))
        base.paste(
            rgb_of_mark,
            mask=crop if side == size else crop.resize((size, size), Image.Resampling.BILINEAR),
        )
    return base


VARIANTS = {"stripes": 4, "dots": 3, "plaid": 3, "floral": 3, "leopard": 2, "sequins": 2}


@cache
def _fade() -> Image.Image:
    ramp = Image.linear_gradient("L")  # 0 at the top, 255 at the bottom
    return ramp.point([max(0, min(255, round((v - 40) * 1.4))) for v in range(256)])


@cache
def _sheets(pattern: str, variant: int) -> tuple[Image.Image, ...]:
    """The masks of one variant of a pattern, one for each colour of mark, bottom first."""
    rng = random.Random(f"sheet/{pattern}/{variant}")
    return {
        "stripes": _stripes,
        "dots": _dots,
        "plaid": _plaid,
        "floral": _floral,
        "leopard": _leopard,
        "sequins": _sequins,
    }[pattern](variant, rng)


def _blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (SHEET, SHEET), 0)
    return image, ImageDraw.Draw(image)


def _bands(period: float, width: float) -> Image.Image:
    image, draw = _blank()
    y = 0.0
    while y < SHEET:
        draw.rectangle((0, y, SHEET, y + width - 1), fill=255)
        y += period
    return image


def _stripes(variant: int, rng: random.Random) -> tuple[Image.Image, ...]:
    sheet = _bands(*((22.0, 8.5), (26.0, 11.0), (22.0, 8.5), (30.0, 11.0))[variant])
    if variant == 2:
        sheet = sheet.transpose(Image.Transpose.ROTATE_90)
    return (sheet,)


def _dots(variant: int, rng: random.Random) -> tuple[Image.Image, ...]:
    image, draw = _blank()
    step, radius = ((25.0, 6.4), (31.0, 8.4), (22.0, 5.6))[variant]
    for row in range(int(SHEET / step) + 2):
        for column in range(int(SHEET / step) + 2):
            x, y = (column + 0.5 * (row % 2)) * step, row * step * 0.9
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return (image,)


def _plaid(variant: int, rng: random.Random) -> tuple[Image.Image, ...]:
    period, width = ((30.0, 10.0), (36.0, 12.0), (26.0, 8.5))[variant]
    wide = _bands(period, width)
    across = wide.transpose(Image.Transpose.ROTATE_90)
    both = ImageChops.add(wide.point(lambda v: v * 0.55), across.point(lambda v: v * 0.55))
    thin = ImageChops.offset(_bands(period, 3), 0, round(width + (period - width) / 2 - 1))
    lines = ImageChops.lighter(thin, thin.transpose(Image.Transpose.ROTATE_90))
    return both, lines


def _floral(variant: int, rng: random.Random) -> tuple[Image.Image, ...]:
    leaves, draw_leaf = _blank()
    petals, draw_petal = _blank()
    hearts, draw_heart = _blank()
    step = (34.0, 40.0, 30.0)[variant]
    petal = (6.4, 7.6, 5.6)[variant]
    for row in range(int(SHEET / step) + 2):
        for column in range(int(SHEET / step) + 2):
            x = (column + 0.5 * (row % 2) + rng.uniform(-0.14, 0.14)) * step
            y = (row + rng.uniform(-0.14, 0.14)) * step * 0.86
            turn = rng.uniform(0, math.tau)
            for side in (-1, 1):
                angle = turn + side * rng.uniform(0.6, 1.1)
                lx, ly = x + math.cos(angle) * petal * 2.1, y + math.sin(angle) * petal * 2.1
                draw_leaf.ellipse(
                    (lx - petal * 0.9, ly - petal * 0.6, lx + petal * 0.9, ly + petal * 0.6),
                    fill=255,
                )
            for i in range(5):
                angle = turn + i * math.tau / 5
                px, py = x + math.cos(angle) * petal, y + math.sin(angle) * petal
                box = (px - petal * 0.8, py - petal * 0.8, px + petal * 0.8, py + petal * 0.8)
                draw_petal.ellipse(box, fill=255)
            box = (x - petal * 0.65, y - petal * 0.65, x + petal * 0.65, y + petal * 0.65)
            draw_heart.ellipse(box, fill=255)
    return leaves, petals, hearts


def _leopard(variant: int, rng: random.Random) -> tuple[Image.Image, ...]:
    rings, draw_ring = _blank()
    centres, draw_centre = _blank()
    step, radius = ((27.0, 8.6), (33.0, 10.5))[variant]
    for row in range(int(SHEET / step) + 2):
        for column in range(int(SHEET / step) + 2):
            x = (column + 0.5 * (row % 2) + rng.uniform(-0.2, 0.2)) * step
            y = (row + rng.uniform(-0.2, 0.2)) * step * 0.9
            rx, ry = radius * rng.uniform(0.85, 1.25), radius * rng.uniform(0.75, 1.05)
            draw_centre.ellipse((x - rx * 0.7, y - ry * 0.7, x + rx * 0.7, y + ry * 0.7), fill=255)
            start = rng.uniform(0, 360)
            for part in range(2):  # a ring with two gaps
                begin = start + part * 180 + rng.uniform(0, 30)
                box = (x - rx, y - ry, x + rx, y + ry)
                draw_ring.arc(box, begin, begin + rng.uniform(105, 140), fill=255, width=5)
            dx, dy = x + rng.uniform(-0.5, 0.5) * step, y + 0.48 * step
            draw_ring.ellipse((dx - 2.6, dy - 2.2, dx + 2.6, dy + 2.2), fill=255)
    return rings, centres


def _sequins(variant: int, rng: random.Random) -> tuple[Image.Image, ...]:
    step = (11.0, 14.0)[variant]
    low, draw_low = _blank()
    high, draw_high = _blank()
    for row in range(int(SHEET / step) + 2):
        for column in range(int(SHEET / step) + 2):
            x, y = (column + 0.5 * (row % 2)) * step, row * step * 0.88
            box = (x - step * 0.52, y - step * 0.52, x + step * 0.52, y + step * 0.52)
            draw_low.ellipse(box, outline=200, fill=rng.choice((0, 0, 60, 150, 230)), width=1)
            glint = rng.random()
            if glint > 0.72:
                draw_high.ellipse(box, fill=255 if glint > 0.84 else 150)
    return low, high.filter(ImageFilter.GaussianBlur(0.8))
