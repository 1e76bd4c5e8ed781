"""Products of a catalogue, and the parts into which a catalogue is divided.

A part can be read alone, in any process. Its digest stands for everything it is read from, so that
``xmr encode`` writes one file per part and makes it again only if the digest changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bagformer_cli.data.image_files import ANYWHERE, ImageAccess
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Product:
    """One product: a row of a catalogue.

    Args:
        where: File and line it comes from, for errors.
        id: Its id in the catalogue.
        image: Path or address of its image, or a name for it if ``data`` is given; None: no image.
        data: Content of the image file; None: read it from ``image``.
        title: Its title; None: no title.
        attributes: Further columns: price, category ...
        access: Which images may be read.
    """

    where: str
    id: str
    image: str | None = None
    data: bytes | None = None
    title: str | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    access: ImageAccess = ANYWHERE

    @property
    def place(self) -> str:
        """File, line and id, for errors."""
        return self.where if self.id in self.where else row_place(self.where, self.id)


@dataclass(frozen=True, slots=True)
class Remarks:
    """Notes and warnings about the values of a catalogue.

    Args:
        warnings: Sentences about values that look like mistakes but are no errors.
        notes: Sentences about values that are stored in another form, such as dates.
        no_images: The sentence that says why no product has an image; None: some have.
    """

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    no_images: str | None = None

    def report(self, progress: Progress, *, images: bool = True) -> None:
        """Report them: first the notes, then what may be lost.

        Args:
            progress: Where to report.
            images: False: the images are not read, so nothing is lost without them.
        """
        for note in self.notes:
            progress.info(note)
        if images and self.no_images is not None:
            progress.warn(self.no_images)
        for warning in self.warnings:
            progress.warn(warning)


@dataclass(frozen=True, slots=True)
class Part(ABC):
    """A part of a catalogue; subclasses say how it is read.

    Args:
        name: ``part-00000``, ``part-00001`` ...; also the name of the file made from it.
        digest: Changes if the file that the part is read from changes. Images named by a table
            count by name only; images of a folder by name, size and time.
    """

    name: str
    digest: str

    def current_digest(self) -> str:
        """Return a digest that also changes with the images that the part names.

        Reading a table's part for it takes a hundredth of the time that its images take.
        """
        return self.digest

    @abstractmethod
    def products(self) -> Iterator[Product | InputError]:
        """Read the products; a broken one gives its error in its place."""


def row_place(where: str, identity: object) -> str:
    """Name a row by file, line and id, for errors.

    >>> row_place("t.csv:5", "A-7"), row_place("t.csv:5", None)
    ('t.csv:5 (id A-7)', 't.csv:5')
    """
    return tr("{place} (id {id})", place=where, id=identity) if identity else where


def part_name(number: int) -> str:
    """Name part ``number`` of a catalogue."""
    return f"part-{number:05}"


def image_stamp(place: str) -> list[int]:
    """Size and time (ns) of an image file; zeros for an address or a missing file."""
    try:
        found = os.stat(place)
    except (OSError, ValueError):
        return [0, 0]
    return [found.st_size, found.st_mtime_ns]


def digest_of(values: Any) -> str:
    """Hash JSON values to 16 hex digits; names of files need not be UTF-8."""
    text = json.dumps(values, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
