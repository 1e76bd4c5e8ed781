"""Draw one picture: a background, one to three things with their shadows, perhaps a badge."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from bagformer_cli.demo.canvas import Pen, shade
from bagformer_cli.demo.kinds import KINDS
from bagformer_cli.demo.palette import COLOURS, PATTERNS, RGB, jitter, lightness, mix

Item = tuple[int, int, int, int]
"""A thing as indexes into KINDS, COLOURS, PATTERNS, COLOURS; -1 for what a query leaves open."""

Slot = tuple[float, float, float]
"""Centre (x, y) and size of a thing, as shares of the picture's side."""

PICTURE = 128
"""Side of a picture in pixels."""

# Slots for one, two and three things.
_LAYOUTS: dict[int, tuple[tuple[Slot, ...], ...]] = {
    1: (((0.5, 0.5, 0.90),), ((0.5, 0.51, 0.82),), ((0.47, 0.5, 0.84),), ((0.53, 0.5, 0.84),)),
    2: (
        ((0.27, 0.5, 0.55), (0.73, 0.5, 0.55)),
        ((0.29, 0.31, 0.55), (0.71, 0.69, 0.55)),
        ((0.71, 0.31, 0.55), (0.29, 0.69, 0.55)),
        ((0.36, 0.46, 0.62), (0.79, 0.73, 0.46)),
        ((0.64, 0.46, 0.62), (0.21, 0.73, 0.46)),
    ),
    3: (
        ((0.27, 0.27, 0.49), (0.73, 0.27, 0.49), (0.5, 0.74, 0.49)),
        ((0.5, 0.27, 0.49), (0.27, 0.73, 0.49), (0.73, 0.73, 0.49)),
        ((0.30, 0.5, 0.55), (0.76, 0.26, 0.46), (0.76, 0.74, 0.46)),
        ((0.70, 0.5, 0.55), (0.24, 0.26, 0.46), (0.24, 0.74, 0.46)),
    ),
}

# Backgrounds: mostly white and pale, as in shops, and tones for white things.
_PALE: tuple[RGB, ...] = (
    (254, 254, 254),
    (254, 254, 254),
    (246, 247, 248),
    (240, 243, 246),
    (248, 244, 236),
    (252, 240, 240),
    (238, 245, 252),
    (240, 249, 241),
)
_TONED: tuple[RGB, ...] = (
    (206, 222, 228),
    (226, 212, 196),
    (182, 200, 186),
    (240, 206, 196),
    (176, 190, 214),
    (196, 176, 206),
    (120, 134, 148),
    (150, 120, 110),
    (250, 214, 150),
    (160, 214, 214),
)


def draw_picture(items: Sequence[Item], rng: random.Random, size: int = PICTURE) -> bytes:
    """Draw the things ``items`` together and save them as JPEG.

    Args:
        items: One to three things, without -1.
        rng: Draws background, slots, scales, variants, light and shades.
        size: Side of the picture in pixels.

    Returns:
        The JPEG file's bytes.
    """
    light = rng.choice((-1.0, 1.0))
    bodies = [jitter(COLOURS[item[1]].rgb, rng) for item in items]
    image = _ground(bodies, rng, size)
    slots = list(rng.choice(_LAYOUTS[len(items)]))
    rng.shuffle(slots)
    for item, body, (x, y, share) in zip(items, bodies, slots, strict=True):
        kind, _, pattern, part = item
        tile = round(share * rng.uniform(0.92, 1.04) * size * 2)
        pen = Pen(tile, body, PATTERNS[pattern].key, jitter(COLOURS[part].rgb, rng), rng)
        KINDS[kind].draw(pen)
        thing = pen.finish()
        if rng.random() < 0.5:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.5:
            angle = rng.uniform(-9, 9)
            thing = thing.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        thing = shade(thing.reduce(2), light)
        left = round((x + rng.uniform(-0.025, 0.025)) * size - thing.width / 2)
        top = round((y + rng.uniform(-0.025, 0.025)) * size - thing.height / 2)
        left = max(1, min(size - thing.width - 1, left))
        top = max(1, min(size - thing.height - 1, top))
        _shadow(image, thing, left, top, light, rng)
        image.paste(thing, (left, top), thing)
    if rng.random() < 0.1:
        _badge(image, rng)
    if rng.random() < 0.5:
        gain = rng.uniform(0.93, 1.05)
        image = image.point([min(255, round(v * gain)) for v in range(256)] * 3)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=rng.choice((85, 88, 90, 92)))
    return stream.getvalue()


def _shadow(
    image: Image.Image, thing: Image.Image, left: int, top: int, light: float, rng: random.Random
) -> None:
    """A soft shadow below ``thing``, away from the light."""
    size = image.width
    reach, blur = max(2, size // 26), max(1, size // 40)
    alpha = thing.getchannel("A")
    room = Image.new("L", (thing.width + 4 * blur, thing.height + 4 * blur), 0)
    room.paste(alpha, (2 * blur, 2 * blur))
    strength = rng.uniform(0.30, 0.45)
    soft = room.filter(ImageFilter.BoxBlur(blur)).point([round(v * strength) for v in range(256)])
    place = (left - 2 * blur - round(light * reach * 0.7), top - 2 * blur + reach)
    image.paste((22, 20, 30), place, mask=soft)


def _badge(image: Image.Image, rng: random.Random) -> None:
    """A shop's label in a corner: a coloured patch with lines where small print would be."""
    size = image.width
    w, h = size * rng.uniform(0.15, 0.22), size * rng.uniform(0.08, 0.11)
    x = rng.choice((0.0, size - w))
    y = rng.choice((0.0, size - h))
    ink = COLOURS[rng.randrange(len(COLOURS))].rgb
    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, x + w, y + h), fill=ink)
    print_ = (255, 255, 255) if lightness(ink) < 170 else (60, 40, 40)
    for i in range(2):
        line = y + h * (0.3 + 0.32 * i)
        draw.line((x + w * 0.15, line, x + w * rng.uniform(0.6, 0.85), line), fill=print_, width=1)


def _ground(bodies: Sequence[RGB], rng: random.Random, size: int) -> Image.Image:
    """A background whose colour is none of the things'."""
    tones = _PALE if rng.random() < 0.7 else _TONED
    clear = [tone for tone in tones if all(math.dist(tone, body) > _APART for body in bodies)]
    clear = clear or [tone for tone in _TONED if all(math.dist(tone, b) > _APART for b in bodies)]
    tone = jitter(rng.choice(clear or [(206, 222, 228)]), rng, 5.0)
    other = mix(tone, (0, 0, 0) if lightness(tone) > 120 else (255, 255, 255), 0.13)
    image = Image.new("RGB", (size, size), tone)
    style = rng.choice(("plain", "plain", "fade", "spot", "floor", "wood", "marble", "linen"))
    if style == "fade":
        image.paste(
            other, mask=Image.linear_gradient("L").resize((size, size), Image.Resampling.BOX)
        )
    elif style == "spot":
        image.paste(
            other, mask=Image.radial_gradient("L").resize((size, size), Image.Resampling.BOX)
        )
    elif style == "floor":
        horizon = round(size * rng.uniform(0.58, 0.78))
        image.paste(other, (0, horizon, size, size))
    elif style in ("wood", "marble", "linen"):
        sheet = _texture(style)
        left, top = (rng.randrange(sheet.width - size + 1) for _ in range(2))
        grain = sheet.crop((left, top, left + size, top + size))
        if rng.random() < 0.5:
            grain = grain.transpose(Image.Transpose.ROTATE_90)
        image.paste(mix(other, tone, 0.1), mask=grain)
    return image


_APART = 80.0


@cache
def _texture(style: str) -> Image.Image:
    """A large mask of wood grain, marble veins or linen, drawn once per process."""
    side = 1024
    rng = random.Random(f"texture/{style}")
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    if style == "wood":
        for y in range(0, side, 32):
            draw.rectangle((0, y, side, y + 31), fill=rng.randrange(0, 120))
            draw.line((0, y, side, y), fill=255, width=1)
            for _ in range(24):
                left, dy = rng.randrange(side), rng.randrange(2, 30)
                draw.line(
                    (left, y + dy, left + rng.randrange(30, 160), y + dy),
                    fill=rng.randrange(90, 200),
                )
        return image
    if style == "marble":
        for _ in range(70):
            path = [(rng.uniform(0, side), rng.uniform(0, side))]
            for _ in range(14):
                x, down = path[-1]
                path.append((x + rng.uniform(4, 26), down + rng.uniform(-18, 22)))
            draw.line(path, fill=rng.randrange(110, 255), width=rng.randrange(1, 4))
        return image.filter(ImageFilter.GaussianBlur(1.0))
    for y in range(0, side, 3):
        draw.line((0, y, side, y), fill=rng.randrange(20, 110))
    across = image.transpose(Image.Transpose.ROTATE_90)
    return ImageChops.add(image, across, scale=2.0)
