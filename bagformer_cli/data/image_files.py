"""Read the images that a catalogue names: files, confined to a folder or not, and addresses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bagformer_cli.data.downloads import Download, LaterError, download, is_address
from bagformer_cli.data.images import read_image_file
from bagformer_cli.errors import DataError, InputError, with_place
from bagformer_cli.messages import tr
from bagformer_cli.opening import require_inside

DOWNLOADS_AT_ONCE = 16
"""A server answers after some 100 ms, most of which is waiting."""
_AHEAD = 4 * DOWNLOADS_AT_ONCE


@dataclass(frozen=True, slots=True)
class ImageAccess:
    """The images that a catalogue may name.

    Args:
        within: Folder that files must be inside, links followed; None: anywhere.
        download: Which addresses are downloaded; see :mod:`bagformer_cli.data.downloads`.
    """

    within: Path | None = None
    download: Download = "public"

    def read(self, place: str) -> bytes:
        """Return the content of an image file.

        Args:
            place: A path or an address.

        Raises:
            InputError: It may not be read, or it cannot be.
        """
        if is_address(place):
            return download(place, self.download)
        if is_windows_path(place) and not Path(place).exists():
            raise DataError(
                tr("This is a path of a Windows machine; there is no such file here."),
                where=place,
                hint=tr(
                    "Copy the images to this machine and write their paths from the folder of the "
                    "table, or of --root: photos/a.jpg"
                ),
            )
        if self.within is not None:
            require_inside(place, self.within)
        return read_image_file(place)

    def read_all(self, places: Iterable[str]) -> Iterator[bytes | InputError]:
        """Read images in order; addresses are downloaded several at once.

        Yields:
            The content of each image, or the error in its place.
        """
        left = iter(places)
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            while group := list(islice(left, _AHEAD)):
                if any(map(is_address, group)):
                    yield from pool.map(self._try, group)
                else:
                    yield from map(self._try, group)

    def _try(self, place: str) -> bytes | InputError:
        try:
            return self.read(place)
        except InputError as error:
            return error


def image_error(where: str, error: InputError) -> DataError:
    """Make the error for a row whose image cannot be used, from the error of the image."""
    reason = with_place(error.message, error.where)
    message = tr("The image of this row cannot be used. {reason}", reason=reason)
    kind = LaterError if isinstance(error, LaterError) else DataError
    return kind(message, where=where, found=error.found, expected=error.expected, hint=error.hint)


ANYWHERE = ImageAccess()
"""Files anywhere, and public addresses."""


def is_windows_path(text: str) -> bool:
    r"""Say whether a path starts with a drive or a server of Windows and this is another system.

    >>> [is_windows_path(text) for text in (r"D:\a.jpg", r"\\nas\a.jpg", "images/a.jpg")]
    [True, True, False]
    """
    return os.name != "nt" and (
        (text[1:3] in (":\\", ":/") and text[0].isalpha()) or text.startswith("\\\\")
    )


def place_of(cell: str, root: Path) -> str:
    r"""Return where a table's image is: an address as it is, a path from ``root``.

    A path as Windows writes it (``图片\a.jpg``) is read with ``/``, unless a file has that name;
    one with a drive or a server (``D:\a.jpg``) stays, and reading it says what to do.
    """
    if is_address(cell):
        return cell
    path = root / cell
    if is_windows_path(cell) and not path.exists():
        return cell
    if "\\" in cell and not path.exists():
        path = root / cell.replace("\\", "/")
    return str(path)
