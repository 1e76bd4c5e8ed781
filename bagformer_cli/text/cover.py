"""The kernel of the segmenter: the cheapest cover of a title by entries, patterns, characters."""

from __future__ import annotations

from bagformer_cli.text.automaton import Array, child
from bagformer_cli.text.characters import DIGIT, LATIN, MARK, OTHER, SPACE, ZERO_WIDTH_JOINER
from bagformer_cli.text.patterns import (
    COMPOUND,
    COUNTED,
    LETTERS,
    LEXICON,
    MAX_FOUND,
    NAME,
    NUMBER,
    NUMERALS,
    OFFER,
    OFFERS,
    ORDINAL,
    QUANTITY,
    TOKEN,
    counted_end,
    glued,
    offer_end,
    scan,
    unit_end,
)

PAIR, NAME_CHARACTER, GLUED = 10, 11, 12
"""Further costs: of one ideograph with a head, of each character of a name, of a number that looks
like part of a model."""

TAKES_SUFFIX, TAKES_HEAD = 1, 2
"""Bits of what may follow an entry."""

LONGEST_NAME = 4

ENDLESS = 1 << 60


def relax(
    start: int, end: int, price: int, kind: int, name: int,
    best: Array, back: Array, made_kind: Array, made_type: Array,
) -> None:  # fmt: skip
    """Take the bag ``start:end`` as the last one of the cover up to ``end`` if that is cheaper."""
    if price < best[end]:
        best[end] = price
        back[end] = start
        made_kind[end] = kind
        made_type[end] = name


def cover(
    folded: Array, classes: Array, offsets: Array,
    first: Array, label: Array, value: Array, roots: Array,
    entry_cost: Array, entry_type: Array, entry_head: Array,
    unit_first: Array, unit_label: Array, unit_value: Array, unit_roots: Array,
    head_cost: Array, suffix_cost: Array, kind_cost: Array,
    bag_starts: Array, bag_ends: Array, bag_kinds: Array, bag_types: Array,
    bag_offsets: Array, costs: Array,
) -> int:  # fmt: skip
    """The cheapest cover of each text by dictionary entries, patterns and single characters.

    A dynamic program from left to right over the places where a bag may end: never between two
    letters or two digits, never before a mark that belongs to the character in front of it.
    Whitespace between bags costs nothing. Integer costs, and of equals the one that was found
    first (from the leftmost start): the same answer everywhere.
    """
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    best = [ENDLESS] * (longest + 1)
    back = [0] * (longest + 1)
    made_kind = [0] * (longest + 1)
    made_type = [0] * (longest + 1)
    kinds = [0] * (longest + 1)
    fine = [True] * (longest + 2)
    found_ends = [0] * MAX_FOUND
    found_kinds = [0] * MAX_FOUND
    total = 0
    for text in range(len(offsets) - 1):
        begin = offsets[text]
        stop = offsets[text + 1] - begin
        word = folded[begin : offsets[text + 1]]
        bag_offsets[text] = total
        best[0] = 0
        fine[0] = True
        for at in range(stop):
            kind = int(classes[begin + at])
            fine[at + 1] = True
            if at > 0 and kind != SPACE:
                if kind == MARK and kinds[at - 1] != SPACE:
                    kind = kinds[at - 1]
                    fine[at] = False
                elif kind == kinds[at - 1]:
                    fine[at] = kind not in (LATIN, DIGIT)
                if word[at - 1] == ZERO_WIDTH_JOINER and kinds[at - 1] != SPACE:
                    fine[at] = False
            kinds[at] = kind
            best[at + 1] = ENDLESS
        fine[stop] = True
        for at in range(stop):
            if best[at] == ENDLESS or not fine[at]:
                continue
            here = best[at]
            if kinds[at] == SPACE:
                if here < best[at + 1]:
                    best[at + 1] = here
                    back[at + 1] = at
                    made_kind[at + 1] = -1
                continue
            # dictionary entries, alone, with a head or with a suffix: 消毒 + 柜, 修身 + 型
            node = 0
            walk = at
            while walk < stop:
                node = child(node, word[walk], first, label, roots)
                if node == 0:
                    break
                walk += 1
                entry = value[node]
                if entry < 0 or not fine[walk]:
                    continue
                price = here + int(entry_cost[entry])  # uncompiled, 32 bits would stay 32
                relax(at, walk, price, LEXICON, entry_type[entry], best, back, made_kind, made_type)
                follows = entry_head[entry]
                if follows > 0 and walk < stop and fine[walk + 1]:
                    extra = int(head_cost[word[walk]]) if follows & TAKES_HEAD else 0
                    if extra == 0 and follows & TAKES_SUFFIX:
                        extra = int(suffix_cost[word[walk]])
                    if extra > 0:
                        price += extra + kind_cost[COMPOUND]
                        relax(at, walk + 1, price, COMPOUND, -1, best, back, made_kind, made_type)
            # patterns, and latin words with a head or a suffix: led + 灯, wifi + 版
            if kinds[at] == LATIN or kinds[at] == DIGIT:
                found = scan(
                    at, stop, word, kinds, unit_first, unit_label, unit_value, unit_roots,
                    found_ends, found_kinds,
                )  # fmt: skip
                for one in range(found):
                    walk = found_ends[one]
                    kind = found_kinds[one]
                    if not fine[walk]:
                        continue
                    price = here + kind_cost[kind]
                    if kind == NUMBER and glued(at, walk, stop, kinds):
                        price += kind_cost[GLUED]
                    relax(at, walk, price, kind, -1, best, back, made_kind, made_type)
                    if kind == LETTERS and walk < stop and fine[walk + 1]:
                        extra = int(head_cost[word[walk]])
                        if extra == 0:
                            extra = int(suffix_cost[word[walk]])
                        if extra > 0:
                            price += extra + kind_cost[COMPOUND]
                            relax(
                                at, walk + 1, price, COMPOUND, -1, best, back, made_kind, made_type
                            )
            elif word[at] == ORDINAL or word[at] in NUMERALS:  # few are: a call costs more
                walk = counted_end(
                    at, stop, word, kinds, unit_first, unit_label, unit_value, unit_roots
                )
                if walk > at and fine[walk]:
                    price = here + kind_cost[COUNTED]
                    relax(at, walk, price, COUNTED, -1, best, back, made_kind, made_type)
            elif word[at] in OFFERS:
                walk = offer_end(
                    at, stop, word, kinds, unit_first, unit_label, unit_value, unit_roots
                )
                if walk > at and fine[walk]:
                    price = here + kind_cost[OFFER]
                    relax(at, walk, price, OFFER, -1, best, back, made_kind, made_type)
                    walk = unit_end(
                        walk, stop, word, unit_first, unit_label, unit_value, unit_roots
                    )
                    if fine[walk]:  # unless its unit begins the next word: 买一送一 + 口红
                        price += kind_cost[QUANTITY]
                        relax(at, walk, price, OFFER, -1, best, back, made_kind, made_type)
            # ideographs that no entry explains: one with a head (墙 + 饰), a name (贝儿欣)
            walk = at + 1
            while kinds[at] == OTHER and walk < stop and walk < at + LONGEST_NAME:
                if kinds[walk] != OTHER or not fine[walk] or not fine[walk + 1]:
                    break
                if walk == at + 1 and head_cost[word[walk]] > 0:
                    price = here + int(head_cost[word[walk]]) + kind_cost[PAIR]
                    relax(at, walk + 1, price, COMPOUND, -1, best, back, made_kind, made_type)
                walk += 1
                price = here + kind_cost[NAME] + (walk - at) * kind_cost[NAME_CHARACTER]
                relax(at, walk, price, NAME, -1, best, back, made_kind, made_type)
            # one character, with the marks that belong to it
            walk = at + 1
            while not fine[walk]:
                walk += 1
            price = here + kind_cost[TOKEN] * (walk - at)
            relax(at, walk, price, TOKEN, -1, best, back, made_kind, made_type)
        costs[text] = best[stop]
        at = stop
        while at > 0:
            if made_kind[at] >= 0:
                bag_starts[total] = back[at]
                bag_ends[total] = at
                bag_kinds[total] = made_kind[at]
                bag_types[total] = made_type[at]
                total += 1
            at = back[at]
        low = bag_offsets[text]
        high = total - 1
        while low < high:  # they were followed from the end: turn them round
            bag_starts[low], bag_starts[high] = bag_starts[high], bag_starts[low]
            bag_ends[low], bag_ends[high] = bag_ends[high], bag_ends[low]
            bag_kinds[low], bag_kinds[high] = bag_kinds[high], bag_kinds[low]
            bag_types[low], bag_types[high] = bag_types[high], bag_types[low]
            low += 1
            high -= 1
    bag_offsets[len(offsets) - 1] = total
    return total
