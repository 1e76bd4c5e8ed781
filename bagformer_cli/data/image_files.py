"""Read the images that a catalogue names: files, confined to a folder or not, and addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bagformer_cli.data.downloads import Download, LaterError, download, is_address
from bagformer_cli.data.images import read_image_file
from bagformer_cli.errors import DataError, InputError
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
    reason = copy(error)
    reason.hint = None  # it stands at the end, once
    message = tr("The image of this row cannot be used.")
    kind = LaterError if isinstance(error, LaterError) else DataError
    return kind(message, where=where, found=reason, hint=error.hint)


ANYWHERE = ImageAccess()
"""Files anywhere, and public addresses."""


def place_of(cell: str, root: Path) -> str:
    r"""Return where a table's image is: an address as it is, a path from ``root``.

    A path as Windows writes it (``图片\a.jpg``) is read with ``/``, unless a file has that name.
    """
    if is_address(cell):
        return cell
    path = root / cell
    if "\\" in cell and not path.exists():
        path = root / cell.replace("\\", "/")
    return str(path)
