"""Measure how hard a demo set is, with a ranker that sees only colours and one that sees all.

The set is made to measure binding (which thing has which attribute). So a ranker that only counts
pixels of each colour must be poor (mean recall below 15 %). An oracle that knows what was drawn
must be nearly perfect (above 95 %): the ground truth is then complete and the queries are clear.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bagformer_cli.data.attributes import Thing, read_attributes
from bagformer_cli.data.muge import MugeFolder, iter_images, iter_queries
from bagformer_cli.demo.palette import COLOUR_KEYS, COLOURS

Scores = npt.NDArray[np.float64]

_CUTS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Mean recalls (R@1, R@5, R@10 averaged) of text to image, in percent.

    Args:
        histogram: Mean recall of a ranker that sees nothing but shares of colours.
        oracle: Mean recall of a ranker that sees the drawn attributes.
        random_guess: R@1 of a ranker that sees nothing, in percent.
        queries: Number of queries.
        images: Number of images, all of which are ranked for each query.
    """

    histogram: float
    oracle: float
    random_guess: float
    queries: int
    images: int


def measure_difficulty(folder: str | Path, split: str = "valid") -> Difficulty:
    """Measure a split of a demo set.

    Raises:
        InputError: The folder is no demo set.
        DataError: A line of it is broken.
    """
    muge = MugeFolder(folder)
    muge.require(split)
    known = read_attributes(folder, split)
    queries = list(iter_queries(muge.queries_path(split)))
    ids: list[int] = []
    shares: list[npt.NDArray[np.float64]] = []
    for image_id, data in iter_images(muge.images_path(split)):
        ids.append(image_id)
        shares.append(colour_shares(data))
    position = {image_id: i for i, image_id in enumerate(ids)}
    wanted = [[position[item] for item in query.item_ids] for query in queries]
    named = [known.queries[query.query_id] for query in queries]
    return Difficulty(
        histogram=mean_recall(histogram_scores(named, np.array(shares)), wanted),
        oracle=mean_recall(oracle_scores(named, [known.images[i] for i in ids]), wanted),
        random_guess=100.0 * float(np.mean([len(items) for items in wanted])) / len(ids),
        queries=len(queries),
        images=len(ids),
    )


def colour_shares(image: bytes) -> npt.NDArray[np.float64]:
    """Compute the share of pixels that is nearest to each of the twelve colours: [12]."""
    with Image.open(io.BytesIO(image)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    nearest = _nearest_colour()[tuple((pixels >> 3).reshape(-1, 3).T)]
    counts = np.bincount(nearest, minlength=len(COLOURS))
    return np.asarray(counts / len(nearest), np.float64)


def histogram_scores(queries: Iterable[Sequence[Thing]], shares: npt.NDArray[np.float64]) -> Scores:
    """Score images by how much of the colours a query names they hold.

    Args:
        queries: For each query, the things it names; of these only the colours are looked at.
        shares: [images, 12] shares of colours.

    Returns:
        [queries, images]: the sum, over the colours named, of the logarithm of the share,
        standardised over the images, since backgrounds make some colours common.
    """
    logs = np.log(shares + 2e-3)
    logs = (logs - logs.mean(0)) / (logs.std(0) + 1e-9)
    rows = []
    for things in queries:
        colours = {thing.colour for thing in things} | {thing.part_colour for thing in things}
        columns = [COLOUR_KEYS.index(colour) for colour in colours if colour is not None]
        rows.append(logs[:, columns].sum(1))
    return np.array(rows)


def oracle_scores(queries: Sequence[Sequence[Thing]], images: Sequence[Sequence[Thing]]) -> Scores:
    """Score images by what they really hold: [queries, images].

    For each thing named, the best thing of that kind in the picture gives one point and one for
    each attribute that is as said.
    """
    return np.array([[_points(query, image) for image in images] for query in queries], float)


def mean_recall(scores: Scores, wanted: Sequence[Sequence[int]]) -> float:
    """Mean of R@1, R@5 and R@10 in percent.

    Args:
        scores: [queries, images]; of equal scores the earlier image comes first.
        wanted: For each query the positions of the images that answer it; one of them is enough.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.array([np.isin(row, items) for row, items in zip(order, wanted, strict=True)])
    return 100.0 * float(np.mean([hits[:, :cut].any(1).mean() for cut in _CUTS]))


def _points(query: Sequence[Thing], image: Sequence[Thing]) -> int:
    return sum(max((_matches(named, thing) for thing in image), default=0) for named in query)


def _matches(named: Thing, thing: Thing) -> int:
    if named.kind != thing.kind:
        return 0
    said = (
        (named.colour, thing.colour),
        (named.pattern, thing.pattern),
        (named.part_colour, thing.part_colour),
    )
    return 1 + sum(wish is not None and wish == there for wish, there in said)


@cache
def _nearest_colour() -> npt.NDArray[np.int64]:
    """[32, 32, 32]: for each RGB value, in steps of 8, the index of the nearest colour."""
    steps = np.arange(32) * 8 + 4
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 1, 3)
    palette = np.array([colour.rgb for colour in COLOURS]).reshape(1, -1, 3)
    return np.asarray(((grid - palette) ** 2).sum(-1).argmin(1).reshape(32, 32, 32), np.int64)
