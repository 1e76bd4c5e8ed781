"""A title's best cover by bags: dictionary entries, patterns, single characters.

All matches of the dictionary and of the patterns for what no dictionary can list compete; a
dynamic program takes the cheapest sequence (:mod:`.cover`). A cost is -ln of how often a
bag is expected, in thousandths, so the cover is the most probable one under a unigram model.
A matter of one title alone: no batch, order or neighbour changes it.
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
"""Changes whenever the rules or costs below change what comes out."""

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
"""What a bag costs by what made it (a dictionary entry has its own cost, a compound its parts')."""

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
    """A piece of a title that counts as one thing.

    Args:
        start: First character, counted in the title.
        end: One past the last character.
        text: ``title[start:end]``.
        source: What found it: the dictionary, a pattern, or nothing (a single token).
        type: The dictionary's or the pattern's word for what it is, None where there is none.
    """

    start: int
    end: int
    text: str
    source: Source
    type: str | None


class Segmenter:
    """Cuts titles into bags by a lexicon.

    Args:
        lexicon: The entries; :meth:`Lexicon.load`.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.types = lexicon.types

    def segment(self, text: str) -> list[Bag]:
        """The bags of one title: in order, not overlapping, together all but its whitespace."""
        return self.unpack([text], self.segment_batch([text]))[0]

    def unpack(self, texts: Sequence[str], packed: PackedBags) -> list[list[Bag]]:
        """The bags of every title as objects."""
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
        """Source and type of a bag by what is packed of it."""
        if kind == TOKEN:
            return "token", None
        if kind == LEXICON:
            return "lexicon", self.types[number] if number >= 0 else None
        return "pattern", PATTERN_TYPES[kind]

    def segment_batch(self, texts: Sequence[str]) -> PackedBags:
        """The bags of many titles, packed; each as if it were alone."""
        codes, offsets = codes_of(texts)
        titles = Titles(fold_table()[codes], class_table()[codes], offsets)
        found = kernels(len(texts)).cover(titles, self.lexicon.arrays, self._kind_cost)
        return PackedBags(*found)

    @cached_property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal bags."""
        return f"{VERSION} {self.lexicon.fingerprint}"

    @cached_property
    def _kind_cost(self) -> npt.NDArray[np.int64]:
        return np.array([KIND_COST[kind] for kind in range(len(KIND_COST))], np.int64)
