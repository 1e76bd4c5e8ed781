"""Pictures as cameras, scanners and shop tools write them: the model sees what a viewer shows."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from tests.support.black_box import (
    DATA,
    PHOTOS,
    Shop,
)
from tests.support.pictures import arrow_vectors, photo, write_images


def vectors(retriever: Any, *images: object) -> torch.Tensor:
    """Encode images; one flat row for each."""
    values = [retriever.encode_images([image]).values for image in images]
    return torch.stack([value.float().flatten() for value in values])


def difference(retriever: Any, one: object, other: object) -> float:
    """Largest difference between the vectors of two images."""
    first, second = vectors(retriever, one, other)
    return float((first - second).abs().max())


# Orientation. The value says how a viewer turns the stored pixels.
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def oriented(folder: Path, orientation: int, form: str) -> tuple[Path, Image.Image]:
    """Write a picture with an orientation; return it and what a viewer shows."""
    stored = photo()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = folder / f"turned{orientation}.{form}"
    options = {"quality": 100, "subsampling": 0} if form == "jpg" else {}
    if form == "webp":
        options = {"lossless": True}
    stored.save(path, exif=exif, **options)
    turn = TURNS[orientation]
    return path, stored if turn is None else stored.transpose(turn)


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_orientation_is_seen_as_a_viewer_shows_it(
    retriever: Any, tmp_path: Path, orientation: int, form: str
) -> None:
    path, seen = oriented(tmp_path, orientation, form)
    assert difference(retriever, path, seen) < (0.02 if form == "jpg" else 1e-5)


def test_the_picture_of_the_case_is_the_same_turned_by_exif(retriever: Any) -> None:
    folder = DATA / "07-exif"
    upright, turned = folder / "exif_ref.jpg", folder / "exif6.jpg"
    assert difference(retriever, upright, turned) < 0.05


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(
    retriever: Any, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo().save(tmp_path / "odd.png", exif=exif)
    assert difference(retriever, tmp_path / "odd.png", photo()) < 1e-5


def test_score_gives_the_same_to_a_picture_turned_by_exif(
    xmr: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    path, seen = oriented(tmp_path, 6, "png")
    seen.save(tmp_path / "seen.png")
    scores = [
        xmr("score", file, "红裙", "--checkpoint", model, "--json").json()["text_to_image"]
        for file in (path, tmp_path / "seen.png")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_thumbnails_stand_upright(shop: Shop) -> None:
    path, seen = oriented(shop.folder, 6, "jpg")
    shop.built(shop.write("t.csv", f"id,image,title\na0,{path.name},红裙\n"))
    page = shop.folder / "page.html"
    assert shop.search("--output", page).code == 0
    found = re.search(r"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)", page.read_text("utf-8"))
    assert found is not None
    shown = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert (shown.width > shown.height) == (seen.width > seen.height)


def test_training_and_evaluation_read_turned_pictures_alike(
    xmr: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    """The dataset's path to the pixels (the store) turns pictures as ``encode`` does."""
    path, seen = oriented(tmp_path, 6, "png")
    seen.save(tmp_path / "seen.png")
    digits = []
    for file in (path, tmp_path / "seen.png"):
        folder = tmp_path / file.stem
        write_images(folder, "valid", {1: file.read_bytes(), 2: (PHOTOS / "p0.jpg").read_bytes()})
        run = xmr("encode", folder, "--split", "valid", "--out", folder / "v", "--dtype",
                  "float32", "--checkpoint", model, "--json")  # fmt: skip
        assert run.code == 0, run.err
        digits.append(arrow_vectors(folder / "v"))
    assert np.allclose(digits[0], digits[1], atol=1e-5)


# Depth, palettes and transparency.
def test_sixteen_bit_grey_is_scaled_to_eight(retriever: Any) -> None:
    folder = DATA / "08-16bit-and-alpha"
    assert difference(retriever, folder / "gray16.png", folder / "gray8.png") < 0.02


@pytest.mark.parametrize("form", ["png", "tif"])
def test_sixteen_bit_pictures_look_like_their_eight_bit_copies(
    retriever: Any, tmp_path: Path, form: str
) -> None:
    grey = np.asarray(photo().convert("L"))
    wide = (grey.astype(np.uint32) * 257).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / f"wide.{form}")
    assert difference(retriever, tmp_path / f"wide.{form}", Image.fromarray(grey)) < 0.02


def test_a_sixteen_bit_big_endian_tiff_is_read(retriever: Any, tmp_path: Path) -> None:
    grey = np.asarray(photo().convert("L"))
    wide = (grey.astype(np.uint32) * 257).astype(">u2")
    image = Image.frombytes("I;16B", photo().size, wide.tobytes())
    image.save(tmp_path / "wide.tif")
    assert difference(retriever, tmp_path / "wide.tif", Image.fromarray(grey)) < 0.02


@pytest.mark.parametrize("most", [1.0, 255.0])
def test_a_float_tiff_looks_like_its_eight_bit_copy(
    retriever: Any, tmp_path: Path, most: float
) -> None:
    grey = np.asarray(photo().convert("L"))
    Image.fromarray(grey.astype(np.float32) / 255 * np.float32(most)).save(tmp_path / "float.tif")
    assert difference(retriever, tmp_path / "float.tif", Image.fromarray(grey)) < 0.02


@pytest.mark.parametrize("file", ["cutout.png", "cutout.webp"])
def test_transparent_parts_of_the_cases_are_white(retriever: Any, file: str) -> None:
    folder = DATA / "08-16bit-and-alpha"
    white = difference(retriever, folder / file, folder / "cutout_on_white.png")
    assert white < (1e-5 if file.endswith("png") else 0.05)


def cut_out() -> tuple[Image.Image, Image.Image]:
    """A picture with alpha from 0 to 255, bright colours below it; and the same on white."""
    image = photo().convert("RGBA")
    alpha = np.zeros((image.height, image.width), np.uint8)
    alpha[:, 12:24], alpha[:, 24:36], alpha[:, 36:] = 128, 200, 255
    image.putalpha(Image.fromarray(alpha))
    white = Image.new("RGBA", image.size, "white")
    return image, Image.alpha_composite(white, image).convert("RGB")


@pytest.mark.parametrize("form", ["png", "tif", "webp"])
def test_rgba_lies_on_white(retriever: Any, tmp_path: Path, form: str) -> None:
    image, seen = cut_out()
    path = tmp_path / f"rgba.{form}"
    image.save(path, **({"lossless": True, "exact": True} if form == "webp" else {}))
    assert difference(retriever, path, seen) < 0.01


def test_an_opened_rgba_picture_lies_on_white_too(retriever: Any) -> None:
    image, seen = cut_out()
    assert difference(retriever, image, seen) < 0.01


def test_grey_with_alpha_lies_on_white(retriever: Any, tmp_path: Path) -> None:
    image, _ = cut_out()
    grey = image.convert("LA")
    grey.save(tmp_path / "la.png")
    white = Image.new("RGBA", grey.size, "white")
    seen = Image.alpha_composite(white, grey.convert("RGBA")).convert("RGB")
    assert difference(retriever, tmp_path / "la.png", seen) < 0.01


@pytest.mark.parametrize("form", ["png", "gif"])
def test_a_palette_with_a_transparent_colour_lies_on_white(
    retriever: Any, tmp_path: Path, form: str
) -> None:
    pixels = np.zeros((40, 48), np.uint8)
    pixels[:, 24:], pixels[20:, 30:] = 1, 2
    image = Image.fromarray(pixels).convert("P")
    image.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30] + [0] * 759)
    image.save(tmp_path / f"p.{form}", transparency=0)
    colours = np.array([[255, 255, 255], [200, 30, 30], [30, 200, 30]], np.uint8)
    assert difference(retriever, tmp_path / f"p.{form}", Image.fromarray(colours[pixels])) < 0.01


def test_a_palette_with_several_degrees_of_transparency_lies_on_white(
    retriever: Any, tmp_path: Path
) -> None:
    pixels = np.repeat(np.arange(4, dtype=np.uint8), 12)[None].repeat(40, 0)
    image = Image.fromarray(pixels).convert("P")
    image.putpalette([0, 0, 200] * 4 + [0] * 756)
    image.save(tmp_path / "p.png", transparency=bytes([0, 85, 170, 255]))
    share = np.array([0, 85, 170, 255])[pixels, None] / 255
    seen = np.round(share * [0, 0, 200] + (1 - share) * 255).astype(np.uint8)
    assert difference(retriever, tmp_path / "p.png", Image.fromarray(seen)) < 0.01


def test_a_transparent_colour_of_an_rgb_png_lies_on_white(retriever: Any, tmp_path: Path) -> None:
    pixels = np.full((40, 48, 3), 60, np.uint8)
    pixels[:, 24:] = (250, 10, 10)
    seen = pixels.copy()
    seen[:, :24] = 255
    Image.fromarray(pixels).save(tmp_path / "trns.png", transparency=(60, 60, 60))
    assert difference(retriever, tmp_path / "trns.png", Image.fromarray(seen)) < 0.01


@pytest.mark.parametrize("form", ["jpg", "tif"])
def test_cmyk_looks_like_rgb(retriever: Any, tmp_path: Path, form: str) -> None:
    plain = photo().convert("CMYK")
    plain.save(tmp_path / f"c.{form}", **({"quality": 100} if form == "jpg" else {}))
    assert difference(retriever, tmp_path / f"c.{form}", plain.convert("RGB")) < 0.05


@pytest.mark.parametrize("mode", ["1", "L", "P", "HSV", "LAB", "YCbCr", "I", "F", "LA", "PA"])
def test_an_opened_picture_of_any_mode_is_encoded(retriever: Any, mode: str) -> None:
    if mode in ("HSV", "LAB"):
        image = Image.new(mode, (20, 20))
    else:
        image = photo().convert("L" if mode in ("P", "PA", "I", "F") else mode).convert(mode)
    assert vectors(retriever, image).isfinite().all()
