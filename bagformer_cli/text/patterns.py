"""What no dictionary can list: numbers, quantities, models, latin words; kernels that find them."""

from __future__ import annotations

from bagformer_cli.text.automaton import Array, child
from bagformer_cli.text.characters import DIGIT, LATIN, OTHER

LEXICON, TOKEN, NUMBER, QUANTITY, MODEL, LETTERS, COMPOUND, NAME, COUNTED, OFFER = range(10)
"""What made a bag; everything from NUMBER on is a pattern."""

NUMERALS = tuple(map(ord, "一二三四五六七八九十百千两半"))
ORDINAL = ord("第")
LETTERED = tuple(map(ord, "型字级款版类码"))
"""What a single letter qualifies: U型, A字, C级."""
DIAMETERS = (ord("m"), ord("φ"))
"""What sizes of threads and round parts begin with: M8*30."""

SPANS = tuple(map(ord, "-~–—"))
"""What stands between the ends of a range."""
OFFERS = tuple(map(ord, "满买拍充"))
"""What an offer begins with: 满199减20."""
GIVEN = tuple(map(ord, "减送打返赠发得享"))
"""What an offer promises."""
AT_ONCE = tuple(map(ord, "立即再就"))
FULL, DISCOUNT = map(ord, "满折")
SIZE_LETTERS = tuple(map(ord, "sml"))
SIZE = ord("码")

MOST_JOINED = 6
"""Numbers after the first in a range: 1-2-3-4岁."""

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


def count_end(at: int, stop: int, folded: Array, kinds: Array) -> int:
    """Where the number in digits or characters ends that begins at ``at`` (``at``: none does)."""
    if at < stop and kinds[at] == DIGIT:
        return number_end(at, stop, folded, kinds)
    end = at
    while end < stop and end < at + 4 and folded[end] in NUMERALS:
        end += 1
    return end


def counted_end(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
) -> int:  # fmt: skip
    """Where 第 or a numeral in characters, with its unit, ends: 第2版, 三件套 (``at``: none)."""
    number = at + 1 if folded[at] == ORDINAL else at
    end = count_end(number, stop, folded, kinds)
    if end == number:
        return at
    unit = unit_end(end, stop, folded, first, label, value, roots)
    return unit if unit > end else at


def offer_end(
    at: int, stop: int, folded: Array, kinds: Array,
    first: Array, label: Array, value: Array, roots: Array,
) -> int:  # fmt: skip
    """Where an offer ends, but for a last unit: 满199减20(元), 满3件8折, 买2送1 (``at``: none)."""
    if folded[at] not in OFFERS:
        return at
    end = count_end(at + 1, stop, folded, kinds)
    if end == at + 1:
        return at
    end = unit_end(end, stop, folded, first, label, value, roots)
    given = end + 1 if end < stop and folded[end] in AT_ONCE else end
    promised = given < stop and (
        folded[given] in GIVEN or (folded[given] == 45 and folded[at] == FULL)
    )
    if promised:
        last = count_end(given + 1, stop, folded, kinds)
        return last if last > given + 1 else at
    last = count_end(end, stop, folded, kinds)
    return last + 1 if end < last < stop and folded[last] == DISCOUNT else at


def size_end(at: int, stop: int, folded: Array, kinds: Array) -> int:
    """Where a size of clothes ends: M, XXL, 3XL, S码 (``at``: there is none)."""
    number = run_end(at, stop, kinds, DIGIT)
    end = number
    while end < stop and folded[end] == 120:  # x
        end += 1
    if end == stop or folded[end] not in SIZE_LETTERS or at < number == end:
        return at
    end += 1
    if end < stop and (kinds[end] == LATIN or kinds[end] == DIGIT):
        return at
    return end + 1 if end < stop and folded[end] == SIZE else end


def sizes_end(at: int, stop: int, folded: Array, kinds: Array) -> int:
    """Where a size with 码, or a range of sizes, ends: XL码, M-3XL, S码-XXL (``at``: none)."""
    end = size_end(at, stop, folded, kinds)
    if end == at:
        return at
    if end + 1 < stop and folded[end] in SPANS:
        last = size_end(end + 1, stop, folded, kinds)
        if last > end + 1:
            return last
    return end if folded[end - 1] == SIZE else at


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
    """Numbers and quantities: 2.5, 8-12mm, 1/2寸, 100g*12袋, 120g/盒, 3月-6月."""
    count = 0
    end = number_end(at, stop, folded, kinds)
    kind = NUMBER
    while count < MAX_FOUND // 2:
        found_ends[count] = end
        found_kinds[count] = kind
        count += 1
        for _ in range(MOST_JOINED):  # 8-12, 0-3-6, 1:64
            span = end + 1 < stop and (folded[end] in SPANS or folded[end] == 58)
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
            elif end + 1 < stop and folded[end] in SPANS and kinds[end + 1] == DIGIT:
                last = number_end(end + 1, stop, folded, kinds)
                unit = unit_end(last, stop, folded, first, label, value, roots)
                if unit > last and folded[unit - 1] == folded[end - 1]:
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
    end = sizes_end(at, stop, folded, kinds)
    if end > at:
        found_ends[count] = end
        found_kinds[count] = QUANTITY
        count += 1
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
