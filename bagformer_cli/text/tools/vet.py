"""Leave out mined words that are fragments, and describe the others.

A string may be frequent, coherent and free, and still be no word. These are left out:

    婴儿童        婴儿 and 儿童 overlap in it: a crossing of two known words
    手喷彩带彩条    holds two known words: a phrase
    安卓智能       a mined word and a known one side by side
    日本购         a place, brand, season or marketing word and one character more
    小胸          in titles it is mostly cut elsewhere: 小│胸罩

Each of the others gets the title in which it was seen first, and a type to be looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.automaton import Automaton
from bagformer_cli.text.characters import codes_of, fold_table
from bagformer_cli.text.costs import HEADLESS
from bagformer_cli.text.dictionaries import RULES
from bagformer_cli.text.jit import kernels
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.tools.check import chunks
from bagformer_cli.text.tools.mined import MinedWord

STABLE = 0.6
"""Share of a word's occurrences that must be cut at its edges."""

LEADING = 0.6
"""Share of a word's occurrences at the beginning of a title from which it looks like a brand."""

FEWEST_ALIKE = 3
"""Known words with the same ending that are needed to take their type."""


INHERITED = frozenset(
    {"category", "material", "pattern", "colour", "style", "function", "audience"}
)
"""Types that a word shares with the word it ends with: 小茶几 is what 茶几 is. Places and brands
are not among them."""


@dataclass(slots=True)
class _Seen:
    """Occurrences of a word in the titles, whether or not they are cut at its edges."""

    count: int = 0
    leading: int = 0
    example: str = ""


def vet(
    words: Sequence[MinedWord],
    titles: Callable[[], Iterable[str]],
    lexicon: Lexicon,
    *,
    progress: Progress = SILENT,
) -> list[MinedWord]:
    """Return the words that are no fragments, with an example and a type.

    Args:
        words: The mined words, the best first.
        titles: Returns all titles.
        lexicon: The known words.
        progress: Receives the progress.
    """
    known = {
        entry.word: entry.type or ""
        for entry in lexicon.entries()
        if len(entry.word) > 1 and entry.type not in RULES
    }
    mined = {word.word for word in words}
    kept = [word for word in words if not is_fragment(word.word, known, mined)]
    seen = _occurrences([word.word for word in kept], titles, progress)
    by_ending = _types_by_ending(known)
    return [
        replace(
            word,
            example=seen[word.word].example,
            type=guess_type(word.word, known, by_ending) or _by_place(seen[word.word]),
        )
        for word in kept
        if word.count >= STABLE * seen[word.word].count
    ]


def is_fragment(word: str, known: Mapping[str, str], mined: Container[str]) -> bool:
    """Return whether a string is made of known words without being one.

    >>> is_fragment("婴儿童", {"婴儿": "", "儿童": ""}, set())
    True
    """
    length = len(word)
    inside = [
        (start, end)
        for end in range(2, length + 1)
        for start in range(end - 1)
        if word[start:end] in known
    ]
    prefixes = [end for start, end in inside if start == 0 and end < length]
    suffixes = [start for start, end in inside if end == length and start > 0]
    if any(start < end for end in prefixes for start in suffixes):
        return True  # they overlap
    count = last = 0
    for start, end in sorted(inside, key=lambda span: span[1]):
        if start >= last:
            count, last = count + 1, end
    if count > 1:
        return True  # a phrase
    rest_of_name = (word[:-1], word[1:]) if length > 2 else ()
    if any(known.get(part) in HEADLESS for part in rest_of_name):
        return True
    cuts = ((word[:cut], word[cut:]) for cut in range(2, length - 1))
    return any(all(part in known or part in mined for part in parts) for parts in cuts)


def _occurrences(
    words: Sequence[str], titles: Callable[[], Iterable[str]], progress: Progress
) -> dict[str, _Seen]:
    seen = {word: _Seen() for word in words}
    if not words:
        return seen
    automaton = Automaton.build(words)
    with progress.task(tr("Looking for examples"), amount=tr("{n} titles", n="{n}")) as task:
        for chunk in chunks(titles()):
            codes, offsets = codes_of(chunk)
            compiled = kernels(len(chunk), len(codes))
            nodes = compiled.read(
                fold_table()[codes], offsets, automaton.edges, automaton.children,
                automaton.roots, automaton.failure,
            )  # fmt: skip
            ends = np.flatnonzero((automaton.value[nodes] >= 0) | (automaton.output[nodes] > 0))
            for end in ends.tolist():
                number = int(np.searchsorted(offsets, end, "right")) - 1
                node = int(nodes[end])
                match = node if automaton.value[node] >= 0 else int(automaton.output[node])
                while match:
                    found = seen[words[int(automaton.value[match])]]
                    found.count += 1
                    found.leading += end + 1 - int(automaton.depth[match]) == offsets[number]
                    found.example = found.example or chunk[number]
                    match = int(automaton.output[match])
            task.advance(len(chunk))
    return seen


def _types_by_ending(known: Mapping[str, str]) -> dict[str, Counter[str]]:
    endings: dict[str, Counter[str]] = defaultdict(Counter)
    for word, kind in known.items():
        if kind:
            for length in (1, 2):
                endings[word[-length:]][kind] += 1
    return endings


def guess_type(
    word: str, known: Mapping[str, str], by_ending: Mapping[str, Counter[str]]
) -> str | None:
    """Return the type of the known word that a word ends with, or of most with its ending.

    >>> guess_type("小茶几", {"茶几": "category"}, {})
    'category'
    """
    for start in range(1, len(word) - 1):
        if (kind := known.get(word[start:])) in INHERITED:
            return kind
    for length in (2, 1):
        types = by_ending.get(word[-length:], Counter())
        for kind, count in types.most_common(1):
            if count >= FEWEST_ALIKE and 2 * count > types.total() and kind in INHERITED:
                return kind
    return None


def _by_place(seen: _Seen) -> str | None:
    return "brand" if seen.leading >= LEADING * seen.count else None
