"""The inner loops over code points: WordPiece, the cheapest cover, the joining of both.

Plain Python over numpy arrays, written in the subset that numba compiles. :func:`kernels` hands
them out as they are for a few titles (nothing to load) and compiled for many: one source, so both
give the same answer. Names in capitals are compile-time constants.
"""

from __future__ import annotations

import sys
from collections.abc import MutableSequence
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any

from bagformer_cli.text.characters import (
    DIGIT,
    DROP,
    ISOLATED,
    LATIN,
    MARK,
    OTHER,
    SPACE,
    UNSURE,
    WHITE,
    ZERO_WIDTH_JOINER,
)

Array = MutableSequence[int]
"""What the kernels see: a numpy array, or a list of their own."""

COMPILE_FROM = 5000
"""So many titles in one call are worth loading the compiled kernels for."""

LEXICON, TOKEN, NUMBER, QUANTITY, MODEL, LETTERS, COMPOUND, NAME = range(8)
"""What made a bag; everything from NUMBER on is a pattern."""

PAIR, NAME_CHARACTER = 8, 9
"""Further costs: of one ideograph with a head, of each character of a name."""

LONGEST_NAME = 4

ENDLESS = 1 << 60
MAX_WORD = 100
MAX_FOUND = 64


def child(node: int, character: int, first: Array, label: Array, roots: Array) -> int:
    """The node after ``node`` by ``character``; 0 where there is none."""
    if node == 0:
        return roots[character]
    low = first[node]
    end = first[node + 1]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if label[middle] < character:
            low = middle + 1
        else:
            high = middle
    if low < end and label[low] == character:
        return low
    return 0


def wordpiece(
    codes: Array, offsets: Array, action: Array, becomes: Array,
    first: Array, label: Array, value: Array, roots: Array, inner: int, unknown: int,
    ids: Array, starts: Array, ends: Array, token_offsets: Array, unsure: Array,
) -> int:  # fmt: skip
    """BERT's tokenizer over many texts; texts it leaves to the oracle are flagged in ``unsure``.

    ``inner`` is the node of ``##``. Greedy longest match first; a word that cannot be built from
    pieces, or is longer than 100 characters, is one [UNK].
    """
    letters = [0] * (MAX_WORD + 1)
    places = [0] * (MAX_WORD + 1)
    total = 0
    for text in range(len(offsets) - 1):
        begin = offsets[text]
        stop = offsets[text + 1]
        token_offsets[text] = total
        before = total
        length = 0
        word_start = 0
        word_end = 0
        at = begin
        while at <= stop:
            what = WHITE
            if at < stop:
                what = action[codes[at]]
                if what == DROP:
                    at += 1
                    continue
                if what == UNSURE or (codes[at] == 91 and at + 1 < stop and codes[at + 1] < 128):
                    unsure[text] = True  # 91 is "[": "[MASK]" in a title is the special token
                    total = before
                    length = 0
                    break
                if what > ISOLATED:
                    if length == 0:
                        word_start = at
                    if length < MAX_WORD:
                        letters[length] = becomes[codes[at]]
                        places[length] = at
                    word_end = at + 1
                    length += 1
                    at += 1
                    continue
            if length > 0:
                piece = 0
                good = length <= MAX_WORD
                mark = total
                while good and piece < length:
                    node = 0 if piece == 0 else inner
                    found = -1
                    found_end = piece
                    walk = piece
                    while walk < length:
                        node = child(node, letters[walk], first, label, roots)
                        if node == 0:
                            break
                        walk += 1
                        if value[node] >= 0:
                            found = value[node]
                            found_end = walk
                    if found < 0 or (piece > 0 and inner == 0):
                        good = False
                    else:
                        ids[total] = found
                        starts[total] = places[piece] - begin
                        ends[total] = places[found_end - 1] + 1 - begin
                        total += 1
                        piece = found_end
                if not good:
                    total = mark
                    ids[total] = unknown
                    starts[total] = word_start - begin
                    ends[total] = word_end - begin
                    total += 1
                length = 0
            if what == ISOLATED:
                node = roots[becomes[codes[at]]]
                ids[total] = value[node] if node > 0 and value[node] >= 0 else unknown
                starts[total] = at - begin
                ends[total] = at + 1 - begin
                total += 1
            at += 1
    token_offsets[len(offsets) - 1] = total
    return total


def run_end(at: int, stop: int, kinds: Array, kind: int) -> int:
    """Where the run of characters of class ``kind`` that begins at ``at`` ends."""
    while at < stop and kinds[at] == kind:
        at += 1
    return at


def number_end(at: int, stop: int, folded: Array, kinds: Array) -> int:
    """Where the number that begins at ``at`` ends: digits, then at most one decimal part."""
    at = run_end(at, stop, kinds, DIGIT)
    if at + 1 < stop and folded[at] == 46 and kinds[at + 1] == DIGIT:
        at = run_end(at + 1, stop, kinds, DIGIT)
    return at


def unit_end(
    at: int, stop: int, folded: Array, first: Array, label: Array, value: Array, roots: Array
) -> int:
    """Where the longest unit that begins at ``at`` ends (``at`` itself where none does)."""
    node = 0
    end = at
    while at < stop:
        node = child(node, folded[at], first, label, roots)
        if node == 0:
            break
        at += 1
        if value[node] >= 0:
            end = at
    return end


def scan(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
    found_ends: Array, found_kinds: Array,
) -> int:  # fmt: skip
    """What patterns find from ``at`` on: latin words, numbers, quantities, model numbers.

    Fills ``found_ends`` and ``found_kinds``; returns how many were found.
    """
    count = 0
    if kinds[at] == LATIN:  # words, and words joined by ' & . - + _: l'oreal, coca-cola, a.o.smith
        end = run_end(at, stop, kinds, LATIN)
        while count < MAX_FOUND // 4:
            found_ends[count] = end
            found_kinds[count] = LETTERS
            count += 1
            joint = end + 1 < stop and folded[end] in (39, 8217, 38, 46, 45, 43, 95)
            if not joint or kinds[end + 1] != LATIN:
                break
            end = run_end(end + 1, stop, kinds, LATIN)
    elif kinds[at] == DIGIT:  # 2.5, 8-12mm, 100g*12袋, 1000毫安
        end = number_end(at, stop, folded, kinds)
        kind = NUMBER
        while count < MAX_FOUND // 2:
            found_ends[count] = end
            found_kinds[count] = kind
            count += 1
            if end + 1 < stop and folded[end] in (45, 126, 8211, 8212) and kinds[end + 1] == DIGIT:
                end = number_end(end + 1, stop, folded, kinds)
                found_ends[count] = end
                found_kinds[count] = kind
                count += 1
            unit = unit_end(end, stop, folded, first, label, value, roots)
            if unit > end:
                end = unit
                kind = QUANTITY
                found_ends[count] = end
                found_kinds[count] = kind
                count += 1
                if end + 1 < stop and folded[end] == 47 and kinds[end + 1] == OTHER:  # 120g/盒
                    unit = unit_end(end + 1, stop, folded, first, label, value, roots)
                    if unit > end + 1:
                        end = unit
                        found_ends[count] = end
                        found_kinds[count] = kind
                        count += 1
            times = end + 1 < stop and folded[end] in (42, 120, 215)  # * x ×
            if not times or kinds[end + 1] != DIGIT:
                break
            end = number_end(end + 1, stop, folded, kinds)
            kind = QUANTITY
    # letters and digits in one: 711632e1-91b80, iphone15pro, zdr6dp2-4x
    letters = 0
    digits = 0
    end = at
    for _ in range(MAX_FOUND // 4):
        while end < stop and (kinds[end] == LATIN or kinds[end] == DIGIT):
            if kinds[end] == LATIN:
                letters += 1
            else:
                digits += 1
            end += 1
        if digits > 0 and letters > 0:
            found_ends[count] = end
            found_kinds[count] = MODEL
            count += 1
        joint = end + 1 < stop and folded[end] in (45, 46, 95)  # - . _
        if not joint or (kinds[end + 1] != LATIN and kinds[end + 1] != DIGIT):
            break
        end += 1
    return count


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
    head_cost: Array, kind_cost: Array,
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
            # dictionary entries, alone and with a head: 消毒 + 柜
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
                price = here + entry_cost[entry]
                relax(at, walk, price, LEXICON, entry_type[entry], best, back, made_kind, made_type)
                if entry_head[entry] and walk < stop and fine[walk + 1]:
                    extra = head_cost[word[walk]]
                    if extra > 0:
                        price += extra + kind_cost[COMPOUND]
                        relax(at, walk + 1, price, COMPOUND, -1, best, back, made_kind, made_type)
            # patterns, and latin words with a head: led + 灯
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
                    relax(at, walk, price, kind, -1, best, back, made_kind, made_type)
                    if kind == LETTERS and walk < stop and fine[walk + 1]:
                        extra = head_cost[word[walk]]
                        if extra > 0:
                            price += extra + kind_cost[COMPOUND]
                            relax(
                                at, walk + 1, price, COMPOUND, -1, best, back, made_kind, made_type
                            )
            # ideographs that no entry explains: one with a head (墙 + 饰), a name (贝儿欣)
            walk = at + 1
            while kinds[at] == OTHER and walk < stop and walk < at + LONGEST_NAME:
                if kinds[walk] != OTHER or not fine[walk] or not fine[walk + 1]:
                    break
                if walk == at + 1 and head_cost[word[walk]] > 0:
                    price = here + head_cost[word[walk]] + kind_cost[PAIR]
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


def assemble(
    ids: Array, starts: Array, token_offsets: Array, bag_ends: Array, bag_offsets: Array,
    room: int, cls_id: int, sep_id: int, add_sep: bool,
    out_ids: Array, out_token_offsets: Array, out_starts: Array, out_ends: Array,
    out_bag_offsets: Array,
) -> tuple[int, int]:  # fmt: skip
    """Tokens and character bags of each text become packed token-aligned bags.

    A token belongs to the bag that holds its first character, so a bag never ends inside one.
    ``room`` is how many tokens are kept of a text, without [CLS] and [SEP].
    """
    tokens = 0
    bags = 0
    for text in range(len(token_offsets) - 1):
        out_token_offsets[text] = tokens
        out_bag_offsets[text] = bags
        out_ids[tokens] = cls_id
        tokens += 1
        begin = token_offsets[text]
        stop = min(token_offsets[text + 1], begin + room)
        bag = bag_offsets[text]
        last = bag_offsets[text + 1] - 1
        current = bag - 1
        for token in range(begin, stop):
            while bag < last and bag_ends[bag] <= starts[token]:
                bag += 1
            if bag != current:
                out_starts[bags] = tokens
                bags += 1
                current = bag
            out_ids[tokens] = ids[token]
            tokens += 1
            out_ends[bags - 1] = tokens
        if begin >= stop:  # nothing a model could see: [CLS] stands for the title
            out_starts[bags] = tokens - 1
            out_ends[bags] = tokens
            bags += 1
        if add_sep:
            out_ids[tokens] = sep_id
            tokens += 1
    out_token_offsets[len(token_offsets) - 1] = tokens
    out_bag_offsets[len(token_offsets) - 1] = bags
    return tokens, bags


def align(
    starts: Array, ends: Array, token_offsets: Array,
    bag_starts: Array, bag_ends: Array, bag_offsets: Array,
    out_starts: Array, out_ends: Array, out_bags: Array, out_offsets: Array,
) -> int:  # fmt: skip
    """Character bags whose edges are edges of tokens.

    A bag grows where it would end inside a token; what leaves no token goes to the bag before it
    (or, at the beginning of a title, behind it). ``out_bags`` says which bag each came from.
    """
    total = 0
    for text in range(len(token_offsets) - 1):
        out_offsets[text] = total
        before = total
        token = token_offsets[text]
        last_token = token_offsets[text + 1]
        some = token < last_token
        for bag in range(bag_offsets[text], bag_offsets[text + 1]):
            end = bag_ends[bag]
            last = bag == bag_offsets[text + 1] - 1
            begin = token
            while token < last_token and (starts[token] < end or last):
                token += 1
            if token > begin:
                end = max(end, ends[token - 1])
            elif some:
                if total > before:
                    out_ends[total - 1] = max(out_ends[total - 1], end)
                continue
            if total > before:
                out_starts[total] = max(bag_starts[bag], out_ends[total - 1])
            else:
                out_starts[total] = bag_starts[bag_offsets[text]]
            out_ends[total] = end
            out_bags[total] = bag
            total += 1
    out_offsets[len(token_offsets) - 1] = total
    return total


NAMES = (
    *("child", "wordpiece", "run_end", "number_end", "unit_end", "scan", "relax", "cover"),
    *("assemble", "align"),
)


def kernels(titles: int) -> Any:
    """The kernels by name for a call over ``titles`` titles: compiled where that pays."""
    if titles >= COMPILE_FROM or _compiled.cache_info().currsize:
        return _compiled()
    return sys.modules[__name__]


@cache
def _compiled() -> SimpleNamespace:
    import numba

    scope = dict(globals())
    for name in NAMES:
        plain = FunctionType(scope[name].__code__, scope, name)
        scope[name] = numba.njit(cache=True, nogil=True)(plain)
    return SimpleNamespace(**{name: scope[name] for name in NAMES})
