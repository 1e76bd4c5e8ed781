"""The arrays that the kernels of the segmenter read and return: titles, a lexicon, bags.

They are flat, without an object for a title or a bag, because compiled loops follow them::

    titles        红色裙 / 蓝裙           n = 2
    characters    红 色 裙 蓝 裙          offsets  0 3 5       titles, end to end
    bags          红色│裙   蓝│裙         offsets  0 2 4
    starts        0  2      0  1          counted in the title of each bag
    ends          2  3      1  2
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.automaton import Automaton, PrefixTree

TAKES_SUFFIX, TAKES_HEAD, HEAD_APART, OWN = 1, 2, 4, 8
"""Bits of ``LexiconArrays.follows``. HEAD_APART: the entry and its head are two bags (蓝色│包), as
the entry and a longer product are (蓝色│双肩包); they cost what one bag would cost. OWN: the entry
is a word of the user, which learned boundaries do not take apart (:func:`.cover.own_credit`)."""


class Titles(NamedTuple):
    """Titles without invisible characters, end to end.

    Args:
        characters: [C] uint32, folded code points.
        classes: [C] uint8, their classes (:func:`.characters.class_table`).
        offsets: [n + 1] int64; title i is ``characters[offsets[i]:offsets[i + 1]]``.
    """

    characters: npt.NDArray[np.uint32]
    classes: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]


class LexiconArrays(NamedTuple):
    """The part of a lexicon that the kernel reads.

    Args:
        entries: The automaton over the entries.
        cost: [entries] int32, at least 1.
        type: [entries] int16, index of an entry's type, -1: it has none.
        follows: [entries] int8, whether a head or a suffix may follow, and whether the entry is a
            word of the user: TAKES_HEAD, TAKES_SUFFIX, HEAD_APART, OWN.
        units: The prefix tree over the units.
        head: [0x110000] int32, cost of a character as a head, 0: it is none.
        suffix: [0x110000] int32, cost of a character as a suffix, 0: it is none.
    """

    entries: Automaton
    cost: npt.NDArray[np.int32]
    type: npt.NDArray[np.int16]
    follows: npt.NDArray[np.int8]
    units: PrefixTree
    head: npt.NDArray[np.int32]
    suffix: npt.NDArray[np.int32]


class PackedBags(NamedTuple):
    """Bags of n titles, end to end, by characters.

    Args:
        starts: [G] int32, first character in its own title.
        ends: [G] int32, one past the last.
        kinds: [G] int8, what made the bag (the constants in :mod:`.patterns`).
        types: [G] int16, index into :attr:`.Segmenter.types`, -1: none.
        offsets: [n + 1] int64; title i has the bags ``offsets[i]:offsets[i + 1]``.
        costs: [n] int64, the cost of each title's cover.
    """

    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int8]
    types: npt.NDArray[np.int16]
    offsets: npt.NDArray[np.int64]
    costs: npt.NDArray[np.int64]
