"""Costs of bags, and the costs that words of a dictionary have.

A cost is -1000 ln p, p being how often the bag is expected among all bags. An entry that is
expected w times in a million words costs ``-1000 ln(w / 1e6)``, plus what its length adds
(:func:`priors`):

    连衣裙    w = 8      11,736 + 0        three ideographs are usual
    裙子      w = 8      11,736 - 1,750    two are more so
    碎花连衣裙 w = 8      11,736 + 5,000    five are rare

:func:`raise_entries` makes the words of a user's own dictionary cheaper than any cover of their
characters by other bags, so that 空军一号 is one bag although 空军 and 一号 are frequent words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.characters import class_table, codes_of
from bagformer_cli.text.cover import GLUED, NAME_CHARACTER, PAIR
from bagformer_cli.text.cover_arrays import (
    HEAD_APART,
    TAKES_HEAD,
    TAKES_SUFFIX,
    LexiconArrays,
    Titles,
)
from bagformer_cli.text.jit import kernels
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

_KIND_COST = {
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
KIND_COST = np.array([_KIND_COST[kind] for kind in range(len(_KIND_COST))], np.int64)
"""Cost of a bag by what made it. An entry has its own cost; a compound adds that of its head or
suffix."""

NO_CUTS = np.zeros(0, np.int32)
"""The boundaries between bags cost nothing."""

SINGLE_COST, PAIR_COST, LONGER_COST = 7000, -1750, 2500
"""Costs by length: of one untyped character, of two, of each beyond three."""

HEADLESS = frozenset({"place", "brand", "selling", "season"})
"""Types that take no head: 北京 + 机 is not a product."""

APART = frozenset({"colour", "pattern"})
"""Types that stay a bag before a head, as before a longer product: 蓝色│包 like 蓝色│双肩包. A
material with a head is the name of a product: 棉布裙."""

SUFFIXLESS = frozenset({"category"})
"""Types that take no suffix: 甜品 + 用 are two bags."""

MARGIN = 6_000
"""How much cheaper a word of a user's dictionary is than its parts at least. A larger value makes
it win more often against neighbours that overlap it."""

OUT_OF_REACH = 1 << 30
"""Cost of an entry that no cover may use."""


def priors(
    words: Sequence[str], types: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
    """Return the cost that a word's length adds, and whether a head or a suffix may follow it.

    Most words have two or three ideographs. A head or suffix may follow two to four ideographs,
    unless the type of the word forbids it (HEADLESS, SUFFIXLESS).
    """
    codes, offsets = codes_of(words)
    wide = np.concatenate([[0], np.cumsum(codes >= 128)])
    ideographs = np.concatenate([[0], np.cumsum((codes >= 0x3400) & (codes <= 0x9FFF))])
    lengths, length = np.diff(offsets), np.diff(wide[offsets])
    cost = np.select(
        [length > 3, (length < lengths) | (length == 3), length == 2, types == ""],
        [LONGER_COST * (length - 3), 0, PAIR_COST, SINGLE_COST],
    )
    pure = np.diff(ideographs[offsets]) == lengths
    follows = TAKES_HEAD * ~np.isin(types, list(HEADLESS))
    follows = follows + TAKES_SUFFIX * ~np.isin(types, list(SUFFIXLESS))
    follows = follows + HEAD_APART * np.isin(types, list(APART))
    return cost, np.where(pure & (lengths >= 2) & (lengths <= 4), follows, 0).astype(np.int8)


def cost_of(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cost of words with these weights, before what their length adds."""
    costs: npt.NDArray[np.float64] = 1000.0 * (np.log(1e6) - np.log(weights))
    return costs


def weight_of(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weights of words that cost this much, before what their length adds."""
    weights: npt.NDArray[np.float64] = np.exp(np.log(1e6) - costs / 1000.0)
    return weights


def raise_entries(
    words: Sequence[str], chosen: npt.NDArray[np.int64], lexicon: LexiconArrays
) -> npt.NDArray[np.int32]:
    """Make chosen entries cheaper than every cover of their characters by other bags.

    Parts of a word are shorter than it, so the words are taken by length, the shortest first: when
    a word's turn comes, the costs of its parts are final.

    Args:
        words: [entries], folded.
        chosen: Indices of the entries that may get cheaper.
        lexicon: All entries with their present costs.

    Returns:
        [entries] the new costs.
    """
    costs = lexicon.cost.copy()
    lengths = np.fromiter((len(words[i]) for i in chosen), np.int64, len(chosen))
    for length in np.unique(lengths):
        group = chosen[lengths == length]
        own = costs[group]
        costs[group] = OUT_OF_REACH
        codes, offsets = codes_of([words[i] for i in group])
        titles = Titles(codes, class_table()[codes], offsets)
        parts = kernels(len(chosen)).cover(titles, lexicon._replace(cost=costs), KIND_COST, NO_CUTS)
        cheapest = np.maximum(1, parts.costs - MARGIN)
        costs[group] = np.minimum(own, cheapest)
    return costs
