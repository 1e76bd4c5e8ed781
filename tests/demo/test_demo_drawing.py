"""Every kind, colour and pattern can be seen in its drawing."""

from __future__ import annotations

import io
import random
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bagformer_cli.demo.canvas import HOLE, PART, Pen, shade
from bagformer_cli.demo.kinds import GROUPS, KINDS, Kind
from bagformer_cli.demo.palette import COLOURS, PATTERNS, SHEET, Colour, cloth
from bagformer_cli.demo.scene import draw_picture

BODY, PARTS = (212, 32, 40), (36, 78, 200)


def drawn(kind: Kind, pattern: str = "solid", seed: int = 0, size: int = 100) -> Image.Image:
    pen = Pen(size, BODY, pattern, PARTS, random.Random(seed))
    kind.draw(pen)
    return pen.finish()


def share_near(image: Image.Image, rgb: tuple[int, int, int]) -> float:
    pixels = np.asarray(image, np.int64)
    inside = pixels[pixels[..., 3] > 128][:, :3]
    return float((np.abs(inside - rgb).max(1) < 12).mean())


def test_there_are_kinds_colours_and_patterns_enough() -> None:
    assert len(KINDS) >= 40
    assert len(COLOURS) == 12
    assert len(PATTERNS) == 8
    assert all(len(members) >= 3 for members in GROUPS.values())
    for table in (KINDS, COLOURS, PATTERNS):
        keys = [entry.key for entry in table]
        names = [name for entry in table for name in (entry.name, *entry.others)]
        assert len(set(keys)) == len(keys)
        assert len(set(names)) == len(names), "no name means two things"


def test_colours_are_well_apart() -> None:
    for one, two in combinations(COLOURS, 2):
        distance = np.linalg.norm(np.subtract(one.rgb, two.rgb))
        assert distance > 55, (one.key, two.key)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_a_kind_shows_its_colour_and_its_part(kind: Kind) -> None:
    for seed in range(4):
        image = drawn(kind, seed=seed)
        assert image.mode == "RGBA"
        assert max(image.size) > 80, "it fills its tile"
        body, part = share_near(image, BODY), share_near(image, PARTS)
        assert body > 0.22, "the body is large enough to see"
        assert 0.015 < part < 0.6, "the part is small, but there"
        assert body > part * 0.7


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_a_kind_has_variants(kind: Kind) -> None:
    outlines = {drawn(kind, seed=seed).tobytes() for seed in range(6)}
    assert len(outlines) > 2


def test_no_two_kinds_look_alike() -> None:
    pictures: list[npt.NDArray[np.float64]] = []
    for kind in KINDS:
        tile = Image.new("RGB", (32, 32), (255, 255, 255))
        image = drawn(kind).resize((32, 32))
        tile.paste(image, (0, 0), image)
        pictures.append(np.asarray(tile, np.float64))
    for (i, one), (j, two) in combinations(enumerate(pictures), 2):
        assert np.abs(one - two).mean() > 18, (KINDS[i].key, KINDS[j].key)


@pytest.mark.parametrize("pattern", [p.key for p in PATTERNS if p.key != "solid"])
@pytest.mark.parametrize("colour", COLOURS, ids=lambda colour: colour.key)
def test_a_pattern_is_seen_and_leaves_the_colour(pattern: str, colour: Colour) -> None:
    pixels = np.asarray(cloth(120, colour.rgb, pattern, random.Random(1)), np.int64)
    unlike = np.abs(pixels - colour.rgb).max(-1) > 40
    least = 0.1 if (pattern, colour.key) != ("gradient", "white") else 0.0
    assert unlike.mean() >= least, "the marks show"
    if pattern != "gradient":
        assert unlike.mean() < 0.72, "the colour shows"


def test_cloth_is_cut_from_a_larger_sheet() -> None:
    assert cloth(SHEET, BODY, "dots", random.Random(0)).size == (SHEET, SHEET)


def test_shapes_fall_where_they_should() -> None:
    pen = Pen(40, BODY, "solid", PARTS, random.Random(0))
    pen.box(0.25, 0.25, 0.75, 0.75)
    pen.box(0.25, 0.25, 0.5, 0.75, PART)
    pen.box(0.6, 0.4, 0.7, 0.6, HOLE)
    image = pen.finish()
    assert image.size == (21, 21)  # Pillow's boxes include both edges
    assert image.getpixel((2, 10)) == (*PARTS, 255)
    assert image.getpixel((18, 2)) == (*BODY, 255)
    assert image.getpixel((16, 10))[3] == 0  # type: ignore[index]


def test_shading_darkens_the_side_away_from_the_light() -> None:
    plate = Image.new("RGBA", (60, 60), (120, 120, 120, 255))
    left = np.asarray(shade(plate, -1.0), np.float64)[30, :, 0]
    assert left[8] > 120 > left[51]
    right = np.asarray(shade(plate, 1.0), np.float64)[30, :, 0]
    assert right == pytest.approx(left[::-1], abs=2)


@pytest.mark.parametrize("size", [64, 128])
def test_a_picture_is_a_jpeg_that_its_numbers_decide(size: int) -> None:
    items = [(0, 0, 0, 1), (5, 4, 1, 2), (20, 8, 4, 3)]
    data = draw_picture(items, random.Random(3), size)
    assert data == draw_picture(items, random.Random(3), size)
    assert data != draw_picture(items, random.Random(4), size)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))


def test_the_ground_is_never_the_colour_of_a_thing() -> None:
    white = [COLOURS[10].key, COLOURS[10].rgb]
    assert white[0] == "white"
    for seed in range(30):
        data = draw_picture([(3, 10, 0, 1)], random.Random(seed))
        with Image.open(io.BytesIO(data)) as image:
            rim = np.asarray(image.resize((16, 16)), np.float64)[[0, -1]].reshape(-1, 3)
        assert np.median(rim, 0).min() < 235, "a white dress does not hang before white"
