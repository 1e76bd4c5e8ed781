"""Accuracy of the first image by attribute, for datasets that have ``attributes.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.attributes import FILE_NAME, Thing, answers, read_attributes
from bagformer_cli.data.store.split import Split


def first_image_accuracy(folder: Path, split: Split, first: NDArray[np.int64]) -> dict[str, float]:
    """Measure how often the first image of a query has the attributes that the query names.

    Args:
        folder: The dataset's folder.
        split: The split that was ranked, Q queries.
        first: [Q] position of the image ranked first for each query.

    Returns:
        Percentages, see :func:`accuracy_by_attribute`; empty if the folder has no attributes file.
        Queries that the file does not describe are left out.
    """
    if not (folder / FILE_NAME).is_file():
        return {}
    known = read_attributes(folder, split.name)
    pairs = [
        (known.queries[query], known.images.get(image, ()))
        for query, image in zip(
            split.query_ids.tolist(), split.image_ids[first].tolist(), strict=True
        )
        if query in known.queries
    ]
    shares = accuracy_by_attribute([query for query, _ in pairs], [image for _, image in pairs])
    return {name: 100 * share for name, share in shares.items()}


def accuracy_by_attribute(
    query_things: Sequence[Sequence[Thing]], top1_image_things: Sequence[Sequence[Thing]]
) -> dict[str, float]:
    """Compare what each query names with what its first image shows.

    Args:
        query_things: For each query, the things that it names.
        top1_image_things: For each query, the things in the image ranked first.

    Returns:
        Shares in [0, 1] of the queries that a row applies to. Rows that apply to none are left out.

        - ``kind``: every kind that the query names is in the image;
        - ``colour``, ``pattern``, ``part``: every colour (pattern, colour of a small part) that it
          names is that of *some* thing in the image; of queries that name one;
        - ``binding``: each thing has the attributes that the query gives *it*; of queries for which
          all named kinds, colours and patterns are somewhere in the image;
        - ``all``: the image answers the query.

    >>> image = [Thing("bag", "blue"), Thing("hat", "red")]
    >>> accuracy_by_attribute([[Thing("bag", "red")]], [image])
    {'kind': 1.0, 'colour': 1.0, 'binding': 0.0, 'all': 0.0}
    """
    if len(query_things) != len(top1_image_things):
        raise ValueError(f"{len(query_things)} queries, {len(top1_image_things)} images")
    outcomes: dict[str, list[bool]] = {}
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
                outcomes.setdefault(row, []).append(found)
                if row != "part":
                    present.append(found)
        right = answers(image, query)
        if all(present):
            outcomes.setdefault("binding", []).append(right)
        outcomes.setdefault("all", []).append(right)
    order = ("kind", "colour", "pattern", "part", "binding", "all")
    return {row: sum(outcomes[row]) / len(outcomes[row]) for row in order if row in outcomes}
