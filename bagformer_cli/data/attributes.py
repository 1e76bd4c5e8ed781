"""``attributes.jsonl``: an optional file of a MUGE folder that says what each image shows.

With it, ``xmr eval`` reports the accuracy of the first image by attribute, and an index of the
folder has the columns ``category``, ``colour`` and ``pattern``. The generated demo set has one.

The first line is a header. Its ``names`` are the names to show for the keys used below; they may
be left out. Then comes one line per image and one per query, for any splits::

    {"format": "xmr-attributes", "version": 1, "names": {"kind": {"dress": "连衣裙"}, …}}
    {"image_id": 1000001, "split": "valid", "things": [{"kind": "dress", "colour": "red",
     "pattern": "dots", "part_colour": "white"}, …]}
    {"query_id": 7, "split": "valid", "things": [{"kind": "dress", "colour": "red",
     "pattern": null, "part_colour": null}]}

An image has one or more *things*; null in a query means that the query does not say. An image
answers a query if each thing of the query is in the image with all the attributes that the query
names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bagformer_cli.data.byte_ranges import ByteRange
from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr

FILE_NAME = "attributes.jsonl"
FORMAT = "xmr-attributes"
VERSION = 1
FIELDS = ("kind", "colour", "pattern", "part_colour")
_FORMATS = (FORMAT, "xmr-demo-attributes")  # the second: demo sets before the file had names

Names = Mapping[str, Mapping[str, str]]
"""For ``kind``, ``colour`` and ``pattern``: key to the name to show."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in an image, or what a query says about one (None: it does not say).

    Args:
        kind: Its kind, for example ``dress``.
        colour: Its main colour.
        pattern: Its pattern.
        part_colour: Colour of its small parts (a collar, a handle).
    """

    kind: str
    colour: str | None = None
    pattern: str | None = None
    part_colour: str | None = None

    def fits(self, named: Thing) -> bool:
        """Say whether it has the kind and every attribute that ``named`` gives."""
        return (
            self.kind == named.kind
            and named.colour in (None, self.colour)
            and named.pattern in (None, self.pattern)
            and named.part_colour in (None, self.part_colour)
        )


@dataclass(frozen=True, slots=True)
class Attributes:
    """The content of an attributes file.

    Args:
        images: Image id to the things in the image.
        queries: Query id to the things that the query names.
        names: Names to show for keys; see :data:`Names`.
    """

    images: Mapping[int, tuple[Thing, ...]]
    queries: Mapping[int, tuple[Thing, ...]]
    names: Names = field(default_factory=dict)

    def columns(self, image_id: int) -> dict[str, str | int | float | bool]:
        """Give an image's columns for an index, from its first thing; empty if it is unknown."""
        things = self.images.get(image_id)
        if not things:
            return {}
        keys = {"kind": things[0].kind, "colour": things[0].colour, "pattern": things[0].pattern}
        return {
            COLUMNS[name]: self.names.get(name, {}).get(key, key)
            for name, key in keys.items()
            if key is not None
        }


COLUMNS = {"kind": "category", "colour": "colour", "pattern": "pattern"}
"""Field of a thing to its column in an index."""


def answers(image: Iterable[Thing], query: Iterable[Thing]) -> bool:
    """Say whether an image of the things ``image`` answers a query that names ``query``.

    >>> answers([Thing("dress", "red"), Thing("bag", "blue")], [Thing("bag", "blue")])
    True
    >>> answers([Thing("dress", "red"), Thing("bag", "blue")], [Thing("bag", "red")])
    False
    """
    things = tuple(image)
    return all(any(thing.fits(named) for thing in things) for named in query)


def header_line(names: Names, **extra: object) -> str:
    """Make the first line of an attributes file; ``extra`` fields are not read again."""
    head = {"format": FORMAT, "version": VERSION, **extra, "names": names}
    return json.dumps(head, ensure_ascii=False) + "\n"


def record_line(id_field: str, number: int, split: str, things: Sequence[Thing]) -> str:
    """Make the line of an image (``id_field`` is ``image_id``) or of a query (``query_id``)."""
    listed = [{name: getattr(thing, name) for name in FIELDS} for thing in things]
    return json.dumps({id_field: number, "split": split, "things": listed}) + "\n"


def read_header(path: Path) -> dict[str, Any]:
    """Read the first line of an attributes file.

    Raises:
        InputError: The file cannot be read.
        DataError: The first line is not the header of a version that this program reads.
    """
    try:
        head = json.loads(next(ByteRange(path).lines()).content)
    except (StopIteration, ValueError):
        head = None
    known = isinstance(head, dict) and head.get("format") in _FORMATS
    if not known or head["version"] != VERSION:
        raise DataError(
            tr("This is not an attributes file."),
            where=f"{path}:1",
            expected=header_line({}).strip(),
        )
    return dict(head)


def read_attributes(path: str | Path, split: str | None = None) -> Attributes:
    """Read an attributes file.

    Args:
        path: The file, or the folder that it is in.
        split: Keep the lines of one split; None: of all.

    Raises:
        InputError: The file cannot be read.
        DataError: A line is broken; the error names file and line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    names = read_header(path).get("names", {})
    images: dict[int, tuple[Thing, ...]] = {}
    queries: dict[int, tuple[Thing, ...]] = {}
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if number == 1 or line.blank:
            continue
        try:
            record = json.loads(line.content)
            if split is not None and record["split"] != split:
                continue
            things = tuple(Thing(**thing) for thing in record["things"])
            if "image_id" in record:
                images[record["image_id"]] = things
            else:
                queries[record["query_id"]] = things
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                tr("This line of the attributes file is broken."),
                where=f"{path}:{number}",
                found=repr(line.content[:60].decode("utf-8", "replace")),
                expected=record_line("image_id", 1, "valid", [Thing("dress", "red")]).strip(),
            ) from error
    return Attributes(images, queries, names)
