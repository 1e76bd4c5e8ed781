"""Kernels of the boundary model: what is seen at a boundary between two characters.

The features of a boundary are the characters around it, alone and together, and the bags on both
sides in the cheapest cover, which knows the dictionaries::

    碎  花  连  衣  裙
            ^                     characters: 花│, │连, 碎花│, │连衣, 花│连, …
    [碎花]  [连衣裙]              bags: cut here or not, kinds, lengths, 碎花 ends, 连衣裙 begins

A feature is a number: the hash of what is seen, which is the index of its weight. Two features that
share an index share a weight; with 2^20 of them that is rare enough to do no harm.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.automaton import Array
from bagformer_cli.text.cover_arrays import PackedBags, Titles

FEATURES = 17
"""Features of a boundary at most."""

WEIGHTS = 1 << 20
"""Number of weights."""

OUTSIDE = 1
"""Stands for the characters before and after a title: a control character, which no title has."""

LONGEST_SIDE = 6
"""Longer bags count as this long."""


def mixed(state: int, value: int) -> int:
    """Return the 32-bit hash of ``value`` after ``state`` (a step of FNV-1a)."""
    state = ((state ^ value) * 16_777_619) & 0xFFFFFFFF
    return state ^ (state >> 15)


def slot(state: int) -> int:
    """Return the index of the weight of a hash."""
    return (state ^ (state >> 12)) & (WEIGHTS - 1)


def seen(at: int, stop: int, characters: Array) -> int:
    """Return the character at a position, OUTSIDE before and after the title."""
    if at < 0 or at >= stop:
        return OUTSIDE
    return int(characters[at])


def cut_feature(cut: int) -> int:
    """Return the feature that every boundary between bags has: whether the cover cuts there."""
    return slot(mixed(13, cut))


def side(number: int, cut: int, start: int, end: int, characters: Array) -> int:
    """Return the weight of a bag on one side: its characters, and whether it ends here."""
    state = mixed(number, cut)
    for at in range(start, end):
        state = mixed(state, int(characters[at]))
    return slot(state)


def bag_of(at: int, bag: int, stop: int, starts: Array, ends: Array) -> int:
    """Return the first bag from ``bag`` on that ends after a character, or ``stop``."""
    while bag < stop and ends[bag] <= at:
        bag += 1
    return bag


def features_of(
    at: int, stop: int, characters: Array, left: int, right: int,
    starts: Array, ends: Array, kinds: Array, found: Array,
) -> int:  # fmt: skip
    """Write the indices of the weights of one boundary, and return their number.

    Args:
        at: The boundary: it lies before this character.
        stop: Number of characters of the title.
        characters: The characters of the title.
        left: Index of the bag that the character before the boundary is in, -1: of none (a space).
        right: The same of the character after the boundary.
        starts: Start, end and kind of the bags of all titles.
        ends: See ``starts``.
        kinds: See ``starts``.
        found: [FEATURES], receives the indices.
    """
    c, d = seen(at - 1, stop, characters), seen(at, stop, characters)
    b, e = seen(at - 2, stop, characters), seen(at + 1, stop, characters)
    a, f = seen(at - 3, stop, characters), seen(at + 2, stop, characters)
    cd, bc, de = mixed(mixed(5, c), d), mixed(mixed(6, b), c), mixed(mixed(7, d), e)
    bcd = mixed(mixed(mixed(8, b), c), d)
    found[0] = slot(mixed(1, c))
    found[1] = slot(mixed(2, d))
    found[2] = slot(mixed(3, b))
    found[3] = slot(mixed(4, e))
    found[4] = slot(cd)
    found[5] = slot(bc)
    found[6] = slot(de)
    found[7] = slot(bcd)
    found[8] = slot(mixed(mixed(cd, e), 9))
    found[9] = slot(mixed(mixed(bcd, e), 10))
    found[10] = slot(mixed(mixed(bc, a), 11))
    found[11] = slot(mixed(mixed(de, f), 12))
    if left < 0 or right < 0:
        return 12
    cut = int(left != right)
    before = min(int(ends[left]) - int(starts[left]), LONGEST_SIDE)
    after = min(int(ends[right]) - int(starts[right]), LONGEST_SIDE)
    found[12] = cut_feature(cut)
    found[13] = slot(mixed(mixed(mixed(14, cut), int(kinds[left])), int(kinds[right])))
    found[14] = slot(mixed(mixed(mixed(15, cut), before), after))
    found[15] = side(16, cut, int(starts[left]), int(ends[left]), characters)
    found[16] = side(17, cut, int(starts[right]), int(ends[right]), characters)
    return 17


def boundary_features(titles: Titles, bags: PackedBags) -> npt.NDArray[np.int32]:
    """Return the features of every boundary inside the titles.

    Args:
        titles: The titles.
        bags: Their cheapest cover.

    Returns:
        [C, FEATURES] indices of weights, -1: none. Row i is the boundary before character i; that
        of a title's first character has none.
    """
    starts, ends, kinds, offsets = bags.starts, bags.ends, bags.kinds, bags.offsets
    rows = np.full((len(titles.characters), FEATURES), -1, np.int32)
    found = np.empty(FEATURES, np.int64)
    for title in range(len(titles.offsets) - 1):
        begin = titles.offsets[title]
        stop = int(titles.offsets[title + 1] - begin)
        characters = titles.characters[begin : begin + stop]
        bag = int(offsets[title])
        last = int(offsets[title + 1])
        right = -1
        for at in range(stop):
            left = right
            bag = bag_of(at, bag, last, starts, ends)
            right = bag if bag < last and starts[bag] <= at else -1
            if at > 0:
                number = features_of(
                    at, stop, characters, left, right, starts, ends, kinds, found
                )  # fmt: skip
                rows[begin + at, :number] = found[:number]
    return rows


def boundary_costs(
    titles: Titles, bags: PackedBags, weights: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return what a cut costs at every boundary inside the titles.

    It is the sum of the weights of the boundary's features (:func:`boundary_features`), without the
    memory that these would take.

    Args:
        titles: The titles.
        bags: Their cheapest cover.
        weights: [WEIGHTS], what each feature adds to the cost.

    Returns:
        [C], before each character; 0 before a title's first.
    """
    starts, ends, kinds, offsets = bags.starts, bags.ends, bags.kinds, bags.offsets
    costs = np.zeros(len(titles.characters), np.int32)
    found = np.empty(FEATURES, np.int64)
    for title in range(len(titles.offsets) - 1):
        begin = titles.offsets[title]
        stop = int(titles.offsets[title + 1] - begin)
        characters = titles.characters[begin : begin + stop]
        bag = int(offsets[title])
        last = int(offsets[title + 1])
        right = -1
        for at in range(stop):
            left = right
            bag = bag_of(at, bag, last, starts, ends)
            right = bag if bag < last and starts[bag] <= at else -1
            if at > 0:
                number = features_of(
                    at, stop, characters, left, right, starts, ends, kinds, found
                )  # fmt: skip
                cost = 0
                for i in range(number):
                    cost += int(weights[found[i]])
                costs[begin + at] = cost
    return costs
