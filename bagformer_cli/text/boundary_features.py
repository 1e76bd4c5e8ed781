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
from bagformer_cli.text.cover import PackedBags, Titles

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


def features_of(
    at: int, stop: int, characters: Array, left: Array, right: Array, found: Array
) -> int:
    """Write the indices of the weights of one boundary, and return their number.

    Args:
        at: The boundary: it lies before this character.
        stop: Number of characters of the title.
        characters: The characters of the title.
        left: Start, end and kind of the bag that the character before the boundary is in; its end
            is 0 if it is in none (a space).
        right: The same of the character after the boundary; it is ``left`` if the cover has no
            boundary here.
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
    if left[1] == 0 or right[1] == 0:
        return 12
    cut = int(left[0] != right[0])
    before = min(left[1] - left[0], LONGEST_SIDE)
    after = min(right[1] - right[0], LONGEST_SIDE)
    found[12] = cut_feature(cut)
    found[13] = slot(mixed(mixed(mixed(14, cut), left[2]), right[2]))
    found[14] = slot(mixed(mixed(mixed(15, cut), before), after))
    found[15] = side(16, cut, left[0], left[1], characters)
    found[16] = side(17, cut, right[0], right[1], characters)
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
    rows = np.full((len(titles.characters), FEATURES), -1, np.int32)
    found = [0] * FEATURES
    left = [0, 0, 0]
    right = [0, 0, 0]
    for title in range(len(titles.offsets) - 1):
        begin = titles.offsets[title]
        stop = int(titles.offsets[title + 1] - begin)
        characters = titles.characters[begin : begin + stop]
        bag = bags.offsets[title]
        last = bags.offsets[title + 1]
        right[1] = 0
        for at in range(stop):
            left[0], left[1], left[2] = right[0], right[1], right[2]
            while bag < last and bags.ends[bag] <= at:
                bag += 1
            if bag < last and bags.starts[bag] <= at:
                right[0] = int(bags.starts[bag])
                right[1] = int(bags.ends[bag])
                right[2] = int(bags.kinds[bag])
            else:
                right[1] = 0
            if at > 0:
                number = features_of(at, stop, characters, left, right, found)
                for i in range(number):
                    rows[begin + at, i] = found[i]
    return rows


def boundary_costs(
    titles: Titles, bags: PackedBags, weights: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return what a cut costs at every boundary inside the titles.

    Args:
        titles: The titles.
        bags: Their cheapest cover.
        weights: [WEIGHTS], what each feature adds to the cost.

    Returns:
        [C], before each character; 0 before a title's first.
    """
    rows = boundary_features(titles, bags)
    costs = np.zeros(len(rows), np.int32)
    for at in range(len(rows)):
        cost = 0
        for index in rows[at]:
            if index < 0:
                break
            cost += int(weights[index])
        costs[at] = cost
    return costs
