"""Tell by its first bytes what a file is that is not what it should be, for an error about it.

Under the right name there is often another file: an image instead of a table, the web page of a
download that failed, or the pointer that Git LFS leaves in the place of a large file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.opening import open_regular

HEAD_BYTES = 64
"""As many first bytes show the kind of a file."""

_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = (
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
)
_MARKS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"8BPS", "PSD"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\xd0\xcf\x11\xe0", "Excel 97"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\n", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
)


class Kind(NamedTuple):
    """The kind of a file, as an error names it.

    Attributes:
        found: The kind in words, for ``found`` of an error.
        hint: The next step for the user; None: none is known.
    """

    found: str
    hint: str | None = None


def kind_of(head: bytes) -> Kind | None:
    r"""Tell the kind of a file; None: its first bytes are those of no known kind.

    Args:
        head: The first :data:`HEAD_BYTES` bytes.

    >>> kind_of(b"%PDF-1.7").found
    'a file of type PDF'
    """
    if head.startswith(_POINTER):
        return Kind(tr("a pointer of Git LFS to the file"), tr("Fetch the file: git lfs pull"))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    name = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    name = name or next((name for mark, name in _MARKUP if text.startswith(mark)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "WebP"
    if name is None:
        return None
    hint = tr("It may be the error page of a download. Download the file again.")
    return Kind(tr("a file of type {type}", type=name), hint if name == "HTML" else None)


def kind_of_file(path: str | Path) -> Kind | None:
    """Tell the kind of a file; see :func:`kind_of`.

    Raises:
        InputError: It cannot be read.
    """
    with open_regular(path) as stream:
        return kind_of(stream.read(HEAD_BYTES))


def require_text_file(path: str | Path, expected: str) -> None:
    """Refuse an image, an archive, a web page or a pointer in the place of a text file.

    Args:
        path: The file.
        expected: The content that it should have, for the message.

    Raises:
        InputError: It is one of these, or it cannot be read.
    """
    if kind := kind_of_file(path):
        raise InputError(
            tr("This is not a text file."),
            where=path,
            found=kind.found,
            expected=expected,
            hint=kind.hint,
        )
