"""Patterns for what no dictionary can list: numbers, quantities, sizes, model codes, latin words.

A pattern looks at one position of a title and returns where its match ends. A title is two arrays
with one element per character (L latin letter, D digit, S space, P punctuation, O anything else,
mostly ideographs):

    position      0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    characters    i  p  h  o  n  e  1  5     2  .  5  m  *  3  件
    classes       L  L  L  L  L  L  D  D  S  D  P  D  L  P  D  O

At position 0, :func:`scan` finds the latin word `iphone` (it ends at 6) and the model `iphone15`
(8). At position 9 it finds the number `2.5` (12) and the quantities `2.5m` (13), `2.5m*3` (15) and
`2.5m*3件` (16). It returns all of them: :mod:`.cover` takes the cheapest bags.

A function ``…_end`` returns the position it was given when nothing matches there. Letters are in
lower case and half width here (:func:`.characters.fold`). The functions are kernels: plain Python
in the subset that numba compiles (:mod:`.jit`).
"""

from __future__ import annotations

from bagformer_cli.text.automaton import Array, PrefixTree, child
from bagformer_cli.text.characters import DIGIT, LATIN, OTHER

COMPOUND, LEXICON, NUMBER, QUANTITY, MODEL, LETTERS, COUNTED, OFFER, NEW_COMPOUND, NAME, TOKEN = (
    range(11)
)
"""Kinds of bags: an entry with a head or suffix (消毒柜) or the head after a colour or a pattern
(蓝色│包), an entry, a number, a quantity, a model
code, a latin word, a counted noun (三件套), an offer (满199减20), a head with a word that is no
entry (led灯, 墙饰), ideographs that no entry explains, and a single character. If two bags have the
same characters and cost, the cover takes the one that comes first here."""

DOT, SLASH, PLUS, COLON, MINUS, LETTER_X, SIZE = map(ord, "./+:-x码")
ORDINAL, FULL, DISCOUNT = map(ord, "第满折")

NUMERALS = tuple(map(ord, "一二三四五六七八九十百千两半"))
RANGE_SIGNS = tuple(map(ord, "-~–—"))
TIMES_SIGNS = tuple(map(ord, "*x×"))
THREAD_SIGNS = tuple(map(ord, "*×"))
WORD_JOINTS = tuple(map(ord, "'’&.-+_"))
MODEL_JOINTS = tuple(map(ord, "-._"))
SIZE_LETTERS = tuple(map(ord, "sml"))

QUALIFIED = tuple(map(ord, "型字级款版类码"))
"""Ideographs that a single letter qualifies: U型, A字, C级."""

DIAMETERS = tuple(map(ord, "mφ"))
"""First characters of a thread size or a round part's size: M8*30."""

OFFERS = tuple(map(ord, "满买拍充"))
"""First characters of an offer: 满199减20, 买2送1."""

GIVEN = tuple(map(ord, "减送打返赠发得享"))
"""Verbs between the condition and the promise of an offer."""

AT_ONCE = tuple(map(ord, "立即再就"))
"""Adverbs that may stand before such a verb: 拍3立减5."""

MOST_JOINED = 6
"""Numbers after the first one of a range at most: 1-2-3-4岁."""

LONGEST_MODEL = 100
"""Letters and digits without a joint in a model code at most."""

MAX_FOUND = 64
"""Matches that :func:`scan` returns at most for one position."""


# --- numbers and units ---------------------------------------------------------------------------


def put(count: int, end: int, kind: int, found_ends: Array, found_kinds: Array) -> int:
    """Append a match to ``count`` others and return their new number."""
    found_ends[count] = end
    found_kinds[count] = kind
    return count + 1


def run_end(at: int, kind: int, stop: int, classes: Array) -> int:
    """Return the end of the run of characters of class ``kind``."""
    while at < stop and classes[at] == kind:
        at += 1
    return at


def number_end(at: int, stop: int, characters: Array, classes: Array) -> int:
    """Return the end of a number: digits, then at most one decimal part."""
    at = run_end(at, DIGIT, stop, classes)
    if at + 1 < stop and characters[at] == DOT and classes[at + 1] == DIGIT:
        at = run_end(at + 1, DIGIT, stop, classes)
    return at


def unit_end(at: int, stop: int, characters: Array, units: PrefixTree) -> int:
    """Return the end of the longest unit that begins here."""
    node = 0
    end = at
    while at < stop:
        node = child(node, characters[at], units.label, units.first, units.roots)
        if node == 0:
            break
        at += 1
        if units.value[node] >= 0:
            end = at
    return end


def fraction_end(at: int, stop: int, characters: Array, classes: Array) -> int:
    """Return the end of a fraction, given the end of its numerator: 1/2, 3/4, 5/16.

    Only powers of two are denominators, because 6/7 in a title means "6 or 7".
    """
    if at + 1 >= stop or characters[at] != SLASH or classes[at + 1] != DIGIT:
        return at
    end = run_end(at + 1, DIGIT, stop, classes)
    denominator = 0
    for digit in range(at + 1, min(end, at + 4)):
        denominator = 10 * denominator + characters[digit] - 48
    return end if denominator in (2, 4, 8, 16, 32) else at


def count_end(at: int, stop: int, characters: Array, classes: Array) -> int:
    """Return the end of a number in digits or of up to four numerals: 12, 2.5, 三百."""
    if at < stop and classes[at] == DIGIT:
        return number_end(at, stop, characters, classes)
    end = at
    while end < stop and end < at + 4 and characters[end] in NUMERALS:
        end += 1
    return end


def counted_end(at: int, stop: int, characters: Array, classes: Array, units: PrefixTree) -> int:
    """Return the end of a numeral, or 第 and a number, with its unit: 三件套, 第2版."""
    number = at + 1 if characters[at] == ORDINAL else at
    end = count_end(number, stop, characters, classes)
    if end == number:
        return at
    unit = unit_end(end, stop, characters, units)
    return unit if unit > end else at


def glued(start: int, end: int, stop: int, classes: Array) -> bool:
    """Return whether a bare number looks like a part of a model code.

    It does before a letter and after a single one: 26a7 is not 26a and 7. After several letters it
    does not, so that 2600mah18650 is 2600mah and 18650.
    """
    if end < stop and classes[end] == LATIN:
        return True
    after_letter = start > 0 and classes[start - 1] == LATIN
    return after_letter and (start == 1 or classes[start - 2] != LATIN)


# --- offers and sizes ----------------------------------------------------------------------------


def offer_end(at: int, stop: int, characters: Array, classes: Array, units: PrefixTree) -> int:
    """Return the end of an offer without its last unit: 满199减20(元), 满3件8折, 买2送1."""
    if characters[at] not in OFFERS:
        return at
    end = count_end(at + 1, stop, characters, classes)
    if end == at + 1:
        return at
    end = unit_end(end, stop, characters, units)
    verb = end + 1 if end < stop and characters[end] in AT_ONCE else end
    promised = verb < stop and (
        characters[verb] in GIVEN
        or (characters[verb] == MINUS and characters[at] == FULL)  # 满300-40
    )
    if promised:
        last = count_end(verb + 1, stop, characters, classes)
        return last if last > verb + 1 else at
    last = count_end(end, stop, characters, classes)  # 满3件8折
    return last + 1 if end < last < stop and characters[last] == DISCOUNT else at


def size_end(at: int, stop: int, characters: Array, classes: Array) -> int:
    """Return the end of a clothing size: M, XXL, 3XL, S码."""
    number = run_end(at, DIGIT, stop, classes)
    end = number
    while end < stop and characters[end] == LETTER_X:
        end += 1
    if end == stop or characters[end] not in SIZE_LETTERS or at < number == end:
        return at
    end += 1
    if end < stop and (classes[end] == LATIN or classes[end] == DIGIT):
        return at
    return end + 1 if end < stop and characters[end] == SIZE else end


def sizes_end(at: int, stop: int, characters: Array, classes: Array) -> int:
    """Return the end of a size with 码 or of a range of sizes: XL码, M-3XL, S码-XXL."""
    end = size_end(at, stop, characters, classes)
    if end == at:
        return at
    if end + 1 < stop and characters[end] in RANGE_SIGNS:
        last = size_end(end + 1, stop, characters, classes)
        if last > end + 1:
            return last
    return end if characters[end - 1] == SIZE else at  # a lone M may be anything


def thread_end(at: int, stop: int, characters: Array, classes: Array, units: PrefixTree) -> int:
    """Return the end of the size of a thread or a round part: M8*30, φ10×2mm."""
    if characters[at] not in DIAMETERS or at + 1 >= stop or classes[at + 1] != DIGIT:
        return at
    end = number_end(at + 1, stop, characters, classes)
    times = end + 1 < stop and characters[end] in THREAD_SIGNS
    if not times or classes[end + 1] != DIGIT:
        return at
    end = number_end(end + 1, stop, characters, classes)
    return unit_end(end, stop, characters, units)


# --- everything that begins with a letter or a digit ----------------------------------------------


def pluses_end(at: int, stop: int, characters: Array, classes: Array) -> int:
    """Return the end of the plus signs after a word: PA+++, C++, A+ (not in SPF50+PA)."""
    end = at
    while end < stop and characters[end] == PLUS:
        end += 1
    last = end == stop or classes[end] not in (LATIN, DIGIT, OTHER)
    return end if end > at + 1 or last else at


def words(
    at: int, stop: int, characters: Array, classes: Array, found_ends: Array, found_kinds: Array
) -> int:
    """Find latin words and chains of them: l'oreal, coca-cola, a.o.smith; U型, C++."""
    count = 0
    end = run_end(at, LATIN, stop, classes)
    if end == at + 1 and end < stop and characters[end] in QUALIFIED:
        count = put(count, end + 1, MODEL, found_ends, found_kinds)
    while count < MAX_FOUND // 4:
        count = put(
            count, pluses_end(end, stop, characters, classes), LETTERS, found_ends, found_kinds
        )
        joint = end + 1 < stop and characters[end] in WORD_JOINTS
        if not joint or classes[end + 1] != LATIN:
            break
        end = run_end(end + 1, LATIN, stop, classes)
    return count


def amounts(
    at: int,
    stop: int,
    characters: Array,
    classes: Array,
    units: PrefixTree,
    found_ends: Array,
    found_kinds: Array,
) -> int:
    """Find numbers and quantities: 2.5, 8-12mm, 1/2寸, 100g*12袋, 120g/盒, 3月-6月.

    One round of the loop reads a number, its range and its unit; a times sign begins another.
    """
    count = 0
    end = number_end(at, stop, characters, classes)
    kind = NUMBER
    while count < MAX_FOUND // 2:
        count = put(count, end, kind, found_ends, found_kinds)
        for _ in range(MOST_JOINED):  # 8-12, 0-3-6, 1:64
            joined = end + 1 < stop and (characters[end] in RANGE_SIGNS or characters[end] == COLON)
            if joined and classes[end + 1] == DIGIT:
                end = number_end(end + 1, stop, characters, classes)
                count = put(count, end, kind, found_ends, found_kinds)
        end = fraction_end(end, stop, characters, classes)
        unit = unit_end(end, stop, characters, units)
        x_alone = unit == end + 1 and unit < stop and characters[end] == LETTER_X
        if x_alone and classes[unit] == DIGIT:
            unit = end  # 1.8x2.0m: x is a times sign, not a unit
        if unit > end:
            end = unit
            kind = QUANTITY
            count = put(count, end, kind, found_ends, found_kinds)
            sign = characters[end] if end + 1 < stop else 0
            if sign == SLASH and classes[end + 1] == OTHER:
                unit = unit_end(end + 1, stop, characters, units)
                if unit > end + 1:  # 120g/盒
                    end = unit
                    count = put(count, end, kind, found_ends, found_kinds)
            elif sign in RANGE_SIGNS and classes[end + 1] == DIGIT:
                last = number_end(end + 1, stop, characters, classes)
                unit = unit_end(last, stop, characters, units)
                if unit > last and characters[unit - 1] == characters[end - 1]:
                    end = unit  # 3月-6月: the units at both ends are the same
                    count = put(count, end, kind, found_ends, found_kinds)
        times = end + 1 < stop and characters[end] in TIMES_SIGNS
        if not times or classes[end + 1] != DIGIT:
            break
        end = number_end(end + 1, stop, characters, classes)
        kind = QUANTITY
    return count


def models(
    at: int,
    stop: int,
    characters: Array,
    classes: Array,
    count: int,
    found_ends: Array,
    found_kinds: Array,
) -> int:
    """Find letters and digits in one, after ``count`` matches: iphone15pro, 711632e1-91b80."""
    letters = 0
    digits = 0
    for _ in range(MAX_FOUND // 4):
        run = min(stop, at + LONGEST_MODEL)  # a longer run is no model, and this stays linear
        while at < run and (classes[at] == LATIN or classes[at] == DIGIT):
            if classes[at] == LATIN:
                letters += 1
            else:
                digits += 1
            at += 1
        if at < stop and at == run and (classes[at] == LATIN or classes[at] == DIGIT):
            break
        if digits > 0 and letters > 0:
            count = put(
                count, pluses_end(at, stop, characters, classes), MODEL, found_ends, found_kinds
            )
        joint = at + 1 < stop and characters[at] in MODEL_JOINTS
        if not joint or (classes[at + 1] != LATIN and classes[at + 1] != DIGIT):
            break
        at += 1
    return count


def scan(
    at: int,
    stop: int,
    characters: Array,
    classes: Array,
    units: PrefixTree,
    found_ends: Array,
    found_kinds: Array,
) -> int:
    """Find every match that begins at the letter or digit ``at``.

    Returns:
        The number of matches in ``found``.
    """
    if classes[at] == LATIN:
        count = words(at, stop, characters, classes, found_ends, found_kinds)
        end = thread_end(at, stop, characters, classes, units)
        if end > at:
            count = put(count, end, QUANTITY, found_ends, found_kinds)
    else:
        count = amounts(at, stop, characters, classes, units, found_ends, found_kinds)
    end = sizes_end(at, stop, characters, classes)
    if end > at:
        count = put(count, end, QUANTITY, found_ends, found_kinds)
    return models(at, stop, characters, classes, count, found_ends, found_kinds)
