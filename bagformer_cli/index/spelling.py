"""Suggest other words for a query of which the index has none, from the index's own terms.

query          连衣群 adidos
terms          连衣 群 adidos       a misspelt Chinese word falls apart
runs           连衣群  adidos       neighbours in Chinese characters are joined
suggestion     连衣裙  adidas       the nearest term of each run, by edit distance

A word of a dictionary is spelt rightly, even if no title has it. So it may only become a term that
contains it: 衣裙 leads to 连衣裙, but 蓝色 not to 橙色.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rapidfuzz import process
from rapidfuzz.distance import OSA

LONG = 5
"""Characters from which a word may have two errors instead of one."""
MOST_RUN = 12
"""Characters of a run at most; a longer one has no near term."""


def suggest(
    terms: Sequence[str], counts: Mapping[str, int], right: Collection[str] = ()
) -> str | None:
    """Return a query with its unknown words replaced by near terms; None if none is near.

    Args:
        terms: The terms of the query, in order.
        counts: The number of titles that have each term of the index.
        right: The terms that are words of a dictionary.
    """
    if any(term in counts for term in terms):
        return None
    found = [_nearest(run, counts, run in right) for run in _runs(terms)]
    return " ".join(word for word in found if word) or None


def _runs(terms: Sequence[str]) -> list[str]:
    """Join neighbours in Chinese characters; words in letters and digits stay alone."""
    runs: list[str] = []
    open_run = False
    for term in terms:
        chinese = not term.isascii()
        if open_run and chinese and len(runs[-1]) + len(term) <= MOST_RUN:
            runs[-1] += term
        else:
            runs.append(term)
        open_run = chinese
    return runs


def _nearest(word: str, counts: Mapping[str, int], right: bool) -> str | None:
    """Return the term with the fewest edits, among these the most frequent one."""
    if not 1 < len(word) <= MOST_RUN:
        return None
    words = [term for term in counts if word in term] if right else list(counts)
    most = 2 if len(word) >= LONG else 1
    near = process.extract(word, words, scorer=OSA.distance, score_cutoff=most, limit=None)
    near = [one for one in near if len(one[0]) > 1]
    return min(near, key=lambda one: (one[1], -counts[one[0]], one[0]))[0] if near else None
