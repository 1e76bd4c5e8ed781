"""Which files are opened as images, and which of them are broken."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from bagformer_cli.data import images
from bagformer_cli.data.images import (
    decode,
    open_image,
    read_image_file,
    readable_endings,
    readable_formats,
    verify,
)
from bagformer_cli.errors import DataError, InputError
from tests.support.datasets import picture


def noise(size: int = 96) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------ formats


def test_the_usual_endings_are_readable() -> None:
    usual = {".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
             ".jp2", ".mpo", ".ppm"}  # fmt: skip
    assert usual <= readable_endings()
    assert not {".eps", ".ps", ".wmf", ".pdf", ".psd", ".ico", ".mpg"} & readable_endings()


@pytest.mark.parametrize("form", ["EPS", "ICO", "TGA", "PDF", "PCX", "SGI", "ICNS"])
def test_other_formats_of_pillow_are_not_opened(form: str) -> None:
    stream = io.BytesIO()
    noise(32).save(stream, form)
    with pytest.raises(DataError, match="not an image") as caught:
        decode(stream.getvalue())
    assert "JPEG" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"8BPS\0\1", "PSD"),
        (b'  <svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS"),
        (b"", "an empty file"),
    ],
)
def test_an_error_names_what_the_file_is(start: bytes, kind: str) -> None:
    with pytest.raises(DataError, match="not an image") as caught:
        verify(start)
    assert kind in str(caught.value.found)


def test_the_content_decides_not_the_ending(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1, form="WEBP"))
    (tmp_path / "b.png").write_bytes(picture(1, form="JPEG"))
    assert decode(tmp_path / "a.jpg").size == decode(tmp_path / "b.png").size == (24, 20)


def test_heic_without_its_reader_says_what_to_install() -> None:
    if "HEIF" in readable_formats():
        pytest.skip("pillow-heif is installed")
    with pytest.raises(DataError, match="HEIC images need") as caught:
        decode(b"\0\0\0\x18ftypheic" + bytes(40))
    assert caught.value.hint == "pip install pillow-heif"


def test_heic_is_read_if_its_reader_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ModuleType("pillow_heif")
    called = []
    reader.register_heif_opener = lambda: called.append(True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", reader)
    readable_formats.cache_clear()
    try:
        assert "HEIF" in readable_formats()
        assert called
    finally:
        readable_formats.cache_clear()
        monkeypatch.undo()
        readable_formats()


def test_a_pipe_is_no_image_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="not a regular file"):
        decode(tmp_path / "a.jpg")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_a_device_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not a regular file"):
        read_image_file(tmp_path / "a.jpg")


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    (tmp_path / "a.jpg").write_bytes(picture(1, form="JPEG"))
    with pytest.raises(InputError, match="too large"):
        decode(tmp_path / "a.jpg")


# ------------------------------------------------------------------------------------------- broken


@pytest.mark.parametrize("hint", [None, 24])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_ends_early_with_an_end_mark_is_broken(
    mode: str, share: float, hint: int | None
) -> None:
    whole = jpeg(noise().convert(mode))
    assert decode(whole, hint).size
    start = whole.index(b"\xff\xda") + 20
    cut = whole[: start + int((len(whole) - start) * share)] + b"\xff\xd9"
    with pytest.raises(DataError, match="cut off"):
        decode(cut, hint)
    with pytest.raises(DataError, match="cut off"):
        verify(cut)


def test_a_progressive_jpeg_cut_in_its_first_scan_is_broken() -> None:
    whole = jpeg(noise(), progressive=True)
    with pytest.raises(DataError, match="cut off"):
        verify(whole[: whole.index(b"\xff\xda") + 60] + b"\xff\xd9")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_grey_jpeg_is_not_broken(mode: str, progressive: bool) -> None:
    grey = Image.new("RGB", (50, 50), (128, 128, 128)).convert(mode)
    exif = Image.Exif()
    exif[271] = "a maker"
    data = jpeg(grey, progressive=progressive, exif=exif)
    assert decode(data).size == (50, 50)
    assert decode(data + b"anything").size == (50, 50)


def test_a_grey_jpeg_with_a_preview_in_its_header_is_not_broken() -> None:
    """The preview has a scan and an end mark of its own, before the image's."""
    preview = jpeg(noise(16))
    grey = jpeg(Image.new("RGB", (50, 50), (128, 128, 128)))
    segment = b"\xff\xe5" + (len(preview) + 2).to_bytes(2, "big") + preview
    assert decode(grey[:2] + segment + grey[2:]).size == (50, 50)


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000"])
def test_a_file_cut_in_the_middle_is_broken(form: str) -> None:
    stream = io.BytesIO()
    noise().save(stream, form)
    data = stream.getvalue()
    with pytest.raises(DataError, match=r"cut off|not an image"):
        verify(data[: len(data) // 2])


def test_a_png_whose_pixels_changed_is_broken() -> None:
    stream = io.BytesIO()
    noise().save(stream, "PNG", compress_level=0)
    data = bytearray(stream.getvalue())
    data[len(data) // 2] ^= 8
    with pytest.raises(DataError, match="cut off"):
        verify(bytes(data))


def test_a_broken_header_is_not_called_another_format() -> None:
    with pytest.raises(DataError, match="broken or cut off"):
        open_image(b"\x89PNG\r\n\x1a\n" + bytes(30))
