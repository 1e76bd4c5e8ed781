"""What is in each picture and what each query names: ``attributes.jsonl`` and its use.

The first line says what the file is: ``{"format": "xmr-demo-attributes", "version": 1, "seed": 0,
"images": 3000}``. Then one line an image and one line a query, of every split::

    {"image_id": 1000001, "split": "valid", "things": [{"kind": "dress", "colour": "red",
     "pattern": "dots", "part_colour": "white"}, ...]}
    {"query_id": 7, "split": "valid", "things": [{"kind": "dress", "colour": "red",
     "pattern": null, "part_colour": null}]}

A query's thing is null in what the query leaves open. An image answers a query when each thing
that the query names is there with all that is said of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.errors import DataError, cannot_read
from bagformer_cli.messages import tr

FILE_NAME = "attributes.jsonl"
FORMAT = "xmr-demo-attributes"
VERSION = 1
FIELDS = ("kind", "colour", "pattern", "part_colour")


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing in a picture, or what a query says of one (None where it says nothing).

    Args:
        kind: A key of ``catalogue.KINDS``.
        colour: A key of ``palette.COLOURS``.
        pattern: A key of ``palette.PATTERNS``.
        part_colour: The colour of its small parts, a key of ``palette.COLOURS``.
    """

    kind: str
    colour: str | None = None
    pattern: str | None = None
    part_colour: str | None = None

    def is_named_by(self, named: Thing) -> bool:
        """True where this thing is of the kind that ``named`` says, and all else it says."""
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
        images: Image id to the things in the picture.
        queries: Query id to the things the query names.
    """

    images: Mapping[int, tuple[Thing, ...]]
    queries: Mapping[int, tuple[Thing, ...]]


def answers(image: Iterable[Thing], query: Iterable[Thing]) -> bool:
    """True where a picture of the things ``image`` answers a query that names ``query``."""
    things = tuple(image)
    return all(any(thing.is_named_by(named) for thing in things) for named in query)


def header_line(seed: int, images: int) -> str:
    """The first line of an attributes file."""
    head = {"format": FORMAT, "version": VERSION, "seed": seed, "images": images}
    return json.dumps(head) + "\n"


def record_line(id_field: str, number: int, split: str, things: Sequence[Thing]) -> str:
    """One line: ``id_field`` is ``"image_id"`` or ``"query_id"``."""
    listed = [{field: getattr(thing, field) for field in FIELDS} for thing in things]
    return json.dumps({id_field: number, "split": split, "things": listed}) + "\n"


def read_header(path: str | Path) -> dict[str, Any]:
    """The first line of an attributes file: format, version, seed, images.

    Raises:
        InputError: The file cannot be read.
        DataError: The first line is not that of an attributes file this version reads.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as stream:
            head = json.loads(stream.readline())
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError:
        head = None
    if not isinstance(head, dict) or (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise DataError(
            tr("This is not a demo set's attributes file."),
            where=f"{path}:1",
            expected=header_line(0, 3000).strip(),
            hint=tr("Draw the demo set anew: xmr data demo"),
        )
    return head


def read_attributes(path: str | Path, split: str | None = None) -> Attributes:
    """Read an attributes file.

    Args:
        path: The file, or the demo set's folder.
        split: Keep one split's lines alone; None keeps all.

    Raises:
        InputError: The file cannot be read.
        DataError: A line is broken; the error names file and line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    read_header(path)
    images: dict[int, tuple[Thing, ...]] = {}
    queries: dict[int, tuple[Thing, ...]] = {}
    with open(path, encoding="utf-8") as stream:
        stream.readline()
        for number, line in enumerate(stream, start=2):
            try:
                record = json.loads(line)
                if split is not None and record["split"] != split:
                    continue
                things = tuple(Thing(**thing) for thing in record["things"])
                if "image_id" in record:
                    images[record["image_id"]] = things
                else:
                    queries[record["query_id"]] = things
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    tr("The line is not one of an attributes file."),
                    where=f"{path}:{number}",
                    found=line.strip()[:60],
                    hint=tr("Draw the demo set anew: xmr data demo"),
                ) from error
    return Attributes(images, queries)


def accuracy_by_attribute(
    query_things: Sequence[Sequence[Thing]], top1_image_things: Sequence[Sequence[Thing]]
) -> dict[str, float]:
    """What the first image found for each query gets right.

    Args:
        query_things: For each query, the things it names.
        top1_image_things: For each query, the things in the image ranked first.

    Returns:
        Shares in [0, 1], of the queries that the row is about (a row about none is left out):

        - ``kind``: every kind the query names is in the picture;
        - ``colour``, ``pattern``, ``part``: every colour (pattern, small part's colour) it names
          is that of *some* thing in the picture, of those queries that name one;
        - ``binding``: each named thing has what is said of it, of those queries for which all
          named kinds, colours and patterns are in the picture: which thing has which;
        - ``all``: the picture answers the query.
    """
    if len(query_things) != len(top1_image_things):
        raise ValueError(f"{len(query_things)} queries, {len(top1_image_things)} images")
    tallies: dict[str, list[bool]] = {}
    for query, image in zip(query_things, top1_image_things, strict=True):
        present = []
        for row, field in (
            ("kind", "kind"),
            ("colour", "colour"),
            ("pattern", "pattern"),
            ("part", "part_colour"),
        ):
            wanted = {getattr(thing, field) for thing in query} - {None}
            if wanted:
                found = wanted <= {getattr(thing, field) for thing in image}
                tallies.setdefault(row, []).append(found)
                if row != "part":
                    present.append(found)
        right = answers(image, query)
        if all(present):
            tallies.setdefault("binding", []).append(right)
        tallies.setdefault("all", []).append(right)
    order = ("kind", "colour", "pattern", "part", "binding", "all")
    return {row: sum(tallies[row]) / len(tallies[row]) for row in order if row in tallies}
