"""What no dictionary can list: numbers, quantities, models, latin words; kernels that find them."""

from __future__ import annotations

from bagformer_cli.text.characters import DIGIT, LATIN, OTHER
from bagformer_cli.text.trie import Array, child

LEXICON, TOKEN, NUMBER, QUANTITY, MODEL, LETTERS, COMPOUND, NAME, COUNTED = range(9)
"""What made a bag; everything from NUMBER on is a pattern."""

NUMERALS = tuple(map(ord, "一二三四五六七八九十百千两半"))
ORDINAL = ord("第")
LETTERED = tuple(map(ord, "型字级款版类码"))
"""What a single letter qualifies: U型, A字, C级."""
DIAMETERS = (ord("m"), ord("φ"))
"""What sizes of threads and round parts begin with: M8*30."""

MAX_FOUND = 64


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


def fraction_end(at: int, stop: int, folded: Array, kinds: Array) -> int:
    """Where the fraction ends whose numerator ends at ``at``: 1/2, 3/4, 5/16 (``at``: none)."""
    if at + 1 >= stop or folded[at] != 47 or kinds[at + 1] != DIGIT:
        return at
    end = run_end(at + 1, stop, kinds, DIGIT)
    parts = 0
    for place in range(at + 1, min(end, at + 4)):
        parts = 10 * parts + folded[place] - 48
    return end if parts in (2, 4, 8, 16, 32) else at


def pluses_end(at: int, stop: int, folded: Array, kinds: Array) -> int:
    """Where the plus signs behind a word end: PA+++, C++, A+ (``at``: they join what follows)."""
    end = at
    while end < stop and folded[end] == 43:
        end += 1
    alone = end == stop or kinds[end] not in (LATIN, DIGIT, OTHER)
    return end if end > at + 1 or alone else at


def counted_end(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
) -> int:  # fmt: skip
    """Where 第 or a numeral in characters, with its unit, ends: 第2版, 三件套 (``at``: none)."""
    number = at + 1 if folded[at] == ORDINAL else at
    end = number
    while end < stop and end < number + 4 and folded[end] in NUMERALS:
        end += 1
    if end == number and number > at and number < stop and kinds[number] == DIGIT:
        end = number_end(number, stop, folded, kinds)
    if end == number:
        return at
    unit = unit_end(end, stop, folded, first, label, value, roots)
    return unit if unit > end else at


def words(
    at: int, stop: int, folded: Array, kinds: Array, found_ends: Array, found_kinds: Array
) -> int:
    """Latin words, and words joined by ' & . - + _: l'oreal, coca-cola, a.o.smith; U型, C++."""
    count = 0
    end = run_end(at, stop, kinds, LATIN)
    if end == at + 1 and end < stop and folded[end] in LETTERED:
        found_ends[count] = end + 1
        found_kinds[count] = MODEL
        count += 1
    while count < MAX_FOUND // 4:
        found_ends[count] = pluses_end(end, stop, folded, kinds)
        found_kinds[count] = LETTERS
        count += 1
        joint = end + 1 < stop and folded[end] in (39, 8217, 38, 46, 45, 43, 95)
        if not joint or kinds[end + 1] != LATIN:
            break
        end = run_end(end + 1, stop, kinds, LATIN)
    return count


def thread_end(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
) -> int:  # fmt: skip
    """Where the size of a thread or a round part ends: M8*30, φ10×2mm (``at``: there is none)."""
    if folded[at] not in DIAMETERS or at + 1 >= stop or kinds[at + 1] != DIGIT:
        return at
    end = number_end(at + 1, stop, folded, kinds)
    if end + 1 >= stop or folded[end] not in (42, 215) or kinds[end + 1] != DIGIT:
        return at
    end = number_end(end + 1, stop, folded, kinds)
    return unit_end(end, stop, folded, first, label, value, roots)


def amounts(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
    found_ends: Array, found_kinds: Array,
) -> int:  # fmt: skip
    """Numbers and quantities: 2.5, 8-12mm, 1/2寸, 100g*12袋, 120g/盒, 1000毫安."""
    count = 0
    end = number_end(at, stop, folded, kinds)
    kind = NUMBER
    while count < MAX_FOUND // 2:
        found_ends[count] = end
        found_kinds[count] = kind
        count += 1
        for _ in range(2):  # 8-12, 0-3-6, 1:64
            span = end + 1 < stop and folded[end] in (45, 58, 126, 8211, 8212)  # - : ~ – —
            if span and kinds[end + 1] == DIGIT:
                end = number_end(end + 1, stop, folded, kinds)
                found_ends[count] = end
                found_kinds[count] = kind
                count += 1
        end = fraction_end(end, stop, folded, kinds)
        unit = unit_end(end, stop, folded, first, label, value, roots)
        if unit == end + 1 and unit < stop and folded[end] == 120 and kinds[unit] == DIGIT:
            unit = end  # 1.8x2.0m: times, not a unit
        if unit > end:
            end = unit
            kind = QUANTITY
            found_ends[count] = end
            found_kinds[count] = kind
            count += 1
            if end + 1 < stop and folded[end] == 47 and kinds[end + 1] == OTHER:
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
    return count


def scan(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
    found_ends: Array, found_kinds: Array,
) -> int:  # fmt: skip
    """What patterns find from the letter or digit ``at`` on.

    Fills ``found_ends`` and ``found_kinds``; returns how many were found.
    """
    if kinds[at] == LATIN:
        count = words(at, stop, folded, kinds, found_ends, found_kinds)
        end = thread_end(at, stop, folded, kinds, first, label, value, roots)
        if end > at:
            found_ends[count] = end
            found_kinds[count] = QUANTITY
            count += 1
    else:
        count = amounts(
            at, stop, folded, kinds, first, label, value, roots, found_ends, found_kinds
        )
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
            found_ends[count] = pluses_end(end, stop, folded, kinds)
            found_kinds[count] = MODEL
            count += 1
        joint = end + 1 < stop and folded[end] in (45, 46, 95)  # - . _
        if not joint or (kinds[end + 1] != LATIN and kinds[end + 1] != DIGIT):
            break
        end += 1
    return count


def glued(start: int, end: int, stop: int, kinds: Array) -> bool:
    """Whether a bare number looks like part of a model: after a single letter, or before one.

    So that 26a7 is not 26a and 7, while 2600mah18650 still is 2600mah and 18650.
    """
    if end < stop and kinds[end] == LATIN:
        return True
    single = start > 0 and kinds[start - 1] == LATIN
    return single and (start == 1 or kinds[start - 2] != LATIN)
