"""A drawn benchmark: large pools of images, and named sets of queries that each test one ability.

    one         one thing with its colour: is it recognised?
    two, three  two or three things with their colours: which is which?
    exchanged   two things; another image shows the same two with their colours exchanged
    parts       a thing with the colour of its small part (a collar, a handle)
    titles      a seller's long title of ten or more bags
    unseen      a thing in a colour or a pattern in which training never shows it
    mixed       as the default queries: half of them name two or three things

Validation and test are drawn apart, so that settings can be chosen on one and claims made on the
other. Both show only combinations that the demo's training of the same seed never shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from bagformer_cli.data.query_sets import FILE_NAME, QuerySet, sets_text
from bagformer_cli.demo.difficulty import colour_shares
from bagformer_cli.demo.generate import check_request, new_dataset
from bagformer_cli.demo.palette import SOLID
from bagformer_cli.demo.plan import (
    Answers,
    HeldOut,
    Pictures,
    PlannedQuery,
    hold_out,
    plan_pictures,
)
from bagformer_cli.demo.scene import PICTURE, Item
from bagformer_cli.demo.set_figures import set_figures
from bagformer_cli.demo.titles import (
    buyer_query,
    evaluation_texts,
    long_title,
    named_fully,
    named_part,
    named_things,
)
from bagformer_cli.progress import SILENT, Progress

SHARE = 4
"""Images of the pool for each query of a set: 500 queries on 2,000 images."""


def write_benchmark(
    out: str | Path,
    images: int = 2000,
    seed: int = 0,
    workers: int | None = None,
    *,
    size: int = PICTURE,
    progress: Progress = SILENT,
) -> None:
    """Draw the benchmark: a pool for selection, one for claims, and their named sets of queries.

    Args:
        out: The folder; created if needed.
        images: Number of images in each of the two splits, ``valid`` and ``test``.
        seed: Random seed; that of a demo set, whose training then shows none of the combinations.
        workers: Number of processes that draw; None: one per core; 1: this process alone.
        size: Side of an image in pixels, 32 to 256.
        progress: Receives the number of images drawn.

    Raises:
        InputError: ``images`` or ``size`` is out of range, or the folder is not empty.
        DiskFullError: The disk is full; no file was written.
    """
    out = Path(out)
    check_request(out, images, size)
    held = hold_out(seed)
    splits: dict[str, dict[str, QuerySet]] = {}
    with new_dataset(out, 2 * images, seed, workers, progress) as drawing:
        for split in ("valid", "test"):
            name = f"benchmark-{split}"  # other images than those of the demo set
            pictures = plan_pictures(name, images, held, seed)
            drawn = drawing.images(split, pictures, name, size)
            shares = np.array([colour_shares(data) for data in drawn])
            planned = plan_sets(name, pictures, held, seed)
            numbers = count(drawing.next_query)
            splits[split] = {
                one: QuerySet(
                    tuple(islice(numbers, len(queries))), set_figures(queries, pictures, shares)
                )
                for one, queries in planned.items()
                if queries
            }
            drawing.queries(split, pictures, chain.from_iterable(planned.values()))
        (drawing.folder / FILE_NAME).write_text(sets_text(splits), encoding="utf-8")


@dataclass(frozen=True)
class Scene:
    """The input of a set's rule, which writes a query for one image.

    Attributes:
        items: The things in the image.
        gift: Whether the last thing is a gift.
        held: The combinations that training never shows.
        answers: Finds all images that answer a query.
        rng: Draws words and order.
    """

    items: Sequence[Item]
    gift: bool
    held: HeldOut
    answers: Answers
    rng: random.Random


Written = tuple[str, Sequence[Item]] | None
"""A query and the things that it names; None: the image is not suitable."""


def plan_sets(
    split: str, pictures: Pictures, held: HeldOut, seed: int
) -> dict[str, list[PlannedQuery]]:
    """Plan the queries of every set, each text once within a set.

    Args:
        split: Name of the split, which seeds the draws.
        pictures: The pool.
        held: The combinations that training never shows.
        seed: Random seed.

    Returns:
        Set to its queries; fewer than one for ``SHARE`` images where too few images are suitable.
    """
    find = Answers(pictures)
    return {name: list(_queries(name, split, pictures, held, (find, seed))) for name in RULES}


def _queries(
    name: str, split: str, pictures: Pictures, held: HeldOut, drawn: tuple[Answers, int]
) -> Iterator[PlannedQuery]:
    find, seed = drawn
    order = random.Random(f"{seed}/{split}/{name}").sample(range(len(pictures)), len(pictures))
    wanted, seen = len(pictures) // SHARE, set[str]()
    for position in order:
        if len(seen) >= wanted:
            return
        rng = random.Random(f"{seed}/{split}/{name}/{position}")
        scene = Scene(pictures.items(position), bool(pictures.gifts[position]), held, find, rng)
        written = RULES[name](scene)
        if written is not None and written[0] not in seen:
            seen.add(written[0])
            yield PlannedQuery(written[0], tuple(written[1]), find.of(written[1]))


def _of_things(amount: int) -> Callable[[Scene], Written]:
    def write(scene: Scene) -> Written:
        if len(scene.items) < amount:
            return None
        named = named_things(scene.items, amount, scene.rng)
        return buyer_query(named, scene.rng), named

    return write


def _exchanged(scene: Scene) -> Written:
    """Name two things whose colours another image of the pool shows exchanged."""
    if len(scene.items) < 2:
        return None
    (first, colour, *_), (second, other, *_) = scene.rng.sample(list(scene.items), 2)
    near = [(first, other, -1, -1), (second, colour, -1, -1)]
    if not len(scene.answers.of(near)):
        return None
    named = [(first, colour, -1, -1), (second, other, -1, -1)]
    return buyer_query(named, scene.rng), named


def _part(scene: Scene) -> Written:
    named = [named_part(scene.rng.choice(list(scene.items)), scene.rng)]
    return buyer_query(named, scene.rng), named


def _title(scene: Scene) -> Written:
    named = [named_fully(item, scene.rng) for item in scene.items]
    return long_title(named, scene.gift, scene.rng), named


def _unseen(scene: Scene) -> Written:
    """Name a thing by a colour or a pattern in which training never shows this kind."""
    for kind, colour, pattern, _ in scene.rng.sample(list(scene.items), len(scene.items)):
        by_pattern = pattern != SOLID and bool(scene.held.patterns[kind, pattern])
        if by_pattern or scene.held.colours[kind, colour]:
            named = [(kind, colour, pattern if by_pattern else -1, -1)]
            return buyer_query(named, scene.rng), named
    return None


def _mixed(scene: Scene) -> Written:
    return evaluation_texts(scene.items, scene.rng)[0]


RULES: Mapping[str, Callable[[Scene], Written]] = {
    "mixed": _mixed,
    "one": _of_things(1),
    "two": _of_things(2),
    "three": _of_things(3),
    "exchanged": _exchanged,
    "parts": _part,
    "titles": _title,
    "unseen": _unseen,
}
