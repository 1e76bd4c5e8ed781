"""Cut titles into entity bags.

    红色碎花连衣裙 2件装  →  红色 (lexicon, colour) │ 碎花 (lexicon, pattern) │ 连衣裙 (lexicon,
                            category) │ 2件装 (pattern, quantity)

1. Each character is folded to lower case and half width without accents, one for one, and gets a
   class such as letter, digit or space (:mod:`.characters`). Invisible characters are taken out.
2. The automaton of the lexicon finds every entry (:mod:`.automaton`), and patterns find what no
   lexicon can list (:mod:`.patterns`).
3. A dynamic program takes the cheapest cover (:mod:`.cover`). The cost of a bag is -1000 ln p, p
   being how often the bag is expected among all bags, so the cheapest cover is the most probable
   one under a unigram model.

4. Where boundaries were learned (:mod:`.boundaries`), they look at this cover and at the characters
   and say what a cut costs at each boundary; the cheapest cover with these costs is taken.

A title is cut by itself: no batch, order or neighbour changes its bags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.characters import INVISIBLE, class_table, codes_of, fold_table
from bagformer_cli.text.costs import KIND_COST, NO_CUTS
from bagformer_cli.text.cover_arrays import PackedBags, Titles
from bagformer_cli.text.jit import kernels
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.patterns import (
    COMPOUND,
    COUNTED,
    LETTERS,
    LEXICON,
    MODEL,
    NAME,
    NEW_COMPOUND,
    NUMBER,
    OFFER,
    QUANTITY,
    TOKEN,
)

VERSION = "segmenter 5"
"""Part of the fingerprint. Change it with every rule or cost that changes bags."""

Source = Literal["lexicon", "pattern", "token"]

PATTERN_TYPES = {
    NUMBER: "number",
    QUANTITY: "quantity",
    MODEL: "model",
    LETTERS: "latin",
    COMPOUND: "compound",
    NEW_COMPOUND: "compound",
    NAME: "name",
    COUNTED: "quantity",
    OFFER: "selling",
}


@dataclass(frozen=True, slots=True)
class Bag:
    """A part of a title that stands for one entity, or a single character.

    Args:
        start: First character, counted in the title.
        end: One past the last character.
        text: ``title[start:end]``.
        source: lexicon (an entry), pattern, or token (a character that neither explains).
        type: Type of the entry or name of the pattern (category, quantity, …). None: it has none.
    """

    start: int
    end: int
    text: str
    source: Source
    type: str | None


class Segmenter:
    """Cuts titles into bags by a lexicon.

    Args:
        lexicon: The entries (:meth:`.Lexicon.load`).

    Example:
        >>> from bagformer_cli.text.lexicon import Lexicon
        >>> segmenter = Segmenter(Lexicon.load())
        >>> [bag.text for bag in segmenter.segment("红色碎花连衣裙 2件装")]
        ['红色', '碎花', '连衣裙', '2件装']
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.types = lexicon.types

    def segment(self, text: str) -> list[Bag]:
        """Cut one title.

        Bags are in order and do not overlap. They cover everything but whitespace, and invisible
        characters after whitespace or at the beginning.
        """
        return self.unpack([text], self.segment_batch([text]))[0]

    def unpack(self, texts: Sequence[str], packed: PackedBags) -> list[list[Bag]]:
        """Make objects of packed bags, a list for each title."""
        offsets = packed.offsets.tolist()
        rows = list(
            zip(
                packed.starts.tolist(),
                packed.ends.tolist(),
                packed.kinds.tolist(),
                packed.types.tolist(),
                strict=True,
            )
        )
        return [
            [
                Bag(start, end, text[start:end], *self.describe(kind, number))
                for start, end, kind, number in rows[offsets[i] : offsets[i + 1]]
            ]
            for i, text in enumerate(texts)
        ]

    def describe(self, kind: int, number: int) -> tuple[Source, str | None]:
        """Return source and type of a packed bag from its kind and type number."""
        if kind == TOKEN:
            return "token", None
        if kind == LEXICON:
            return "lexicon", self.types[number] if number >= 0 else None
        return "pattern", PATTERN_TYPES[kind]

    def segment_batch(self, texts: Sequence[str]) -> PackedBags:
        """Cut many titles. The bags of each are those it has alone."""
        codes, offsets = codes_of(texts)
        classes = class_table()[codes]
        hidden = classes == INVISIBLE
        if not hidden.any():
            return self._cover(Titles(fold_table()[codes], classes, offsets))
        kept = np.flatnonzero(~hidden)
        before = np.concatenate([[0], np.cumsum(~hidden)])[offsets]
        seen = Titles(fold_table()[codes[kept]], classes[kept], before)
        return _with_invisible(self._cover(seen), kept, before, offsets)

    def _cover(self, titles: Titles) -> PackedBags:
        kernel = kernels(len(titles.offsets) - 1, len(titles.characters))
        arrays, boundaries = self.lexicon.arrays, self.lexicon.boundaries
        found = PackedBags(*kernel.cover(titles, arrays, KIND_COST, NO_CUTS))
        if boundaries is None:
            return found
        cuts = kernel.boundary_costs(titles, found, boundaries.costs)
        return PackedBags(*kernel.cover(titles, arrays, KIND_COST, cuts))

    @cached_property
    def fingerprint(self) -> str:
        """Identify rules and lexicon: equal fingerprints give equal bags."""
        return f"{VERSION} {self.lexicon.fingerprint}"


def _with_invisible(
    bags: PackedBags,
    kept: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
) -> PackedBags:
    """Count bags in the characters of the given titles, the invisible ones included.

    An invisible character belongs to the bag before it; after a space or at the beginning of a
    title it belongs to none.

    Args:
        bags: The bags, counted in the titles without invisible characters.
        kept: The position of every character that can be seen, over all titles.
        before: [n + 1] where each title begins in ``kept``.
        offsets: [n + 1] where each title begins.
    """
    title = np.repeat(np.arange(len(offsets) - 1), np.diff(bags.offsets))
    begin = offsets[title]
    starts = kept[bags.starts + before[title]] - begin
    following = np.append(kept, offsets[-1])[bags.ends + before[title]]
    ends = np.minimum(following, offsets[title + 1]) - begin
    return bags._replace(starts=starts.astype(np.int32), ends=ends.astype(np.int32))
