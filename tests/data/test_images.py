"""Decoding, the evaluation transform, and training-time variation."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from bagformer_cli.data import augment as augmentation
from bagformer_cli.data.augment import augment, random_of_sample, random_resized_crop
from bagformer_cli.data.batches import normalised, pixels_of
from bagformer_cli.data.images import (
    CLIP_MEAN,
    CLIP_STD,
    decode,
    resize,
    verify,
)
from bagformer_cli.errors import DataError, InputError
from tests.support.datasets import picture


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to have a size; its pixels are not there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def saved(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_bytes_paths_and_open_images_are_decoded_to_rgb(tmp_path: Path, form: str) -> None:
    data = picture(1, (24, 20), form)
    (tmp_path / "a").write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for source in (data, tmp_path / "a", str(tmp_path / "a"), Image.open(io.BytesIO(data))):
        image = decode(source)
        assert (image.mode, image.size) == ("RGB", (24, 20))
        np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    data = saved(Image.new(mode, (8, 6)), form)
    assert decode(data).mode == "RGB"


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        decode(tmp_path / "none.jpg")
    assert caught.value.where == str(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="This is a folder"):
        decode(tmp_path)


@pytest.mark.parametrize("check", [decode, verify])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"hello, this is text", "not an image"),
        (b"\xff\xd8\xff\xe0 half a header", "cut off|not an image"),
        (picture(2, (64, 64), "JPEG")[:-300], "cut off"),
        (picture(2, (64, 64), "JPEG")[:200], "cut off|not an image"),
        (picture(2, (64, 64), "PNG")[:-40], "cut off"),
        (png_header(30_000, 30_000), "too large"),
        (png_header(9_500, 9_500), "too large"),
        (png_header(64, 64)[:-12], "cut off"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_decoded_is_a_clear_error(
    check: Callable[..., object], data: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check(data, where="imgs.tsv:7")
    assert caught.value.where == "imgs.tsv:7"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("check", [decode, verify])
def test_a_progressive_jpeg_without_its_last_scans_is_cut_off(
    check: Callable[[bytes], object], mode: str
) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    check(data)
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    assert len(scans) > 4
    for scan in scans[1:]:  # without an end mark Pillow itself says that the file is cut off
        for end in (b"", b"\xff\xd9"):
            with pytest.raises(DataError, match="cut off"):
                check(data[:scan] + end)


def test_a_bomb_is_the_same_error_where_warnings_are_errors() -> None:
    with pytest.raises(DataError, match="too large") as caught:
        decode(png_header(9_500, 9_500))
    assert caught.value.found == "90 million pixels"


def test_verification_reads_all_pixels() -> None:
    data = png_header(64, 64)  # ends as a PNG does, but its pixels are missing
    with pytest.raises(DataError, match="cut off"):
        verify(data)


def test_the_hint_scales_large_jpegs_down_but_never_below_it() -> None:
    data = picture(3, (800, 600), "JPEG")
    assert decode(data).size == (800, 600)
    assert decode(data, 256).size == (400, 300)
    assert decode(data, 100).size == (200, 150)
    assert decode(data, 601).size == (800, 600)
    exact, quick = (resize(decode(data, hint), 128).astype(int) for hint in (None, 128))
    assert np.abs(exact - quick).mean() < 1


def test_the_evaluation_transform_is_torchvisions() -> None:
    data = picture(4, (90, 70), "JPEG")
    original = v2.Compose(
        [
            v2.Resize((48, 48), interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
        ]
    )(Image.open(io.BytesIO(data)).convert("RGB"))
    scaled = original.float() / 255
    expected = v2.functional.normalize(scaled, list(CLIP_MEAN), list(CLIP_STD))
    np.testing.assert_array_equal(pixels_of(decode(data), 48), expected.numpy())


def test_normalising_by_hand() -> None:
    pixels = np.zeros((1, 2, 3), np.uint8)
    pixels[0, 1] = 255
    found = normalised(torch.from_numpy(pixels)[None])[0].numpy()
    assert found.shape == (3, 1, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], [-0.48145466 / 0.26862954, 0.51854534 / 0.26862954])
    np.testing.assert_allclose(found[2, 0], [-0.40821073 / 0.27577711, 0.59178927 / 0.27577711])


@pytest.mark.shared
def test_the_originals_pixels_are_met(shared: Path) -> None:
    expected = json.loads((shared / "reference" / "expected.json").read_text(encoding="utf-8"))
    sources = (
        shared / "data" / "bagformer" / "rumble_roller.jpeg",
        shared / "reference" / "img_dress.png",
    )
    recorded = np.load(shared / "reference" / "expected.npz")["pixels_every16"]
    for place, source in enumerate(sources):
        small = resize(decode(source), 256)
        digest = hashlib.sha256(small.tobytes()).hexdigest()
        assert digest == expected["resized_uint8_sha256"][place]
        pixels = normalised(torch.tensor(small)[None])[0].numpy()
        figures = expected["pixels"][place]
        assert pixels.shape == tuple(figures["shape"])
        assert pixels.sum(dtype=np.float64) == pytest.approx(figures["sum"], rel=1e-9)
        assert float(pixels.min()) == figures["min"]
        assert float(pixels.max()) == figures["max"]
        np.testing.assert_array_equal(pixels[:, 8::16, 8::16], recorded[place])


# ------------------------------------------------------------------------------------- variation


def colourful(size: tuple[int, int] = (60, 40)) -> Image.Image:
    return decode(picture(5, size))


def test_variation_follows_from_seed_epoch_and_sample_alone() -> None:
    image = colourful()

    def varied(seed: int, epoch: int, sample: int) -> bytes:
        return augment(image, 32, random_of_sample(seed, epoch, sample)).tobytes()

    assert varied(1, 2, 3) == varied(1, 2, 3)
    variants = {
        varied(seed, epoch, sample) for seed in (0, 1) for epoch in (0, 1) for sample in range(5)
    }
    assert len(variants) == 20


def test_variation_gives_the_size_whatever_the_image() -> None:
    for number, size in enumerate([(60, 40), (1, 1), (500, 3), (3, 500), (32, 32)]):
        for sample in range(10):
            found = augment(colourful(size), 32, random_of_sample(number, 0, sample))
            assert found.shape == (32, 32, 3)
            assert found.dtype == np.uint8


def test_crops_keep_to_scale_and_ratio() -> None:
    """A picture whose colour says where it is: the crop's corners give its place back."""
    ramp = np.zeros((240, 240, 3), np.uint8)
    ramp[..., 0] = np.arange(240)[None]
    ramp[..., 1] = np.arange(240)[:, None]
    image = Image.fromarray(ramp)
    areas, ratios = [], []
    for sample in range(300):
        crop = random_resized_crop(image, 240, random_of_sample(0, 0, sample), (0.5, 1.0))
        found = np.asarray(crop).astype(float)
        width = (found[:, -2, 0].mean() - found[:, 1, 0].mean()) * 239 / 237 + 1
        height = (found[-2, :, 1].mean() - found[1, :, 1].mean()) * 239 / 237 + 1
        areas.append(width * height / 240**2)
        ratios.append(width / height)
    assert 0.48 < min(areas) < 0.55
    assert 0.9 < max(areas) < 1.02
    assert 0.72 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.36


def test_a_whole_crop_without_anything_else_is_the_evaluation_transform() -> None:
    image = colourful((40, 40))
    found = augment(image, 24, Random(0), crop_scale=(1.0, 1.0), flip=False, randaugment=None)
    np.testing.assert_array_equal(found, resize(image, 24))


def test_half_the_images_are_flipped() -> None:
    image = colourful((24, 24))
    plain = resize(image, 24)
    flipped = 0
    for sample in range(400):
        found = augment(
            image, 24, random_of_sample(0, 0, sample), crop_scale=(1, 1), randaugment=None
        )
        if np.array_equal(found, plain[:, ::-1]):
            flipped += 1
        else:
            np.testing.assert_array_equal(found, plain)
    assert 160 < flipped < 240


def test_the_operations_are_those_published() -> None:
    names = {operation.__name__.strip("_") for operation in augmentation.OPERATIONS}
    assert names == {
        "identity",
        "autocontrast",
        "equalize",
        "brightness",
        "sharpness",
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "rotate",
    }


class Fixed(Random):
    """Chance that always gives the same number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


def operation(name: str, image: Image.Image, level: float = 0.7, chance: float = 0.9) -> np.ndarray:
    return np.asarray(getattr(augmentation, f"_{name}")(image, level, Fixed(chance)))


def test_operations_by_hand_at_magnitude_seven() -> None:
    """ALBEF at magnitude 7 of 10: brightness 1.36, translation 7 pixels of 256, turn 21°."""
    image = Image.fromarray(np.full((256, 256, 3), 100, np.uint8))
    assert operation("brightness", image).max() == 136
    np.testing.assert_array_equal(operation("identity", image), np.asarray(image))
    np.testing.assert_array_equal(operation("sharpness", image), np.asarray(image))
    moved = operation("translate_x", image)
    assert (moved[:, :249] == 100).all()
    assert (moved[:, 249:] == 128).all()
    back = operation("translate_x", image, chance=0.1)
    assert (back[:, :7] == 128).all()
    assert (back[:, 7:] == 100).all()
    down = operation("translate_y", image, chance=0.1)
    assert (down[:7] == 128).all()
    turned = operation("rotate", image)
    expected = image.rotate(21, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
    np.testing.assert_array_equal(turned, np.asarray(expected))
    sheared = operation("shear_x", image)  # row y shows the pixels 0.21 y to the right
    assert (sheared[0] == 100).all()
    assert (sheared[200, : 256 - 43] == 100).all()
    assert (sheared[200, 256 - 41 :] == 128).all()


def test_translation_keeps_its_share_of_smaller_pictures() -> None:
    image = Image.fromarray(np.full((64, 64, 3), 100, np.uint8))
    grey = (operation("translate_x", image)[0, :, 0] != 100).sum()
    assert grey == 2  # 7 / 256 of 64 is 1.75


def test_contrast_operations_are_pillows() -> None:
    image = colourful()
    np.testing.assert_array_equal(
        operation("autocontrast", image), np.asarray(ImageOps.autocontrast(image))
    )
    np.testing.assert_array_equal(
        operation("equalize", image), np.asarray(ImageOps.equalize(image))
    )
