"""The kernel of BERT's tokenizer: code points to ids of the longest pieces, with their positions.

A word is cut from the left into the longest pieces that the vocabulary holds; every piece but the
first is written with ## there. With usb, ##c and the ideograph 线:

    characters   U  S  B  C  线
    action       W  W  W  W  I      WORD: part of a word. ISOLATED: a word by itself
    becomes      u  s  b  c  线     lower case, without accents
    ids          usb    ##c  线
    starts       0      3    4
    ends         3      4    5

Dropped characters (controls, combining accents) belong to no piece, so that the pieces of a word
need not be neighbours in the text: ``letters`` and ``positions`` hold what is left of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.automaton import Array, PrefixTree, child
from bagformer_cli.text.characters import DROP, ISOLATED, UNSURE, WHITE

LONGEST_WORD = 100
"""A longer word is one [UNK], as in BERT's tokenizer."""

BRACKET = ord("[")


class PackedTokens(NamedTuple):
    """Tokens of n texts, end to end, without special tokens.

    Args:
        ids: [T] int32.
        starts: [T] int32, first character of each token in its own text.
        ends: [T] int32, one past its last character.
        offsets: [n + 1] int64; text i has the tokens ``offsets[i]:offsets[i + 1]``.
    """

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


class Vocabulary(NamedTuple):
    """The tables of the kernel.

    Args:
        action: [0x110000] uint8, from :func:`.characters.wordpiece_tables`: DROP, WHITE, …
        becomes: [0x110000] uint32, its form in the vocabulary.
        pieces: The prefix tree over the vocabulary; a piece's value is its id.
        inner: The node of ## in ``pieces``, 0: no piece begins with it.
        unknown: The id of [UNK].
    """

    action: npt.NDArray[np.uint8]
    becomes: npt.NDArray[np.uint32]
    pieces: PrefixTree
    inner: int
    unknown: int


def wordpiece(
    codes: Array, offsets: Array, vocabulary: Vocabulary
) -> tuple[PackedTokens, npt.NDArray[np.bool_]]:
    """Cut many texts into the tokens of BERT's tokenizer.

    Args:
        codes: [C] uint32, the code points of all texts.
        offsets: [n + 1] int64; text i is ``codes[offsets[i]:offsets[i + 1]]``.
        vocabulary: The tables.

    Returns:
        The tokens, and [n] whether a text holds something that the tables are not sure of. Such a
        text has no tokens here; the ``tokenizers`` library has to cut it.
    """
    count = len(offsets) - 1
    # Every token covers at least one character, so the text's length is enough room.
    room = len(codes)
    ids = np.empty(room, np.int32)
    starts = np.empty(room, np.int32)
    ends = np.empty(room, np.int32)
    token_offsets = np.empty(count + 1, np.int64)
    action_of, becomes, pieces, inner, unknown = vocabulary
    label, first, value, roots = pieces
    unsure = np.zeros(count, np.bool_)
    letters = [0] * (LONGEST_WORD + 1)
    positions = [0] * (LONGEST_WORD + 1)
    total = 0
    for text in range(count):
        begin = offsets[text]
        stop = offsets[text + 1] - begin
        token_offsets[text] = total
        before = total
        length = 0  # of the word that is being read
        word_start = 0
        word_end = 0
        for at in range(stop + 1):  # one more than there are: the end of the text ends a word
            action = WHITE
            code = 0
            if at < stop:
                code = codes[begin + at]
                action = action_of[code]
            if action == DROP:
                continue
            special = (
                code == BRACKET
                and at + 1 < stop
                and (codes[begin + at + 1] < 128 or action_of[codes[begin + at + 1]] == DROP)
            )
            if action == UNSURE or special:  # "[MASK]" in a title is the special token
                # Take back this text's tokens; the caller gives it to the `tokenizers` library.
                unsure[text] = True
                total = before
                break
            if action > ISOLATED:
                # A letter of a word: collect its form and position until the word ends. Letters
                # beyond LONGEST_WORD are only counted, because such a word becomes [UNK].
                if length == 0:
                    word_start = at
                if length < LONGEST_WORD:
                    letters[length] = becomes[code]
                    positions[length] = at
                length += 1
                word_end = at + 1
                continue
            if length > 0:
                # The word has ended: cut it greedily, always the longest piece of the vocabulary
                # from piece_start on. Pieces after the first are looked up below the node of ##.
                mark = total
                known = length <= LONGEST_WORD
                piece_start = 0
                while known and piece_start < length:
                    node = 0 if piece_start == 0 else inner
                    piece = -1
                    piece_end = piece_start
                    walk = piece_start
                    while walk < length:
                        node = child(node, letters[walk], label, first, roots)
                        if node == 0:
                            break
                        walk += 1
                        if value[node] >= 0:
                            piece = value[node]
                            piece_end = walk
                    if piece < 0 or (piece_start > 0 and inner == 0):
                        known = False
                    else:
                        ids[total] = piece
                        starts[total] = positions[piece_start]
                        ends[total] = positions[piece_end - 1] + 1
                        total += 1
                        piece_start = piece_end
                if not known:
                    # One part is in no piece: BERT makes the whole word a single [UNK].
                    total = mark
                    ids[total] = unknown
                    starts[total] = word_start
                    ends[total] = word_end
                    total += 1
                length = 0
            if action == ISOLATED:
                # Chinese characters and punctuation are words of one character.
                node = roots[becomes[code]]
                piece = value[node]  # -1 at the root, too
                ids[total] = piece if piece >= 0 else unknown
                starts[total] = at
                ends[total] = at + 1
                total += 1
    token_offsets[count] = total
    return (
        PackedTokens(ids[:total], starts[:total], ends[:total], token_offsets),
        unsure,
    )
