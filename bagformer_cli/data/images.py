"""Open, decode and resize images: the only place that reads image files.

Only the formats in :data:`FORMATS` are opened, whatever a file's ending says: Pillow knows formats
that start other programs (EPS) or that hardly anybody tests.

Shapes: H height, W width, S side of the square input of an image encoder, in pixels.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bagformer_cli.data.colour import scale_transparent_grey, shown_rgb
from bagformer_cli.data.jpeg import grey_end, is_cut_off, lacks_scans
from bagformer_cli.errors import DataError, listed
from bagformer_cli.file_kinds import HEAD_BYTES, kind_of
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

# Pillow warns of odd metadata in images that it reads well. The filter is set once, because threads
# that decode at the same time share Python's filters.
warnings.filterwarnings("ignore", module=r"PIL\.")

ImageSource = bytes | Path | str | Image.Image

Value = TypeVar("Value")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_PIXELS = 89_478_485
"""Pillow's own limit; an image of more pixels takes over 256 MiB to decode."""
MAX_FILE_BYTES = 512 << 20
"""A larger file is not read: an uncompressed image of :data:`MAX_PIXELS` is smaller."""

DECODING = 2
"""Version of :func:`decode`. Change it when pixels change: files made from them are made again."""

FORMATS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "JPEG2000": "PIL.Jpeg2KImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
    "HEIF": "pillow_heif",
}
"""The formats that are opened, and the module that reads each. HEIF needs the optional package
pillow-heif, AVIF a Pillow from 11.3 on."""

_KNOWN = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_HEIF_BRANDS = (b"hei", b"hev", b"mif", b"msf")


@cache
def readable_formats() -> tuple[str, ...]:
    """Load the readers of :data:`FORMATS`; return the formats that this installation can read."""
    found = []
    for name, module in FORMATS.items():
        try:
            reader = import_module(module)
        except ImportError:
            continue
        if name == "HEIF":
            reader.register_heif_opener()
        found.append(name)
    import_module("PIL.MpoImagePlugin")  # only registers its ending; the reader is JPEG's
    return tuple(found)


@cache
def readable_endings() -> frozenset[str]:
    """Return the endings of the files that can be read, in lower case: ``.jpg`` and others."""
    formats = (*readable_formats(), "MPO")  # a JPEG with a second image; the first one is read
    return frozenset(ending for ending, name in Image.EXTENSION.items() if name in formats)


def has_image_mark(head: bytes) -> bool:
    """Say whether the first 16 bytes of a file are those of JPEG, PNG, WebP, GIF, HEIC or AVIF.

    A file is read by its content, whatever its ending says. Other formats are known by their
    ending alone: the raw images of cameras begin as TIFF files do.
    """
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:11].lower() in _HEIF_BRANDS or head[8:12] in (b"avif", b"avis")
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8"))


def decode(
    source: ImageSource,
    size_hint: int | None = None,
    where: str | Path | None = None,
    *,
    as_original: bool = False,
) -> Image.Image:
    """Decode an image to the RGB that an image viewer shows (``colour.py``).

    Args:
        source: The bytes of an image file, its path, or an open image.
        size_hint: Side, in pixels, to which the image will be resized. A JPEG of at least twice
            that size is scaled down by 2, 4 or 8 (never below the hint) while it is decoded. This
            halves the time and changes a resized pixel by about half a grey level. None: decode
            exactly.
        where: Name of the image in an error; None: its path.
        as_original: Convert with Pillow's ``convert("RGB")`` alone, as the published BagFormer
            code does: orientation, colour profile and alpha are ignored (``compat: bagformer``).

    Returns:
        An RGB image, fully loaded.

    Raises:
        InputError: The file does not exist, or is no regular file.
        DataError: It is not an image, it is cut off or broken, or it has more than
            :data:`MAX_PIXELS` pixels.
    """
    if isinstance(source, Image.Image):
        return _converted(source, where, as_original)
    if isinstance(source, (str, Path)):
        where = where or source
        source = read_image_file(source)
    image = open_image(source, where)
    if size_hint is not None:
        image.draft(None, (size_hint, size_hint))
    rgb = _converted(image, where, as_original)
    # A decoder that reaches the end of a JPEG too early fills the rest with grey, without an error.
    if image.format in ("JPEG", "MPO") and grey_end(image) and is_cut_off(source):
        raise _broken(where, tr("the pixels end before the end of the file"))
    if image.info.get("progressive") and lacks_scans(source):
        raise _broken(where, tr("a progressive JPEG without its last scans"))
    return rgb


def open_image(data: bytes, where: str | Path | None = None) -> Image.Image:
    """Read only the header of an image: its format and size.

    Raises:
        DataError: It is not an image, or it has more than :data:`MAX_PIXELS` pixels.
    """
    try:
        image = _guarded(lambda: Image.open(io.BytesIO(data), formats=readable_formats()), where)
    except UnidentifiedImageError:
        raise _not_an_image(data, where) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"(\d+) pixels", str(error))
        found = tr("{n} million pixels", n=int(pixels[1]) // 10**6) if pixels else None
        raise _too_large(where, found) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width} × {height}")
    scale_transparent_grey(image)
    return image


def verify(data: bytes, where: str | Path | None = None) -> None:
    """Check that an image can be decoded, by decoding all its pixels.

    A JPEG is decoded at an eighth of its size, which reads all of its data and takes a third of
    the time.

    Args:
        data: The bytes of the image file.
        where: Name of the image in an error.

    Raises:
        DataError: It cannot be decoded.
    """
    decode(data, 1, where)


def resize(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resize the whole image to a square (bicubic), as in evaluation: [S, S, 3] uint8."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def read_image_file(path: str | Path) -> bytes:
    """Read an image file, without decoding it.

    Raises:
        InputError: The file does not exist, is no regular file, or has more than
            :data:`MAX_FILE_BYTES` bytes.
    """
    return read_regular(path, MAX_FILE_BYTES)


def _converted(image: Image.Image, where: str | Path | None, as_original: bool) -> Image.Image:
    return _guarded(lambda: image.convert("RGB") if as_original else shown_rgb(image), where)


def _guarded(work: Callable[[], Value], where: str | Path | None) -> Value:
    """Turn the many exceptions of Pillow's decoders into one kind of error."""
    try:
        return work()
    except (
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
        UnidentifiedImageError,
        MemoryError,
    ):
        raise
    except Exception as error:
        raise _broken(where) from error


def _broken(where: str | Path | None, found: str | None = None) -> DataError:
    return DataError(
        tr("The image is broken or cut off."),
        where=where,
        found=found,
        expected=tr("a complete image file"),
    )


def _not_an_image(data: bytes, where: str | Path | None) -> DataError:
    """Explain why no reader accepts a file: another format, or a broken header."""
    if data.startswith(_KNOWN):
        return _broken(where, tr("a header that cannot be read"))
    brand = data[8:12].lower() if data[4:8] == b"ftyp" else b""
    if brand[:3] in _HEIF_BRANDS and "HEIF" not in readable_formats():
        return DataError(
            tr("HEIC images need the package pillow-heif."),
            where=where,
            hint="pip install pillow-heif",
        )
    kind = kind_of(data[:HEAD_BYTES])
    return DataError(
        tr("This is not an image."),
        where=where,
        found=tr("an empty file") if not data else kind.found if kind else None,
        expected=tr("one of: {names}", names=listed(readable_formats())),
        hint=kind.hint if kind else None,
    )


def _too_large(where: str | Path | None, found: str | None) -> DataError:
    return DataError(
        tr("The image is too large to decode safely."),
        where=where,
        found=found,
        expected=tr("at most {n} million pixels", n=MAX_PIXELS // 10**6),
        hint=tr("Scale it down first; models read images of a few hundred pixels per side."),
    )
