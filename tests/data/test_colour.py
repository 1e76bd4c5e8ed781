"""Images of all kinds are decoded to the pixels that a viewer shows."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, features

from bagformer_cli.data.colour import MAX_PROFILE_BYTES, is_shown_as_stored, shown_rgb
from bagformer_cli.data.images import decode
from tests.support.datasets import picture


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(data: bytes, **options: bool) -> list[object]:
    """The first row of a decoded image."""
    return np.asarray(decode(data, **options))[0].tolist()


def greys(data: bytes) -> list[int]:
    """The first row of a decoded grey image."""
    row = np.asarray(decode(data))[0]
    assert (row == row[:, :1]).all()
    return row[:, 0].tolist()


def png(bits: int, colour: int, row: bytes, width: int, transparent: bytes) -> bytes:
    """A PNG of one row, with a transparent colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)),
            chunk(b"tRNS", transparent),
            chunk(b"IDAT", zlib.compress(b"\0" + row)),
            chunk(b"IEND", b""),
        )
    )


def tiff(bits: int, photometric: int, data: bytes, width: int) -> bytes:
    """A grey TIFF of one row."""
    tags = ((256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
            (278, 1), (279, len(data)))  # fmt: skip
    body = data + b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(body))
        + body
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


# -------------------------------------------------------------------------------------- orientation


def oriented(orientation: int, form: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.array([[10, 20, 30], [40, 50, 60]], np.uint8))
    options = {"lossless": True} if form == "WEBP" else {}
    return saved(image.convert("RGB"), form, exif=exif, **options)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, [[10, 20, 30], [40, 50, 60]]),
        (2, [[30, 20, 10], [60, 50, 40]]),
        (3, [[60, 50, 40], [30, 20, 10]]),
        (4, [[40, 50, 60], [10, 20, 30]]),
        (5, [[10, 40], [20, 50], [30, 60]]),
        (6, [[40, 10], [50, 20], [60, 30]]),
        (7, [[60, 30], [50, 20], [40, 10]]),
        (8, [[30, 60], [20, 50], [10, 40]]),
        (0, [[10, 20, 30], [40, 50, 60]]),
        (99, [[10, 20, 30], [40, 50, 60]]),
    ],
)
def test_orientations_by_hand(orientation: int, seen: list[list[int]], form: str) -> None:
    found = np.asarray(decode(oriented(orientation, form)))
    assert found[..., 0].tolist() == seen


def test_an_opened_image_is_turned_once() -> None:
    opened = Image.open(io.BytesIO(oriented(6)))
    once = decode(opened)
    assert once.size == (2, 3)
    assert decode(once).size == (2, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_broken_exif_block_changes_nothing() -> None:
    data = saved(Image.new("RGB", (8, 4)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff rubbish")
    assert decode(data).size == (8, 4)


# -------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize(("form", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_sixteen_bits_are_scaled_to_eight(form: str, mode: str) -> None:
    values = np.array([0, 257, 128 * 257, 65535], ">u2" if mode.endswith("B") else "<u2")
    image = Image.frombytes(mode, (4, 1), values.tobytes())
    assert greys(saved(image, form)) == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 0.25, 0.5], [0, 64, 128]),  # a dark image stays dark
        ([0, 100, 200], [0, 100, 200]),
        ([0, 128 * 257, 65535], [0, 128, 255]),
        ([0, 50_000, 100_000], [0, 128, 255]),
        ([-5, np.nan, 1], [0, 0, 255]),
        ([0, np.inf, 200], [0, 255, 200]),
    ],
)
def test_float_values_are_scaled_by_the_smallest_white_that_holds_them(
    values: list[float], seen: list[int]
) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert greys(saved(image, "TIFF")) == seen
    assert np.asarray(shown_rgb(image))[0, :, 0].tolist() == seen


def test_an_all_zero_float_image_is_black() -> None:
    assert greys(saved(Image.new("F", (3, 1)), "TIFF")) == [0, 0, 0]


def test_a_pgm_of_more_than_eight_bits_is_scaled_by_its_header() -> None:
    assert greys(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023)) == [0, 128, 255]


def test_twelve_bits_and_inverted_grey_of_a_tiff() -> None:
    assert greys(tiff(12, 1, bytes([0xFF, 0xF8, 0x00]), 2)) == [255, 128]
    assert greys(tiff(16, 0, struct.pack("<2H", 65535, 0), 2)) == [0, 255]


# ------------------------------------------------------------------------------------- transparency


def test_half_transparent_red_on_white_is_pink() -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 128))
    image.putpixel((2, 0), (255, 0, 0, 0))
    seen = [[255, 0, 0], [255, 127, 127], [255, 255, 255]]
    assert pixels(saved(image, "PNG")) == seen
    assert pixels(saved(image, "WEBP", lossless=True, exact=True)) == seen
    assert pixels(saved(image, "TIFF")) == seen
    assert pixels(saved(image, "PNG"), as_original=True) == [[255, 0, 0]] * 3


@pytest.mark.parametrize(
    ("bits", "colour", "row", "width", "transparent", "seen"),
    [
        (1, 0, bytes([0b01000000]), 2, b"\0\0", [255, 255]),
        (2, 0, bytes([0b00011011]), 4, b"\0\1", [0, 255, 170, 255]),
        (4, 0, bytes([0x1E]), 2, b"\0\1", [255, 238]),
        (8, 0, bytes([9, 10]), 2, b"\0\x09", [255, 10]),
        (16, 0, b"\x12\x34\x12\x35", 2, b"\x12\x34", [255, 18]),
        (16, 2, b"\x12\x34" * 3 + b"\x20\x00" * 3, 2, b"\x12\x34" * 3, [255, 32]),
    ],
)
def test_the_transparent_colour_of_a_png_of_any_depth_is_white(
    bits: int, colour: int, row: bytes, width: int, transparent: bytes, seen: list[int]
) -> None:
    assert greys(png(bits, colour, row, width, transparent)) == seen


def test_an_opaque_image_with_alpha_keeps_its_colours() -> None:
    image = decode(picture(3)).convert("RGBA")
    np.testing.assert_array_equal(
        np.asarray(decode(saved(image, "PNG"))), np.asarray(image.convert("RGB"))
    )


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert pixels(data)[0] == [255, 0, 0]


# ---------------------------------------------------------------------------------- colour profiles

needs_profiles = pytest.mark.skipif(
    not features.check("littlecms2"), reason="Pillow was built without LittleCMS"
)


def matrix_profile(red: tuple[float, float, float]) -> bytes:
    """An sRGB profile with another red primary: X, Y, Z."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for entry in range(132, 132 + 12 * count, 12):
        if profile[entry : entry + 4] == b"rXYZ":
            at = int.from_bytes(profile[entry + 4 : entry + 8], "big") + 8
            profile[at : at + 12] = b"".join(struct.pack(">i", round(v * 65536)) for v in red)
    return bytes(profile)


@needs_profiles
def test_a_wide_colour_profile_is_converted_to_srgb() -> None:
    image = Image.new("RGB", (2, 1), (200, 60, 60))
    wide = matrix_profile((0.515, 0.241, -0.001))  # Display P3's red
    (red, green, blue), _ = pixels(saved(image, "PNG", icc_profile=wide))
    assert red > 205
    assert green < 60
    assert pixels(saved(image, "PNG", icc_profile=wide), as_original=True)[0] == [200, 60, 60]
    assert abs(blue - 60) < 20


@needs_profiles
def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(picture(4))
    found = decode(saved(image, "PNG", icc_profile=profile))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("profile", [b"rubbish", b"", bytes(MAX_PROFILE_BYTES + 1)])
def test_a_profile_that_cannot_be_read_is_ignored(profile: bytes) -> None:
    image = Image.new("RGB", (1, 1), (200, 60, 60))
    image.info["icc_profile"] = profile
    assert np.asarray(shown_rgb(image))[0, 0].tolist() == [200, 60, 60]


@needs_profiles
def test_a_profile_of_another_colour_space_is_ignored() -> None:
    image = Image.new("L", (1, 1), 77)
    data = saved(image, "JPEG", quality=100, icc_profile=matrix_profile((0.5, 0.2, 0.0)))
    assert greys(data) == [77]


def test_cmyk_of_a_jpeg_is_read_the_way_adobe_writes_it() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    (found, *_) = pixels(saved(red, "JPEG", quality=100))
    assert np.abs(np.array(found) - [255, 0, 0]).max() < 8


# --------------------------------------------------------------------------------------- thumbnails


def test_only_plain_files_are_shown_right_by_a_program_that_ignores_hints() -> None:
    def plain(data: bytes) -> bool:
        return is_shown_as_stored(Image.open(io.BytesIO(data)))

    assert plain(picture(1, form="JPEG"))
    assert plain(oriented(1))
    assert not plain(oriented(6))
    assert not plain(saved(Image.new("RGBA", (2, 2)), "PNG"))
    assert not plain(saved(Image.new("I;16", (2, 2)), "PNG"))
    assert not plain(saved(Image.new("CMYK", (2, 2)), "JPEG"))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_images_of_one_pixel_or_a_thin_line_are_decoded(size: tuple[int, int], form: str) -> None:
    assert decode(saved(Image.new("RGB", size), form), 224).size == size
