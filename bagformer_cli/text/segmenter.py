"""Cut titles into entity bags.

    红色碎花连衣裙 2件装  →  红色 (lexicon, colour) │ 碎花 (lexicon, pattern) │ 连衣裙 (lexicon,
                            category) │ 2件装 (pattern, quantity)

1. Each character is folded to lower case and half width without accents, one for one, and gets a
   class such as letter, digit or space (:mod:`.characters`).
2. The automaton of the lexicon finds every entry (:mod:`.automaton`), and patterns find what no
   lexicon can list (:mod:`.patterns`).
3. A dynamic program takes the cheapest cover (:mod:`.cover`). The cost of a bag is -1000 ln p, p
   being how often the bag is expected among all bags, so the cheapest cover is the most probable
   one under a unigram model.

A title is cut by itself: no batch, order or neighbour changes its bags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.characters import class_table, codes_of, fold_table
from bagformer_cli.text.cover import GLUED, NAME_CHARACTER, PAIR, PackedBags, Titles
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

VERSION = "segmenter 3"
"""Part of the fingerprint. Change it with every rule or cost that changes bags."""

Source = Literal["lexicon", "pattern", "token"]

KIND_COST = {
    LEXICON: 0,
    TOKEN: 20_000,
    NUMBER: 3_000,
    QUANTITY: 2_750,
    MODEL: 11_000,
    LETTERS: 11_000,
    COMPOUND: 750,
    NEW_COMPOUND: 0,
    NAME: 3_750,
    COUNTED: 9_000,
    OFFER: 9_000,
    PAIR: 9_500,
    NAME_CHARACTER: 8_750,
    GLUED: 6_000,
}
"""Cost of a bag by what made it, in thousandths of a nat. The cost of an entry is in
:class:`.LexiconArrays`; a compound adds that of its head or suffix."""

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
        """Cut one title. Bags are in order, do not overlap and cover all but whitespace."""
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
        titles = Titles(fold_table()[codes], class_table()[codes], offsets)
        found = kernels(len(texts)).cover(titles, self.lexicon.arrays, self._kind_cost)
        return PackedBags(*found)

    @cached_property
    def fingerprint(self) -> str:
        """Identify rules and lexicon: equal fingerprints give equal bags."""
        return f"{VERSION} {self.lexicon.fingerprint}"

    @cached_property
    def _kind_cost(self) -> npt.NDArray[np.int64]:
        return np.array([KIND_COST[kind] for kind in range(len(KIND_COST))], np.int64)
