"""Find new dictionary entries in a file of titles.

Candidates are the strings that the segmenter does not know: ideographs that no entry explains, and
neighbouring bags of which one is a single character or such a string (two entries side by side
stay two bags). A candidate becomes an entry if it is frequent, if its parts occur together more
often than independent ones would (pointwise mutual information), if its neighbours vary
(branching entropy), and if it is no fragment of known words (:mod:`.vet`).

The file is read three times, and memory does not grow with it: the first pass counts every string
in a count-min sketch, the second counts the neighbours of the candidates that were frequent enough,
the third looks for all occurrences of those that passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.characters import (
    DIGIT,
    LATIN,
    PUNCT,
    SPACE,
    class_table,
    codes_of,
    fold_table,
)
from bagformer_cli.text.patterns import LEXICON, NAME, TOKEN
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.tools.check import chunks
from bagformer_cli.text.tools.count_min import CountMinSketch, top_bits
from bagformer_cli.text.tools.mined import MinedWord
from bagformer_cli.text.tools.vet import vet

BUCKET_BITS = 5
BUCKETS = 1 << BUCKET_BITS
"""Neighbours are counted in 32 buckets by hash: the entropy is at most ln 32."""

LONGEST = 8
"""Characters of a candidate at most."""

PIECES = 3
"""Bags of a candidate at most."""

_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True, slots=True)
class MiningLimits:
    """The limits for candidates.

    Args:
        count: Minimum number of occurrences of an entry.
        cohesion: Least cohesion, in nats.
        freedom: Least freedom, in nats.
        candidates: Most candidates whose neighbours are counted. If there are more, the rarest are
            left out. One takes about 400 bytes.
    """

    count: int = 5
    cohesion: float = 4.0
    freedom: float = 0.9
    candidates: int = 500_000


@dataclass(frozen=True, slots=True)
class Mined:
    """The result of mining.

    Args:
        words: The new words, the best first.
        titles: Number of titles.
        pieces: Number of their bags.
    """

    words: list[MinedWord]
    titles: int
    pieces: int


@dataclass(slots=True)
class _Pieces:
    """Candidates (and their parts) of a chunk of titles, as arrays over occurrences.

    Args:
        hashes: [K] uint64, of the characters.
        starts: [K], index into ``folded``.
        ends: [K].
        left: [K] uint64, hash of the bag before; 0 at an edge of the title.
        right: [K] uint64, hash of the bag after; 0 at an edge of the title.
        first: [K] uint64, hash of the first bag in it.
        rest: [K] uint64, hash of the rest; equal to ``first`` in a single bag.
        new: [K] bool, whether it may become an entry.
    """

    hashes: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    left: npt.NDArray[np.uint64]
    right: npt.NDArray[np.uint64]
    first: npt.NDArray[np.uint64]
    rest: npt.NDArray[np.uint64]
    new: npt.NDArray[np.bool_]


def mine(
    titles: Callable[[], Iterable[str]],
    segmenter: Segmenter,
    limits: MiningLimits = MiningLimits(),
    *,
    progress: Progress = SILENT,
) -> Mined:
    """Find words that a lexicon lacks.

    Args:
        titles: Returns all titles each time it is called (it is called three times).
        segmenter: The segmenter with the lexicon to be extended.
        limits: The limits for candidates.
        progress: Receives the progress.

    Returns:
        The words. The same titles give the same words.
    """
    sketch = CountMinSketch()
    pieces_seen = titles_seen = 0
    with progress.task(tr("Counting"), amount=tr("{n} titles", n="{n}")) as task:
        for chunk in chunks(titles()):
            pieces, _ = _pieces(chunk, segmenter)
            sketch.add(pieces.hashes)
            single = pieces.first == pieces.rest
            pieces_seen += int(single.sum())
            titles_seen += len(chunk)
            task.advance(len(chunk))
    least = _least_count(sketch, limits)
    if least > limits.count:
        progress.warn(
            tr(
                "There are more than {n} candidates: only those that occur {least} times are "
                "followed.",
                n=limits.candidates,
                least=least,
            )
        )
    followed = _Followed()
    with progress.task(
        tr("Following candidates"), total=titles_seen, amount=tr("{n} titles", n="{n}")
    ) as task:
        for chunk in chunks(titles()):
            pieces, folded = _pieces(chunk, segmenter)
            followed.add(pieces, folded, sketch[pieces.hashes] >= least)
            task.advance(len(chunk))
    words = followed.words(sketch, max(1, pieces_seen), limits)
    words = vet(words, titles, segmenter.lexicon, progress=progress)
    return Mined(words, titles_seen, pieces_seen)


def _least_count(sketch: CountMinSketch, limits: MiningLimits) -> int:
    """The least count that leaves at most ``limits.candidates`` cells."""
    counts = np.sort(sketch.counts[0])[::-1]
    return max(limits.count, int(counts[min(limits.candidates, len(counts) - 1)]) + 1)


def _pieces(chunk: Sequence[str], segmenter: Segmenter) -> tuple[_Pieces, npt.NDArray[np.uint32]]:
    """All bags and all short runs of neighbouring bags of the titles, and their characters."""
    packed = segmenter.segment_batch(chunk)
    codes, offsets = codes_of(chunk)
    folded = fold_table()[codes]
    title = np.repeat(np.arange(len(chunk)), np.diff(packed.offsets))
    starts = packed.starts + offsets[title]
    ends = packed.ends + offsets[title]
    sums, powers = _prefix_hashes(folded)

    def hashes(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        return (sums[last] - sums[first]) * powers[first]

    classes = class_table()[codes]
    plain = ~np.isin(classes, (SPACE, PUNCT, LATIN, DIGIT))
    solid = np.concatenate([[0], np.cumsum(plain)])
    wordy = solid[ends] - solid[starts] == ends - starts  # ideographs only
    own = hashes(starts, ends)
    count = len(starts)
    untyped = (ends - starts == 1) & (packed.types < 0)
    unsure = (packed.kinds == NAME) | (packed.kinds == TOKEN) | untyped
    unsure_before = np.concatenate([[0], np.cumsum(unsure)])
    parts: list[tuple[npt.NDArray[np.int64], int]] = []
    for width in range(1, min(PIECES, count) + 1):
        heads = np.arange(count - width + 1)
        tails = heads + width - 1
        good = (title[heads] == title[tails]) & (ends[tails] - starts[heads] <= LONGEST)
        for step in range(width):
            good &= wordy[heads + step]
            if step:
                good &= ends[heads + step - 1] == starts[heads + step]
        parts.append((heads[good], width))
    if not parts:
        parts.append((np.zeros(0, np.int64), 1))
    at = np.concatenate([positions for positions, _ in parts])
    widths = np.concatenate([np.full(len(positions), width) for positions, width in parts])
    last = at + widths - 1
    joined = hashes(starts[at], ends[last])
    edge = np.zeros(1, np.uint64)
    before = np.concatenate([edge, own])[at] * _same(title, at, -1)
    behind = np.concatenate([own, edge])[last + 1] * _same(title, last, 1)
    rest = np.where(widths > 1, hashes(ends[at], ends[last]), joined)
    unknown = unsure_before[last + 1] - unsure_before[at] > 0
    lexical = (widths == 1) & (packed.kinds[at] == LEXICON)
    new = unknown & ~lexical & (ends[last] - starts[at] >= 2)
    first = np.where(widths > 1, own[at], joined)
    return _Pieces(joined, starts[at], ends[last], before, behind, first, rest, new), folded


def _same(
    title: npt.NDArray[np.int64], at: npt.NDArray[np.int64], step: int
) -> npt.NDArray[np.uint64]:
    """Return 1 where the bag ``step`` further is in the same title, else 0."""
    other = at + step
    inside = (other >= 0) & (other < len(title))
    same: npt.NDArray[np.uint64] = (
        inside & (title[np.clip(other, 0, max(0, len(title) - 1))] == title[at])
    ).astype(np.uint64)
    return same


def _prefix_hashes(
    folded: npt.NDArray[np.uint32],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return prefix sums of a polynomial hash, and factors that remove the position from it."""
    n = len(folded)
    forward = np.full(n + 1, _BASE, np.uint64)
    backward = np.full(n + 1, _INVERSE, np.uint64)
    forward[0] = backward[0] = 1
    np.multiply.accumulate(forward, out=forward)
    np.multiply.accumulate(backward, out=backward)
    sums = np.zeros(n + 1, np.uint64)
    mixed = (folded.astype(np.uint64) + np.uint64(1)) * np.uint64(0xC4CEB9FE1A85EC53)
    np.cumsum(mixed * forward[:-1], out=sums[1:], dtype=np.uint64)
    return sums, backward


class _Followed:
    """Exact counts and neighbours of the candidates that are followed."""

    def __init__(self) -> None:
        self.hashes = np.zeros(0, np.uint64)  # sorted
        self.counts = np.zeros(0, np.int64)
        self.left = np.zeros((0, BUCKETS + 1), np.int32)  # the last: at an edge of the title
        self.right = np.zeros((0, BUCKETS + 1), np.int32)
        self.first = np.zeros(0, np.uint64)
        self.rest = np.zeros(0, np.uint64)
        self.texts: list[str] = []
        self.order = np.zeros(0, np.int64)  # index of the text of each hash

    def add(
        self, pieces: _Pieces, folded: npt.NDArray[np.uint32], frequent: npt.NDArray[np.bool_]
    ) -> None:
        chosen = np.flatnonzero(frequent & pieces.new)
        if not len(chosen):
            return
        self._admit(pieces, folded, chosen)
        at = np.searchsorted(self.hashes, pieces.hashes[chosen])
        np.add.at(self.counts, at, 1)
        alone = (pieces.left[chosen] == 0) & (pieces.right[chosen] == 0)  # a whole title
        for table, neighbours in ((self.left, pieces.left), (self.right, pieces.right)):
            beside = neighbours[chosen]
            buckets = top_bits(beside, BUCKET_BITS)
            np.add.at(table, (at, np.where((beside == 0) & ~alone, BUCKETS, buckets)), 1)

    def _admit(
        self, pieces: _Pieces, folded: npt.NDArray[np.uint32], chosen: npt.NDArray[np.int64]
    ) -> None:
        fresh, where = np.unique(pieces.hashes[chosen], return_index=True)
        unknown = ~np.isin(fresh, self.hashes)
        fresh, where = fresh[unknown], chosen[where[unknown]]
        if not len(fresh):
            return
        numbers = np.arange(len(self.texts), len(self.texts) + len(fresh))
        for piece in where:
            word = folded[pieces.starts[piece] : pieces.ends[piece]]
            self.texts.append(word.astype("<u4").tobytes().decode("utf-32-le"))
        hashes = np.concatenate([self.hashes, fresh])
        order = np.argsort(hashes, kind="stable")
        empty = np.zeros((len(fresh), BUCKETS + 1), np.int32)
        self.hashes = hashes[order]
        self.counts = np.concatenate([self.counts, np.zeros(len(fresh), np.int64)])[order]
        self.left = np.concatenate([self.left, empty])[order]
        self.right = np.concatenate([self.right, empty])[order]
        self.first = np.concatenate([self.first, pieces.first[where]])[order]
        self.rest = np.concatenate([self.rest, pieces.rest[where]])[order]
        self.order = np.concatenate([self.order, numbers])[order]

    def words(self, sketch: CountMinSketch, total: int, limits: MiningLimits) -> list[MinedWord]:
        """Return the candidates that reach the limits, the best first."""
        expected = sketch[self.first].astype(float) * sketch[self.rest] / total
        cohesion = np.log(np.maximum(self.counts, 1) / np.maximum(expected, 1e-9))
        cohesion[self.first == self.rest] = math.inf  # one unknown run: no parts to fall into
        freedom = np.minimum(_entropy(self.left), _entropy(self.right))
        good = (
            (self.counts >= limits.count)
            & (cohesion >= limits.cohesion)
            & (freedom >= limits.freedom)
        )
        ceiling = math.log(total)
        found = [
            MinedWord(
                self.texts[self.order[i]],
                int(self.counts[i]),
                float(min(cohesion[i], ceiling)),
                float(freedom[i]),
            )
            for i in np.flatnonzero(good)
        ]
        return _without_parts(sorted(found, key=lambda word: (-word.score, word.word)))


def _entropy(table: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the entropy of each row, in nats. Title edges are spread over all buckets."""
    spread = table[:, :-1] + table[:, -1:] / BUCKETS
    shares = spread / np.maximum(1, spread.sum(1, keepdims=True))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: npt.NDArray[np.float64] = -(shares * logs).sum(1)
    return entropy


def _without_parts(words: list[MinedWord]) -> list[MinedWord]:
    """Drop a word that nearly always stands inside one longer mined word."""
    inside: dict[str, int] = {}
    for word in words:
        text = word.word
        for start in range(len(text)):
            for end in range(start + 2, len(text) + 1):
                if end - start < len(text):
                    part = text[start:end]
                    inside[part] = max(inside.get(part, 0), word.count)
    return [word for word in words if inside.get(word.word, 0) < 0.8 * word.count]
