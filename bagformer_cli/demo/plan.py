"""Plan the demo set: the things in each image, the texts, and the images that answer each text.

A third of all combinations of kind, colour and pattern is *held out*: training shows none of them,
validation and test show nothing else. Among these, for each kind, are one colour and one pattern in
which training never shows it at all.

Images come in families: a first one and near misses of it, with the colours (or patterns) of its
things exchanged. A model that finds all words but binds them wrongly ranks a near miss first::

    red dress + blue bag        query "red dress" is answered by the first image and not the second
    blue dress + red bag

The answers of a query are searched among all images of the split: the ground truth is complete.

Shapes: an item is (kind, colour, pattern, part colour), four indexes; -1 for what a query leaves
open.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bagformer_cli.data.attributes import Thing
from bagformer_cli.demo.kinds import GROUPS, KIND_KEYS, KINDS
from bagformer_cli.demo.palette import (
    COLOUR_KEYS,
    COLOURS,
    PATTERN_KEYS,
    PATTERNS,
    SOLID,
    goes_together,
)
from bagformer_cli.demo.scene import Item
from bagformer_cli.demo.titles import evaluation_texts, training_texts

MOST_THINGS = 3
NOTHING = -1

THINGS_SHARE = (0.55, 0.30, 0.15)
"""Shares of training pictures with one, two and three things."""
EVALUATED_THINGS_SHARE = (0.40, 0.36, 0.24)
"""The same in validation and test, so that half of their queries can name several things."""
SOLID_SHARE = 0.5
"""Share of things without a pattern."""
FAMILY_SHARE = (0.50, 0.33, 0.17)
"""Shares of families of one, two and three pictures."""
HELD_TRIPLES = 0.15
"""Share of the combinations of kind, colour and pattern that training never shows."""
HELD_COLOURS, HELD_PATTERNS = 1, 1
"""Numbers of colours and patterns of each kind that are held out in all combinations as well."""
NEW_COLOUR, NEW_PATTERN = 0.1, 0.1
"""In validation and test: shares of things in such a colour, and in such a pattern."""
GIFT_SHARE = 0.2
"""Share of pictures of several things in which the last is a gift of any group."""


@dataclass(frozen=True)
class HeldOut:
    """Combinations that training never shows.

    Args:
        triples: [kinds, colours, patterns] bool, True for a held-out combination.
        colours: [kinds, colours] bool, True for a colour held out with every pattern.
        patterns: [kinds, patterns] bool, True for a pattern held out in every colour; never for
            things without a pattern.
    """

    triples: npt.NDArray[np.bool_]
    colours: npt.NDArray[np.bool_]
    patterns: npt.NDArray[np.bool_]

    def allows(self, item: Item, training: bool) -> bool:
        """Say whether a split may show ``item``: training nothing held out, others only that."""
        kind, colour, pattern, _ = item
        return goes_together(colour, pattern) and (
            bool(self.triples[kind, colour, pattern]) != training
        )


def hold_out(seed: int) -> HeldOut:
    """Draw the held-out combinations, each colour and each pattern about equally often."""
    rng = random.Random(f"{seed}/held-out")
    colours = np.zeros((len(KINDS), len(COLOURS)), bool)
    patterns = np.zeros((len(KINDS), len(PATTERNS)), bool)
    for table, choices, amount in (
        (colours, range(len(COLOURS)), HELD_COLOURS),
        (patterns, [p for p in range(len(PATTERNS)) if p != SOLID], HELD_PATTERNS),
    ):
        deck: list[int] = []
        for kind in range(len(KINDS)):
            while table[kind].sum() < amount:
                if not deck:
                    deck = rng.sample(list(choices), len(choices))
                table[kind, deck.pop()] = True
    shape = (len(KINDS), len(COLOURS), len(PATTERNS))
    drawn = [rng.random() < HELD_TRIPLES for _ in range(math.prod(shape))]
    triples = np.array(drawn, bool).reshape(shape) | colours[:, :, None] | patterns[:, None, :]
    return HeldOut(triples, colours, patterns)


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split, not drawn yet.

    Args:
        things: [images, MOST_THINGS, 4] int8: kind, colour, pattern, part colour; -1 for none.
        gifts: [images] bool: the last thing is a gift with the others.
    """

    things: npt.NDArray[np.int8]
    gifts: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.things)

    def items(self, position: int) -> list[Item]:
        """List the things in one image."""
        return [_item(row) for row in self.things[position].tolist() if row[0] >= 0]


@dataclass(frozen=True, slots=True)
class PlannedQuery:
    """A query before it has an id.

    Args:
        text: Its text.
        named: The things it names, -1 for what it leaves open.
        positions: All pictures of the split that answer it, ascending.
    """

    text: str
    named: tuple[Item, ...]
    positions: npt.NDArray[np.int64]


def split_sizes(images: int) -> dict[str, int]:
    """Divide the images among the splits, about 2 : 0.64 : 0.36."""
    rest = images - images * 2 // 3
    test = max(10, round(rest * 0.36))
    return {"train": images - rest, "valid": rest - test, "test": test}


def plan_pictures(split: str, images: int, held: HeldOut, seed: int) -> Pictures:
    """Decide what the pictures of a split show.

    Args:
        split: ``train`` shows nothing that is held out, the others nothing else.
        images: How many pictures.
        held: The held-out combinations.
        seed: Makes the plan.
    """
    rng = random.Random(f"{seed}/{split}/pictures")
    things = np.full((images, MOST_THINGS, 4), NOTHING, np.int8)
    gifts = np.zeros(images, bool)
    count = 0
    while count < images:
        members, gift = _family(rng, held, training=split == "train")
        for member in members[: images - count]:
            things[count, : len(member)] = member
            gifts[count] = gift
            count += 1
    order = np.array(rng.sample(range(images), images), np.int64)
    return Pictures(things[order], gifts[order])


class Answers:
    """Finds all pictures of a split that answer a query.

    Args:
        pictures: The split's pictures.
    """

    def __init__(self, pictures: Pictures) -> None:
        image, slot = np.nonzero(pictures.things[:, :, 0] >= 0)
        rows = pictures.things[image, slot]
        self._images = [image[rows[:, 0] == kind] for kind in range(len(KINDS))]
        self._rows = [rows[rows[:, 0] == kind] for kind in range(len(KINDS))]

    def of(self, named: Sequence[Item]) -> npt.NDArray[np.int64]:
        """Find the images that show each thing of ``named``; their positions, ascending."""
        found: npt.NDArray[np.int64] | None = None
        for kind, *said in named:
            rows = self._rows[kind]
            keep = np.ones(len(rows), bool)
            for column, value in enumerate(said, start=1):
                if value >= 0:
                    keep &= rows[:, column] == value
            images = np.unique(self._images[kind][keep])
            found = images if found is None else np.intersect1d(found, images, assume_unique=True)
        assert found is not None, "a query names something"
        return found


def plan_queries(split: str, pictures: Pictures, seed: int) -> Iterator[PlannedQuery]:
    """Yield the titles and queries of a split, each text once, with all images that answer it.

    Training gets a seller's title and some buyers' queries for each picture, validation and test
    get buyers' queries alone.
    """
    find = Answers(pictures)
    seen: set[str] = set()
    for position in range(len(pictures)):
        rng = random.Random(f"{seed}/{split}/text/{position}")
        items = pictures.items(position)
        if split == "train":
            texts = training_texts(items, bool(pictures.gifts[position]), rng)
        else:
            texts = evaluation_texts(items, rng)
        for text, named in texts:
            if text not in seen:
                seen.add(text)
                yield PlannedQuery(text, tuple(named), find.of(named))


def thing_of(item: Item) -> Thing:
    """Replace the indexes of an item by their keys."""
    kind, colour, pattern, part = item
    return Thing(
        KIND_KEYS[kind],
        COLOUR_KEYS[colour] if colour >= 0 else None,
        PATTERN_KEYS[pattern] if pattern >= 0 else None,
        COLOUR_KEYS[part] if part >= 0 else None,
    )


# ------------------------------------------------------------------------------------- pictures


def _family(rng: random.Random, held: HeldOut, training: bool) -> tuple[list[list[Item]], bool]:
    """Plan one to three pictures of nearly the same things, and whether the last is a gift."""
    amount = 1 + _choose(THINGS_SHARE if training else EVALUATED_THINGS_SHARE, rng)
    kinds_of_change = _CHANGES if amount > 1 else _CHANGES_OF_ONE
    changes = rng.sample(kinds_of_change, _choose(FAMILY_SHARE, rng))
    for _ in range(_SCENES):
        first, gift = _scene(amount, rng, held, training)
        members = [first]
        for change in changes:
            for _ in range(_TRIES):
                near = change(first, rng)
                if near not in members and all(held.allows(item, training) for item in near):
                    members.append(near)
                    break
        if len(members) > len(changes):
            break
    return members, gift


_SCENES, _TRIES = 16, 4
"""Attempts at a scene, and at a change of it, whose things the split may show."""


def _scene(
    amount: int, rng: random.Random, held: HeldOut, training: bool
) -> tuple[list[Item], bool]:
    """Choose things of different kinds and colours that are sold together, perhaps with a gift."""
    group = GROUPS[KINDS[rng.randrange(len(KINDS))].group]
    kinds = rng.sample(group, amount)
    gift = amount > 1 and rng.random() < GIFT_SHARE
    if gift:
        others = [kind for kind in range(len(KINDS)) if kind not in kinds]
        kinds[-1] = rng.choice(others)
    items: list[Item] = []
    for kind in kinds:
        items.append(_dressed(kind, {item[1] for item in items}, rng, held, training))
    return items, gift


def _dressed(kind: int, taken: set[int], rng: random.Random, held: HeldOut, training: bool) -> Item:
    """A thing of ``kind`` in some colour but those ``taken``, some pattern, some part colour."""
    while True:
        new = (
            2 if training else _choose((NEW_COLOUR, NEW_PATTERN, 1 - NEW_COLOUR - NEW_PATTERN), rng)
        )
        if new == 1:
            patterns = [p for p in range(len(PATTERNS)) if held.patterns[kind, p]]
        elif rng.random() < SOLID_SHARE:
            patterns = [SOLID]
        else:
            patterns = [
                p for p in range(len(PATTERNS)) if p != SOLID and not held.patterns[kind, p]
            ]
        pattern = rng.choice(patterns)
        colours = [
            colour
            for colour in range(len(COLOURS))
            if colour not in taken
            and held.allows((kind, colour, pattern, NOTHING), training)
            and held.colours[kind, colour] == (new == 0)
        ]
        if colours:
            colour = rng.choice(colours)
            part = rng.choice([c for c in range(len(COLOURS)) if c != colour])
            return kind, colour, pattern, part


def _colours_exchanged(items: Sequence[Item], rng: random.Random) -> list[Item]:
    i, j = rng.sample(range(len(items)), 2)
    near = list(items)
    near[i] = _recoloured(items[i], items[j][1])
    near[j] = _recoloured(items[j], items[i][1])
    return near


def _patterns_exchanged(items: Sequence[Item], rng: random.Random) -> list[Item]:
    i, j = rng.sample(range(len(items)), 2)
    near = list(items)
    near[i] = (*items[i][:2], items[j][2], items[i][3])
    near[j] = (*items[j][:2], items[i][2], items[j][3])
    return near


def _one_recoloured(items: Sequence[Item], rng: random.Random) -> list[Item]:
    i = rng.randrange(len(items))
    free = [c for c in range(len(COLOURS)) if all(c != item[1] for item in items)]
    near = list(items)
    near[i] = _recoloured(items[i], rng.choice(free))
    return near


def _one_repatterned(items: Sequence[Item], rng: random.Random) -> list[Item]:
    i = rng.randrange(len(items))
    near = list(items)
    near[i] = (*items[i][:2], rng.randrange(len(PATTERNS)), items[i][3])
    return near


def _recoloured(item: Item, colour: int) -> Item:
    """``item`` in ``colour``; its part takes the old colour where it would not show any more."""
    kind, old, pattern, part = item
    return kind, colour, pattern, old if part == colour else part


_Change = Callable[[Sequence[Item], random.Random], list[Item]]
_CHANGES: list[_Change] = [
    _colours_exchanged,
    _colours_exchanged,
    _colours_exchanged,
    _patterns_exchanged,
    _one_recoloured,
]
_CHANGES_OF_ONE: list[_Change] = [_one_recoloured, _one_recoloured, _one_repatterned]


def _choose(shares: Sequence[float], rng: random.Random) -> int:
    """An index, each with its share."""
    return rng.choices(range(len(shares)), weights=shares)[0]


def _item(row: Sequence[int]) -> Item:
    kind, colour, pattern, part = row
    return kind, colour, pattern, part
