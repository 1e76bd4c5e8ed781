"""Read hard negatives for training: ``data.hard_negatives``, as ``xmr mine`` writes them.

One JSON object per line::

    {"query_id": 7, "negatives": [31, 4], "scores": [5.25, 5.125]}

``scores`` is not read, so that any program can write such a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.byte_ranges import ByteRange, Line, decode_line
from bagformer_cli.data.positives import Positives
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr

SETTING = "data.hard_negatives"
MOST_NEGATIVES = 1000
"""Limit of the negatives of a title: the longest list decides the width of the array of all."""


def read_negatives(path: Path, split: Split) -> NDArray[np.int64]:
    """Read the hard negatives of a split's titles.

    Images that match their title, by id, equal title or equal image, and images that no title of
    the split names, are left out.

    Args:
        path: The file.
        split: The training split.

    Returns:
        [Q, K] image positions; -1 at the end of a row with fewer than K. Titles that the file does
        not name have none.

    Raises:
        InputError: The file cannot be read.
        DataError: A line is no such object, or names a query or image that the split does not have.
    """
    rows = {query: row for row, query in enumerate(split.query_ids.tolist())}
    places = {image: place for place, image in enumerate(split.image_ids.tolist())}
    found: dict[int, list[int]] = {}
    for number, query, negatives in _lines(path):
        unknown = [image for image in negatives if image not in places]
        if query not in rows or unknown:
            raise DataError(
                tr("These hard negatives belong to another dataset or split."),
                where=f"{SETTING}: {path}:{number}",
                found=f"negatives: {unknown[0]}" if query in rows else f"query_id: {query}",
                expected=tr("ids of {path}", path=split.path),
                hint=tr("Mine them again: xmr mine --split train --out FILE"),
            )
        found[rows[query]] = [places[image] for image in negatives]
    return _without_matches(_padded(found, len(rows)), split)


def _lines(path: Path) -> Iterator[tuple[int, int, list[int]]]:
    """Yield line number, query id and image ids of each line."""
    first: dict[int, int] = {}
    for number, line in enumerate(ByteRange(path).lines(), 1):
        if line.blank:
            continue
        where = f"{SETTING}: {path}:{number}"
        query, negatives = _fields(line, where)
        if first.setdefault(query, number) != number:
            raise DataError(
                tr("The id {id} occurs twice.", id=query),
                where=where,
                found=tr("first in {place}", place=f"{path}:{first[query]}"),
            )
        yield number, query, negatives


def _fields(line: Line, where: str) -> tuple[int, list[int]]:
    found = line.raw[:80].decode("utf-8", "replace").strip()
    try:
        content = json.loads(decode_line(line.content))
        query, negatives = content["query_id"], content["negatives"]
        if all(type(number) is int for number in (query, *negatives)):
            if len(negatives) <= MOST_NEGATIVES:
                return query, list(negatives)
            found = tr("{n} negatives", n=len(negatives))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    except DataError as error:
        error.where = where
        raise
    raise DataError(
        tr("This line is not a title with its hard negatives."),
        where=where,
        found=found,
        expected=tr(
            "{example}, with at most {n} negatives",
            example='{"query_id": 7, "negatives": [31, 4]}',
            n=MOST_NEGATIVES,
        ),
    )


def _padded(found: dict[int, list[int]], titles: int) -> NDArray[np.int64]:
    """Put lists of different lengths into one array, -1 at the ends."""
    longest = max(map(len, found.values()), default=0)
    rows = np.full((titles, max(1, longest)), -1, np.int64)
    for row, negatives in found.items():
        rows[row, : len(negatives)] = negatives
    return rows


def _without_matches(rows: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Leave out images that match, or that no title names; the others move up."""
    groups = Positives.of(split)
    named = np.zeros(len(split.image_ids), bool)
    named[split.items] = True
    kept = (rows >= 0) & named[rows]
    kept &= ~groups.contain(groups.text_groups[:, None], groups.image_groups[rows])
    order = np.argsort(~kept, axis=1, kind="stable")
    moved: NDArray[np.int64] = np.take_along_axis(np.where(kept, rows, -1), order, axis=1)
    return moved
