"""Recall by kind of query: its length, its bags and their types, its answers, what it names.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.attributes import FILE_NAME, read_attributes
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.compare import hits_per_query
from bagformer_cli.evaluation.metrics import NO_POSITIVE, Recall, recall
from bagformer_cli.evaluation.order_metrics import interval
from bagformer_cli.messages import tr
from bagformer_cli.text.segmenter import Bag
from bagformer_cli.text.type_names import type_name

LEAST = 10
"""Queries that a kind must have to be shown."""


@dataclass(frozen=True)
class Kind:
    """Queries of one kind, and their recall.

    Attributes:
        family: The property that distinguishes the kinds, in the user's language.
        name: The kind.
        recall: Recall of its queries that have answers.
        interval: 95 % interval of the mean recall, in [0, 1].
    """

    family: str
    name: str
    recall: Recall
    interval: tuple[float, float]


Bounds = Sequence[tuple[int, int | None]]

_CHARACTERS: Bounds = [(1, 4), (5, 8), (9, 16), (17, None)]
_BAGS: Bounds = [(1, 1), (2, 2), (3, 3), (4, 5), (6, None)]
_ANSWERS: Bounds = [(1, 1), (2, 4), (5, None)]
_THINGS: Bounds = [(1, 1), (2, 2), (3, None)]


def query_kinds(
    split: Split, bags: Sequence[Sequence[Bag]], ranks: NDArray[np.int64], folder: Path
) -> list[Kind]:
    """Measure recall by kind of query.

    Args:
        split: The split.
        bags: The bags of each query.
        ranks: [Q] rank of each query's best answer.
        folder: The dataset. With an attributes file, queries are also grouped by the number of
            things they name, and by whether a training image shows these things.

    Returns:
        The kinds with LEAST queries or more, family by family.
    """
    lengths = np.array([len(text) for text in split.texts])
    counts = np.array([len(own) for own in bags])
    masks = {
        tr("length, characters"): _by_size(lengths, _CHARACTERS),
        tr("number of bags"): _by_size(counts, _BAGS),
        tr("contains a bag of type"): _by_type(bags),
        tr("images that answer it"): _by_size(np.diff(split.item_offsets), _ANSWERS),
        **_by_things(split, folder),
    }
    found = []
    for family, members in masks.items():
        for name, mask in members.items():
            own = ranks[mask]
            if np.count_nonzero(own != NO_POSITIVE) >= LEAST:
                ((lower, upper),) = interval([hits_per_query(own)])
                found.append(Kind(family, name, recall(own), (lower, upper)))
    return found


def _by_size(sizes: NDArray[np.int64], bounds: Bounds) -> dict[str, NDArray[np.bool_]]:
    found = {}
    for low, high in bounds:
        name = f"{low}" if low == high else f"≥ {low}" if high is None else f"{low}–{high}"
        found[name] = (sizes >= low) & (sizes <= (sizes.max(initial=0) if high is None else high))
    return found


def _by_type(bags: Sequence[Sequence[Bag]]) -> dict[str, NDArray[np.bool_]]:
    """Return the queries with each type of bag, the most frequent type first."""
    types = [{bag.type for bag in own if bag.type} for own in bags]
    names = sorted({name for own in types for name in own})
    masks = {name: np.array([name in own for own in types], bool) for name in names}
    ordered = sorted(masks.items(), key=lambda item: (-int(item[1].sum()), item[0]))
    return {type_name(name): mask for name, mask in ordered}


def _by_things(split: Split, folder: Path) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Group queries by the things that they name; empty without an attributes file."""
    if not (folder / FILE_NAME).is_file():
        return {}
    queries = read_attributes(folder, split.name).queries
    trained = {thing for own in read_attributes(folder, "train").images.values() for thing in own}
    things = [queries.get(number, ()) for number in split.query_ids.tolist()]
    shown = {
        named: any(thing.fits(named) for thing in trained)
        for named in {t for own in things for t in own}
    }
    known = np.array([len(own) > 0 for own in things], bool)
    seen = np.array([all(shown[named] for named in own) for own in things], bool)
    return {
        tr("things that it names"): _by_size(np.array([len(own) for own in things]), _THINGS),
        tr("training images show what it names"): {
            tr("yes"): known & seen,
            tr("no"): known & ~seen,
        },
    }
