"""A tile to draw one thing on, with a pen that knows shapes, cloth and colours.

Every drawing function (``kinds_*.py``) uses only :class:`Pen`. Coordinates run from 0 to 1, x to
the right and y down; lengths are shares of the tile's side. A fill is one of

- :data:`BODY`: the cloth of the thing, its colour and pattern;
- :data:`PART`: the colour of its small parts;
- :data:`SHADE`, :data:`LIGHT`: the body colour, darker or lighter, without pattern;
- :data:`HOLE`: cut through the thing;
- an RGB colour.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFilter

from bagformer_cli.demo.palette import RGB, cloth, lightness, mix

Point = tuple[float, float]
Degrees = tuple[float, float]
Fill = str | RGB

BODY = "body"
PART = "part"
SHADE = "shade"
LIGHT = "light"
HOLE = "hole"

METAL: RGB = (186, 191, 198)
STEEL: RGB = (128, 134, 142)
WOOD: RGB = (196, 148, 96)
GLASS: RGB = (206, 228, 236)
SCREEN: RGB = (36, 44, 60)
RUBBER: RGB = (58, 58, 64)
CREAM: RGB = (242, 230, 206)
PAPER: RGB = (240, 240, 236)
COTTON: RGB = (250, 250, 250)
LACE: RGB = (250, 244, 236)
LINING: RGB = (62, 60, 72)
LEATHER: RGB = (86, 58, 40)
GOLD: RGB = (238, 206, 118)
STRAW: RGB = (226, 196, 140)


class Pen:
    """A pen that draws one thing on a tile.

    Args:
        size: Side of the tile in pixels.
        body: Base colour of the thing.
        pattern: Key of its pattern.
        part: Colour of its small parts.
        rng: Draws the variants.
    """

    def __init__(self, size: int, body: RGB, pattern: str, part: RGB, rng: random.Random) -> None:
        self.size = size
        self.rng = rng
        self.image = Image.new("RGB", (size, size), body)
        self.alpha = Image.new("L", (size, size), 0)
        self._draw = ImageDraw.Draw(self.image)
        self._draw_alpha = ImageDraw.Draw(self.alpha)
        self._cloth = None if pattern == "solid" else cloth(size, body, pattern, rng)
        dark = lightness(body) < 60
        self._paint: dict[str, RGB] = {
            BODY: body,
            PART: part,
            SHADE: mix(body, (255, 255, 255), 0.22) if dark else mix(body, (0, 0, 0), 0.3),
            LIGHT: mix(body, (255, 255, 255), 0.35),
        }

    # --------------------------------------------------------------- random numbers, for variants

    def pick(self, *choices: float) -> float:
        """Draw one of ``choices``."""
        return choices[self.rng.randrange(len(choices))]

    def among(self, n: int) -> int:
        """Draw the number of a variant, 0 to n - 1."""
        return self.rng.randrange(n)

    def vary(self, low: float, high: float) -> float:
        """Draw a length between ``low`` and ``high``."""
        return self.rng.uniform(low, high)

    # ------------------------------------------------------------------------------- shapes

    def polygon(self, points: Sequence[Point], fill: Fill = BODY) -> None:
        """Draw a polygon with straight edges."""
        flat = [(x * self.size, y * self.size) for x, y in points]
        self._fill(fill, lambda draw, ink: draw.polygon(flat, fill=ink))

    def blob(self, points: Sequence[Point], fill: Fill = BODY) -> None:
        """Draw the area inside a closed smooth curve through ``points`` (Catmull-Rom)."""
        self.polygon(_smooth(points, closed=True), fill)

    def mirrored(self, points: Sequence[Point], fill: Fill = BODY, *, smooth: bool = False) -> None:
        """Draw a shape symmetric about x = 0.5; ``points`` are its left half, top to bottom."""
        whole = [*points, *((1.0 - x, y) for x, y in reversed(points))]
        (self.blob if smooth else self.polygon)(whole, fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Fill = BODY) -> None:
        """Draw an ellipse with centre (x, y) and radii ``rx`` and ``ry``."""
        box = self._box(x - rx, y - ry, x + rx, y + ry)
        self._fill(fill, lambda draw, ink: draw.ellipse(box, fill=ink))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Fill = BODY, round_: float = 0.0
    ) -> None:
        """Draw a rectangle with corners of radius ``round_``."""
        box, radius = self._box(x0, y0, x1, y1), round_ * self.size
        self._fill(fill, lambda draw, ink: draw.rounded_rectangle(box, radius, fill=ink))

    def pie(
        self, x: float, y: float, rx: float, ry: float, degrees: Degrees, fill: Fill = BODY
    ) -> None:
        """Draw a slice of an ellipse between two angles in degrees, clockwise from the right."""
        box = self._box(x - rx, y - ry, x + rx, y + ry)
        self._fill(fill, lambda draw, ink: draw.pieslice(box, *degrees, fill=ink))

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        degrees: Degrees,
        width: float,
        fill: Fill = BODY,
    ) -> None:
        """Draw a bent bar: the rim of an ellipse between two angles in degrees."""
        box, thick = self._box(x - rx, y - ry, x + rx, y + ry), self._thick(width)
        self._fill(fill, lambda draw, ink: draw.arc(box, *degrees, fill=ink, width=thick))

    def line(
        self, points: Sequence[Point], width: float, fill: Fill = SHADE, *, smooth: bool = False
    ) -> None:
        """Draw a line through ``points`` with round ends."""
        path = _smooth(points, closed=False) if smooth else list(points)
        flat = [(x * self.size, y * self.size) for x, y in path]
        thick = self._thick(width)
        r = thick / 2

        def stroke(draw: ImageDraw.ImageDraw, ink: Fill | int) -> None:
            draw.line(flat, fill=ink, width=thick, joint="curve")
            if thick > 2:
                for x, y in (flat[0], flat[-1]):
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)

        self._fill(fill, stroke)

    def dot(self, x: float, y: float, radius: float, fill: Fill = SHADE) -> None:
        """Draw a disc."""
        self.oval(x, y, radius, radius, fill)

    def star(self, x: float, y: float, radius: float, fill: Fill = PART, points: int = 5) -> None:
        """Draw a star with one point upwards."""
        corners = []
        for i in range(points * 2):
            angle, r = math.pi * (i / points - 0.5), radius * (1.0 if i % 2 == 0 else 0.45)
            corners.append((x + math.cos(angle) * r, y + math.sin(angle) * r))
        self.polygon(corners, fill)

    def bow(self, x: float, y: float, size: float, fill: Fill = PART) -> None:
        """Draw a tied ribbon."""
        for side in (-1, 1):
            self.blob(
                [
                    (x, y - size * 0.1),
                    (x + side * size * 0.8, y - size * 0.6),
                    (x + side * size, y),
                    (x + side * size * 0.8, y + size * 0.55),
                    (x, y + size * 0.1),
                ],
                fill,
            )
        self.oval(x, y, size * 0.24, size * 0.3, fill)
        self.line([(x, y - size * 0.25), (x, y + size * 0.25)], 0.008, (90, 80, 80))

    # ------------------------------------------------------------------------------ the result

    def finish(self) -> Image.Image:
        """Return the thing as RGBA, cropped to its outline."""
        box = self.alpha.getbbox() or (0, 0, 1, 1)
        image = self.image.crop(box)
        image.putalpha(self.alpha.crop(box))
        return image

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
        s = self.size
        return x0 * s, y0 * s, max(x0, x1) * s, max(y0, y1) * s

    def _thick(self, width: float) -> int:
        return max(1, round(width * self.size))

    def _fill(self, fill: Fill, shape: Callable[[ImageDraw.ImageDraw, Fill | int], None]) -> None:
        if fill == HOLE:
            shape(self._draw_alpha, 0)
            return
        shape(self._draw_alpha, 255)
        if fill == BODY and self._cloth is not None:
            mask = Image.new("L", (self.size, self.size), 0)
            shape(ImageDraw.Draw(mask), 255)
            self.image.paste(self._cloth, mask=mask)
        else:
            shape(self._draw, self._paint[fill] if isinstance(fill, str) else fill)


def shade(thing: Image.Image, light: float) -> Image.Image:
    """Shade a drawn thing like a solid body.

    Args:
        thing: RGBA, from :meth:`Pen.finish`.
        light: -1: light from the left; 1: from the right.
    """
    image, alpha = thing.convert("RGB"), thing.getchannel("A")
    # Darker towards the edge, like a round body.
    soft = alpha.filter(ImageFilter.BoxBlur(max(1, max(thing.size) // 26)))
    image.paste((24, 20, 30), mask=soft.point(_EDGE))
    # One side is lit, the other is not.
    ramp = _ramp(light > 0).resize(image.size, Image.Resampling.NEAREST)
    image.paste((255, 255, 255), mask=ramp.point(_LIT))
    image.paste((16, 12, 30), mask=ramp.point(_UNLIT))
    image.putalpha(alpha)
    return image


@cache
def _ramp(right: bool) -> Image.Image:
    turn = Image.Transpose.ROTATE_90 if right else Image.Transpose.ROTATE_270
    return Image.linear_gradient("L").transpose(turn)


_EDGE = [round(max(0.0, (255 - v) / 255 - 0.06) * 150) for v in range(256)]
_LIT = [round(max(0.0, v - 170) * 0.30) for v in range(256)]
_UNLIT = [round(max(0.0, 135 - v) * 0.28) for v in range(256)]


def _smooth(points: Sequence[Point], *, closed: bool, steps: int = 6) -> list[Point]:
    """Compute points of the Catmull-Rom curve through ``points``, ``steps`` per segment."""
    n = len(points)
    if n < 3:
        return list(points)
    path: list[Point] = []
    for i in range(n if closed else n - 1):
        if closed:
            a, b, c, d = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        else:
            a, b = points[max(0, i - 1)], points[i]
            c, d = points[i + 1], points[min(n - 1, i + 2)]
        for step in range(steps):
            t = step / steps
            path.append((_spline(a[0], b[0], c[0], d[0], t), _spline(a[1], b[1], c[1], d[1], t)))
    if not closed:
        path.append(points[-1])
    return path


def _spline(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3
    )
