"""The kernel of the segmenter: the cheapest cover of a title by bags.

Bags may be entries of the lexicon, matches of the patterns, or single characters. Each has a cost,
and the cover with the smallest sum is taken. It is found by a dynamic program over the boundaries
between characters. With the entries 红色 (cost 5), 色裙 (9) and 裙 (6), and 20 for a character that
no entry explains:

    title       红    色    裙
    boundary  0     1     2     3
    best      0    20     5    11      the cost of the cheapest cover up to the boundary
    start           0     0     2      where the last bag of that cover begins

The program goes from left to right. At a boundary it first takes in all entries that end there,
which the automaton reports in one pass over the title: at 3 these are 色裙 (best[1] + 9 = 29) and
裙 (best[2] + 6 = 11). ``best`` of the boundary is then final, because all other kinds of bags are
offered by the boundary where they begin: patterns, names and single characters are found there and
relax the boundary where they end. At the end of the title, ``start`` leads back from bag to bag:
3 → 2 → 0, which is 红色│裙.

Costs are integers, so the answer is the same on every machine. If two covers up to a boundary have
the same cost, the one with the leftmost start of its last bag wins, then the one with the kind that
comes first in :mod:`.patterns`.

:func:`cover` is long because its steps at a boundary are not functions: numba counts the references
to every array that is passed, and with a function for each step it took three times as long. The
steps that a title takes once are functions: :func:`find_edges` before, :func:`write_bags` after.
"""

from __future__ import annotations

import numpy as np

from bagformer_cli.text.automaton import Array, read
from bagformer_cli.text.characters import DIGIT, LATIN, MARK, OTHER, SPACE
from bagformer_cli.text.cover_arrays import (
    HEAD_APART,
    OWN,
    TAKES_HEAD,
    TAKES_SUFFIX,
    LexiconArrays,
    PackedBags,
    Titles,
)
from bagformer_cli.text.patterns import (
    COMPOUND,
    COUNTED,
    LETTERS,
    LEXICON,
    MAX_FOUND,
    NAME,
    NEW_COMPOUND,
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

PAIR, NAME_CHARACTER, GLUED = TOKEN + 1, TOKEN + 2, TOKEN + 3
"""Further costs, after those of the kinds: of one ideograph with a head, of each character of a
name, of a number that looks like a part of a model code."""

NO_BAG = -1
"""Kind of a space, which no bag covers and which costs nothing."""

LONGEST_NAME, LONGEST_LEARNED = 4, 12
"""Ideographs of a name at most; pieces (ideographs, words, numbers, signs) of one whose ends are
learned."""

SURE_CUT = -18_750
"""Learned cost of a cut below which no piece lies over it: two single characters (20,000 each)
with the cut are cheaper than one piece of both (3,750 + 2 · 8,750)."""

OWN_CREDIT = 5_000
"""How much cheaper each character of a user's word is where boundaries are learned, so that no
learned piece takes the word in. A larger value makes the word win more often against neighbours
that overlap it."""

ENDLESS = 1 << 60
"""Cost of a cover that does not exist."""


def relax(
    start: int, end: int, cost: int, kind: int, entry: int,
    best: Array, back: Array, made_kind: Array, made_entry: Array,
) -> None:  # fmt: skip
    """Make ``start:end`` the last bag of the cover up to ``end`` if the cover gets cheaper.

    If costs are equal, the leftmost start wins, then the lowest kind.

    Args:
        start: First character of the bag.
        end: One past its last character.
        cost: Cost of the whole cover up to ``end``.
        kind: The kind of the bag.
        entry: The index of the entry, -1: the bag is not an entry.
        best: By boundary, see the top of the file.
        back: By boundary, where the last bag begins.
        made_kind: By boundary, what made it.
        made_entry: By boundary, its entry.
    """
    equal = cost == best[end] and (
        start < back[end] or (start == back[end] and kind < made_kind[end])
    )
    if cost < best[end] or equal:
        best[end] = cost
        back[end] = start
        made_kind[end] = kind
        made_entry[end] = entry


def own_credit(start: int, end: int, cuts: Array, edge: Array, begin: int) -> int:
    """Return how much learned boundaries must not count against a user's word.

    Learned costs of the cuts in and around 空军一号::

        9 空 3 军 -40 一 5 号 -7

    The parts 空军 and 一号 gain 40 by their cut, and a larger piece saves the 9 before 空. The word
    is made cheaper by both, so neither its parts nor a larger piece gain by the learned costs.

    Args:
        start: First character of the word in its title.
        end: One past the last.
        cuts: [C], as for :func:`cover`.
        edge: By boundary, whether a bag may begin or end there.
        begin: Position of the title's first character in ``cuts``.
    """
    credit = OWN_CREDIT * (end - start)
    for at in range(start + 1, end):
        if edge[at] and cuts[begin + at] < 0:
            credit -= int(cuts[begin + at])
    if start > 0 and cuts[begin + start] > 0:
        credit += int(cuts[begin + start])
    return credit


def find_edges(title_classes: Array, classes: Array, edge: Array) -> None:
    r"""Find where a bag may begin or end.

    A word, a number, and a character with its marks (e + \u0301) are never cut.

    Args:
        title_classes: [stop] classes of a title's characters.
        classes: [stop or more] receives the same, but of a mark the class of its character.
        edge: By boundary, receives whether a bag may begin or end there.
    """
    stop = len(title_classes)
    edge[0] = True
    for at in range(stop):
        kind = int(title_classes[at])
        edge[at + 1] = True
        if at > 0 and kind != SPACE and classes[at - 1] != SPACE:
            if kind == MARK:
                kind = classes[at - 1]
                edge[at] = False
            elif kind == classes[at - 1]:
                edge[at] = kind not in (LATIN, DIGIT)
        classes[at] = kind
    edge[stop] = True


def write_bags(
    stop: int, total: int, back: Array, made_kind: Array, made_entry: Array, entry_type: Array,
    starts: Array, ends: Array, kinds: Array, types: Array,
) -> int:  # fmt: skip
    """Follow the cover of a title from its end, and write its bags after those of earlier titles.

    Args:
        stop: The last boundary of the title.
        total: Number of bags of the earlier titles.
        back: By boundary, where the last bag begins.
        made_kind: By boundary, the kind of that bag.
        made_entry: By boundary, its entry, -1: it is none.
        entry_type: [entries] the type of each entry.
        starts: Receives where the bags begin; these four are described in :class:`.PackedBags`.
        ends: Receives their ends.
        kinds: Receives their kinds.
        types: Receives their types.

    Returns:
        The number of bags with those of this title.
    """
    end = stop
    while end > 0:  # count first, because the bags are found from the last to the first
        if made_kind[end] != NO_BAG:
            total += 2 if made_kind[end] == COMPOUND and made_entry[end] >= 0 else 1
        end = back[end]
    bag = total
    end = stop
    while end > 0:
        if made_kind[end] != NO_BAG:
            entry = made_entry[end]
            kind = made_kind[end]
            bag_end = end
            if kind == COMPOUND and entry >= 0:  # 蓝色│包: the head is a bag
                bag -= 1
                bag_end = end - 1
                starts[bag] = bag_end
                ends[bag] = end
                kinds[bag] = COMPOUND
                types[bag] = -1
                kind = LEXICON
            bag -= 1
            starts[bag] = back[end]
            ends[bag] = bag_end
            kinds[bag] = kind
            types[bag] = entry_type[entry] if entry >= 0 else -1
        end = back[end]
    return total


def cover(titles: Titles, lexicon: LexiconArrays, costs: Array, cuts: Array) -> PackedBags:
    """Find the cheapest cover of each title.

    Args:
        titles: The titles; none changes the answer for another.
        lexicon: Entries, units, heads and suffixes.
        costs: [GLUED + 1] int64, by kind and further costs.
        cuts: [C] int32, what a boundary between two bags before each character costs, besides the
            bags; may be negative. Empty: nothing.

    Returns:
        The bags of all titles. Bags do not overlap and cover everything but whitespace.
    """
    all_characters, all_classes, offsets = titles
    count = len(offsets) - 1
    room = len(all_characters)
    bag_starts = np.empty(room, np.int32)
    bag_ends = np.empty(room, np.int32)
    bag_kinds = np.empty(room, np.int8)
    bag_types = np.empty(room, np.int16)
    bag_offsets = np.empty(count + 1, np.int64)
    title_costs = np.empty(count, np.int64)
    # The inner loops take arrays, not tuples: passing a tuple counts the references to all of its
    # arrays, which made them four times as slow.
    automaton = lexicon.entries
    value = automaton.value
    depth = automaton.depth
    output = automaton.output
    entry_cost, entry_type, entry_follows = lexicon.cost, lexicon.type, lexicon.follows
    head_cost, suffix_cost = lexicon.head, lexicon.suffix
    units = lexicon.units
    nodes = read(
        all_characters, offsets, automaton.edges, automaton.children, automaton.roots,
        automaton.failure,
    )  # fmt: skip
    longest = 0
    for title in range(count):
        longest = max(longest, offsets[title + 1] - offsets[title])
    best = [ENDLESS] * (longest + 1)  # these four by boundary, see the top of the file
    back = [0] * (longest + 1)
    made_kind = [0] * (longest + 1)
    made_entry = [0] * (longest + 1)
    classes = [0] * (longest + 1)
    edge = [True] * (longest + 2)
    found_ends = [0] * MAX_FOUND
    found_kinds = [0] * MAX_FOUND
    learned = len(cuts) > 0
    total = 0
    for title in range(count):
        begin = offsets[title]
        stop = offsets[title + 1] - begin
        characters = all_characters[begin : begin + stop]
        bag_offsets[title] = total
        find_edges(all_classes[begin : begin + stop], classes, edge)
        best[0] = 0
        for at in range(stop):
            best[at + 1] = ENDLESS
        node = 0
        for at in range(stop + 1):
            if at > 0:
                node = nodes[begin + at - 1]
            if not edge[at]:
                continue
            # Entries that end here, the longest first; the next character may be the head or
            # suffix of one (消毒 + 柜). Where no cover reaches the start of one, the sum is ENDLESS
            # or more and never cheaper.
            head = 0
            suffix = 0
            if at < stop and edge[at + 1]:
                head = int(head_cost[characters[at]])
                suffix = int(suffix_cost[characters[at]])
            match = node if value[node] >= 0 else output[node]
            while match > 0:
                entry = value[match]
                start = at - int(depth[match])  # int(): outside numba 8 bits would stay 8
                cost = best[start] + int(entry_cost[entry])
                ends = cost  # the cost of a cover whose last bag is the entry
                if learned and entry_follows[entry] & OWN and best[start] < ENDLESS:
                    cost -= own_credit(start, at, cuts, edge, begin)
                    ends = cost
                    if at < stop and cuts[begin + at] > 0:
                        ends -= int(cuts[begin + at])
                relax(start, at, ends, LEXICON, entry, best, back, made_kind, made_entry)
                if head + suffix > 0:
                    follows = entry_follows[entry]
                    extra = head if follows & TAKES_HEAD else 0
                    divided = -1  # the entry of a compound that is written as two bags
                    if extra > 0 and follows & HEAD_APART:
                        divided = entry
                        if learned:
                            cost += cuts[begin + at]
                    if extra == 0 and follows & TAKES_SUFFIX:
                        extra = suffix
                    if extra > 0:
                        cost += extra + costs[COMPOUND]
                        relax(
                            start, at + 1, cost, COMPOUND, divided, best, back, made_kind,
                            made_entry,
                        )  # fmt: skip
                match = output[match]
            # best[at] is final now: offer the bags that begin here, kind by kind.
            if at == stop:
                break
            if learned and at > 0:
                best[at] += cuts[begin + at]
            here = best[at]
            kind = classes[at]
            character = characters[at]
            if kind == SPACE:
                relax(at, at + 1, here, NO_BAG, -1, best, back, made_kind, made_entry)
                continue
            # matches of the patterns
            if kind in (LATIN, DIGIT):
                found = scan(at, stop, characters, classes, units, found_ends, found_kinds)
                for match in range(found):
                    end = found_ends[match]
                    made = found_kinds[match]
                    if not edge[end]:
                        continue
                    cost = here + costs[made]
                    if made == NUMBER and glued(at, end, stop, classes):
                        cost += costs[GLUED]
                    relax(at, end, cost, made, -1, best, back, made_kind, made_entry)
                    if made == LETTERS and end < stop and edge[end + 1]:  # led + 灯, wifi + 版
                        extra = int(head_cost[characters[end]])
                        if extra == 0:
                            extra = int(suffix_cost[characters[end]])
                        if extra > 0:
                            cost += extra + costs[COMPOUND]
                            relax(
                                at, end + 1, cost, NEW_COMPOUND, -1, best, back, made_kind,
                                made_entry,
                            )  # fmt: skip
            elif character == ORDINAL or character in NUMERALS:  # few are: a call costs more
                end = counted_end(at, stop, characters, classes, units)
                if end > at and edge[end]:
                    cost = here + costs[COUNTED]
                    relax(at, end, cost, COUNTED, -1, best, back, made_kind, made_entry)
            elif character in OFFERS:
                end = offer_end(at, stop, characters, classes, units)
                if end > at and edge[end]:
                    cost = here + costs[OFFER]
                    relax(at, end, cost, OFFER, -1, best, back, made_kind, made_entry)
                    # with its unit, unless that begins the next word: 买一送一 + 口红
                    end = unit_end(end, stop, characters, units)
                    if edge[end]:
                        cost += costs[QUANTITY]
                        relax(at, end, cost, OFFER, -1, best, back, made_kind, made_entry)
            # ideographs that no entry explains: one with a head (墙 + 饰), a name (贝儿欣)
            end = at + 1
            while kind == OTHER and end < stop and end < at + LONGEST_NAME:
                if classes[end] != OTHER or not edge[end] or not edge[end + 1]:
                    break
                if end == at + 1 and head_cost[characters[end]] > 0:
                    cost = here + int(head_cost[characters[end]]) + costs[PAIR]
                    relax(at, end + 1, cost, NEW_COMPOUND, -1, best, back, made_kind, made_entry)
                end += 1
                cost = here + costs[NAME] + (end - at) * costs[NAME_CHARACTER]
                relax(at, end, cost, NAME, -1, best, back, made_kind, made_entry)
            # where boundaries are learned, anything without a space: they say where it ends
            end = at
            for pieces in range(1, LONGEST_LEARNED + 1 if learned else 0):
                if end == stop or classes[end] == SPACE:
                    break
                end += 1
                while not edge[end]:
                    end += 1
                if pieces > 1:
                    cost = here + costs[NAME] + pieces * costs[NAME_CHARACTER]
                    relax(at, end, cost, NAME, -1, best, back, made_kind, made_entry)
                if end < stop and cuts[begin + end] < SURE_CUT:
                    break  # two bags are cheaper than a longer piece
            # one character, with the marks that belong to it
            end = at + 1
            while not edge[end]:
                end += 1
            cost = here + costs[TOKEN] * (end - at)
            relax(at, end, cost, TOKEN, -1, best, back, made_kind, made_entry)
        title_costs[title] = best[stop]
        total = write_bags(
            stop, total, back, made_kind, made_entry, entry_type, bag_starts, bag_ends, bag_kinds,
            bag_types,
        )  # fmt: skip
    bag_offsets[count] = total
    return PackedBags(
        bag_starts[:total], bag_ends[:total], bag_kinds[:total], bag_types[:total],
        bag_offsets, title_costs,
    )  # fmt: skip
