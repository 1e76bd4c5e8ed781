"""Convert a decoded image to the RGB pixels that an image viewer shows.

Files store more than three bytes a pixel, and hints on how to show them::

    stored                                        shown
    EXIF orientation 2 to 8                       flipped or turned
    grey of 12, 16 or 32 bits, or float           scaled to 0…255
    alpha, or a transparent palette colour        on white, as shops show products
    colour profile (Display P3, Adobe RGB, CMYK)  converted to sRGB
    palette, 1 bit, CMYK or LAB without profile   converted as Pillow does

An animation shows its first frame.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITES = (1.0, 255.0, 65535.0)
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_PROFILE_COLOURS = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
"""Mode of an image, and the colour space that a profile of it must have."""
MAX_PROFILE_BYTES = 4 << 20
"""A larger colour profile is ignored. Profiles of printing presses have up to 2.5 MB."""
_SAME = 3  # grey levels: a profile that changes no colour by more is sRGB


def shown_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB as an image viewer shows it; see the module.

    Args:
        image: An image of any mode; loaded if it is not.
    """
    image.load()
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        shown = _eight_bits(image).convert("RGB")
    else:
        if image.has_transparency_data:
            image = _on_white(image)
        elif image.mode not in (*_PROFILE_COLOURS, "LAB"):
            image = _with_info(image.convert("RGB"), image)
        shown = _in_srgb(image)
    shown = shown if turn is None else shown.transpose(turn)
    shown.info = {}  # its hints were followed: a second call must not follow them again
    return shown


def is_shown_as_stored(image: Image.Image) -> bool:
    """Say whether a program that ignores all hints shows the image right."""
    plain = image.mode in ("RGB", "L") and not image.has_transparency_data
    return plain and "icc_profile" not in image.info and _orientation(image) not in _TURNS


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; 1 if the image has no EXIF block, or a broken one."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parser raises many kinds of errors
        return 1
    return found if isinstance(found, int) else 1


# ------------------------------------------------------------------------------------------ depth


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey values of more than 8 bits to 0…255."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        found = (values >> (_bits(image) - 8)).astype(np.uint8)
    else:
        found = _scaled(values.astype(np.float32), _white(image, values))
    if _tiff_tag(image, _PHOTOMETRIC) == 0:  # 0 is white; Pillow inverts 8 bits only
        found = 255 - found
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        found[values == transparent] = 255
    return Image.fromarray(found)


def _bits(image: Image.Image) -> int:
    """Bits of a value of an ``I;16`` image: 12 in some TIFF files, else 16."""
    return 12 if _tiff_tag(image, _BITS_PER_SAMPLE) == 12 else 16


def _white(image: Image.Image, values: NDArray[np.generic]) -> float:
    """Find the value that is shown as white.

    Files do not say it for 32-bit and float values: it is the smallest of 1, 255 and 65535 that no
    value exceeds, or the largest value. Pillow scales PNG and PGM to 65535.
    """
    if image.format in ("PNG", "PPM") and image.mode == "I":
        return _WHITES[-1]
    finite = values[np.isfinite(values)]
    largest = float(finite.max(initial=0))
    whites = _WHITES[1:] if image.mode == "I" else _WHITES
    return next((white for white in whites if largest <= white), largest)


def _scaled(values: NDArray[np.float32], white: float) -> NDArray[np.uint8]:
    np.nan_to_num(values, copy=False, nan=0.0, posinf=white, neginf=0.0)
    np.clip(values, 0, white, out=values)
    values *= np.float32(255 / white)
    return np.rint(values, out=values).astype(np.uint8)


def _tiff_tag(image: Image.Image, tag: int) -> object:
    tags = getattr(image, "tag_v2", None)
    value = None if tags is None else tags.get(tag)
    return value[0] if isinstance(value, tuple) and value else value


# ----------------------------------------------------------------------------------- transparency


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparent parts on white."""
    coloured = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(coloured, mask=coloured)
    return _with_info(ground, image)


def scale_transparent_grey(image: Image.Image) -> None:
    """Put right the transparent colour of an opened PNG, before it is loaded.

    Pillow scales grey of 2 and 4 bits to 8, and RGB of 16 bits to 8, but not the value in
    ``info["transparency"]``.
    """
    if image.format != "PNG" or not image.tile:  # type: ignore[attr-defined]
        return
    raw = str(image.tile[0][3])  # type: ignore[attr-defined]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and raw in ("L;2", "L;4"):
        image.info["transparency"] = transparent * 255 // (2 ** int(raw[-1]) - 1)
    elif isinstance(transparent, tuple) and raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _with_info(image: Image.Image, source: Image.Image) -> Image.Image:
    """Keep the colour profile of the image that this one was made from."""
    profile = source.info.get("icc_profile")
    image.info = {} if profile is None else {"icc_profile": profile}
    return image


# --------------------------------------------------------------------------------- colour profiles


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert RGB, grey, CMYK or LAB to sRGB, by the colour profile of the image if it has one."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        transform = _to_srgb(profile, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Make the transform from a profile to sRGB.

    Returns:
        None if the profile is sRGB itself, is of another colour space than the image (a grey image
        often has an RGB profile), or cannot be read. Viewers ignore such a profile.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _PROFILE_COLOURS.get(mode):
            return None
        transform = ImageCms.ImageCmsTransform(
            opened, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )  # fmt: skip
        changed = mode == "CMYK" or _changes_colours(transform, mode)
    except Exception:  # Pillow was built without LittleCMS, or the profile is broken
        return None
    return transform if changed else None


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = levels[:, None]
    if mode == "RGB":
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 1, 3)
    before = Image.fromarray(colours)
    difference = np.asarray(transform.apply(before), np.int64) - np.asarray(before.convert("RGB"))
    return bool(np.abs(difference).max() > _SAME)
