"""Compare bags with marked spans, and with longest matching over the same entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bagformer_cli.text.bio import MarkedTitle
from bagformer_cli.text.characters import fold
from bagformer_cli.text.lexicon import Lexicon


class Span(Protocol):
    """Characters of a title from ``start`` to ``end``: a bag, for example."""

    @property
    def start(self) -> int:
        """First character."""

    @property
    def end(self) -> int:
        """One past the last."""


Miss = Literal["split", "inside", "shifted"]
"""Why a marked span is not a bag: it is made of several bags, it lies inside a larger one, or a bag
crosses one of its ends."""


@dataclass(slots=True)
class Quality:
    """Counts of bags compared with marked spans.

    Args:
        spans: Number of marked spans by label.
        exact: Number of those that one bag covers exactly, by label.
        bags: Number of bags with more than one character.
        crossing: Number of those with a marked boundary inside.
        missed: Number of all other spans by label and reason.
        examples: Title index, start and end of every missed span by reason, and of every crossing
            bag under ``"crossing"``.
    """

    spans: Counter[str] = field(default_factory=Counter)
    exact: Counter[str] = field(default_factory=Counter)
    bags: int = 0
    crossing: int = 0
    missed: Counter[tuple[str, Miss]] = field(default_factory=Counter)
    examples: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)

    @property
    def exact_share(self) -> float:
        """Share of marked spans that are exactly one bag, in [0, 1]."""
        return self.exact.total() / max(1, self.spans.total())

    @property
    def crossing_share(self) -> float:
        """Share of bags of several characters that cross a marked boundary, in [0, 1]."""
        return self.crossing / max(1, self.bags)


def measure(titles: Iterable[MarkedTitle], bags: Iterable[Iterable[Span]]) -> Quality:
    """Compare the bags of each title with its marked spans."""
    quality = Quality()
    for number, (title, found) in enumerate(zip(titles, bags, strict=True)):
        stretches = [(bag.start, bag.end) for bag in found]
        known = set(stretches)
        boundaries = {at for start, end, _ in title.spans for at in (start, end)}
        for start, end, label in title.spans:
            quality.spans[label] += 1
            if (start, end) in known:
                quality.exact[label] += 1
            else:
                reason = _reason(start, end, stretches)
                quality.missed[label, reason] += 1
                quality.examples.setdefault(reason, []).append((number, start, end))
        for start, end in stretches:
            if end - start > 1:
                quality.bags += 1
                if any(at in boundaries for at in range(start + 1, end)):
                    quality.crossing += 1
                    quality.examples.setdefault("crossing", []).append((number, start, end))
    return quality


def _reason(start: int, end: int, stretches: Sequence[tuple[int, int]]) -> Miss:
    if any(first <= start and end <= last for first, last in stretches):
        return "inside"
    edges = {at for stretch in stretches for at in stretch}
    return "split" if start in edges and end in edges else "shifted"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Characters ``start:end`` of a title."""

    start: int
    end: int


def longest_match(
    title: str,
    tokens: Sequence[tuple[int, int]],
    lexicon: Lexicon,
    direction: Literal["forward", "backward"],
) -> list[Stretch]:
    """Cut a title greedily by the longest entry at each position, or one token where none is.

    Args:
        title: The title.
        tokens: Start and end of its tokens. Entries begin and end at edges of tokens.
        lexicon: The entries.
        direction: Read from the left (an entry begins here) or from the right (it ends here).
    """
    starts = {start: i for i, (start, _) in enumerate(tokens)}
    ends = {end: i + 1 for i, (_, end) in enumerate(tokens)}
    longest_from = list(range(1, len(tokens) + 1))
    longest_to = {i + 1: i for i in range(len(tokens))}
    for start, end, _ in lexicon.arrays.entries.matches(fold(title)):
        first, last = starts.get(start), ends.get(end)
        if first is not None and last is not None:
            longest_from[first] = max(longest_from[first], last)
            longest_to[last] = min(longest_to[last], first)
    cuts: list[tuple[int, int]] = []
    if direction == "forward":
        at = 0
        while at < len(tokens):
            cuts.append((at, longest_from[at]))
            at = longest_from[at]
    else:
        at = len(tokens)
        while at > 0:
            cuts.append((longest_to[at], at))
            at = longest_to[at]
        cuts.reverse()
    return [Stretch(tokens[first][0], tokens[last - 1][1]) for first, last in cuts]
