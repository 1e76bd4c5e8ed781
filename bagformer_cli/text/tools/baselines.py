"""Longest matching over the same entries: what the segmenter is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bagformer_cli.text.characters import fold
from bagformer_cli.text.lexicon import Lexicon


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
    """Cut a title greedily: the longest entry that begins (or ends) here, else one token.

    Args:
        title: The title.
        tokens: Start and end of its tokens; an entry begins and ends at a token's edge.
        lexicon: The entries.
        direction: From the left, or from the right.
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
