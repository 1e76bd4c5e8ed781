"""The kernels that join character bags and tokens, for a model and for a reader.

The segmenter counts in characters, the tokenizer in tokens, and their edges may differ. With
红色, ledlamp and ★☆ as bags by character, and [UNK] for both stars:

    characters   红  色  l e d l a m p  ★ ☆
    bags         0─────  1────────────  2──
    tokens       红  色  led    ##lamp  [UNK]

:func:`assemble` counts the bags in tokens, with [CLS] in front: bag 0 is tokens 1:3, bag 1 is 3:5
and bag 2 is 5:6. A token belongs to the bag that holds its first character, so no bag ends inside
one. :func:`align` counts them in characters, for display.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.cover_arrays import PackedBags
from bagformer_cli.text.wordpiece import PackedTokens


class Frame(NamedTuple):
    """The limits and the special tokens of a title.

    Args:
        room: Tokens of a title that are kept at most, special tokens not counted.
        cls_id: The id of [CLS], which begins every title.
        sep_id: The id of [SEP].
        add_sep: Whether [SEP] ends every title.
    """

    room: int
    cls_id: int
    sep_id: int
    add_sep: bool


class TokenBagArrays(NamedTuple):
    """The arrays of :class:`.bags.TokenBags`, in its order."""

    ids: npt.NDArray[np.int32]
    token_offsets: npt.NDArray[np.int64]
    bag_starts: npt.NDArray[np.int64]
    bag_ends: npt.NDArray[np.int64]
    bag_offsets: npt.NDArray[np.int64]


def assemble(tokens: PackedTokens, bags: PackedBags, frame: Frame) -> TokenBagArrays:
    """Join tokens and character bags of the same titles to bags of tokens."""
    count = len(tokens.offsets) - 1
    room = len(tokens.ids) + 2 * count
    ids = np.empty(room, np.int32)
    starts = np.empty(room, np.int64)
    ends = np.empty(room, np.int64)
    token_offsets = np.empty(count + 1, np.int64)
    bag_offsets = np.empty(count + 1, np.int64)
    token_total = 0
    bag_total = 0
    for title in range(count):
        token_offsets[title] = token_total
        bag_offsets[title] = bag_total
        ids[token_total] = frame.cls_id
        token_total += 1
        begin = tokens.offsets[title]
        stop = min(tokens.offsets[title + 1], begin + frame.room)
        bag = bags.offsets[title]
        last = bags.offsets[title + 1] - 1
        current = bag - 1  # the bag of the token before
        for token in range(begin, stop):
            while bag < last and bags.ends[bag] <= tokens.starts[token]:
                bag += 1
            if bag != current:
                starts[bag_total] = token_total
                bag_total += 1
                current = bag
            ids[token_total] = tokens.ids[token]
            token_total += 1
            ends[bag_total - 1] = token_total
        if begin >= stop:  # no token for a model to see: [CLS] is the title's only bag
            starts[bag_total] = token_total - 1
            ends[bag_total] = token_total
            bag_total += 1
        if frame.add_sep:
            ids[token_total] = frame.sep_id
            token_total += 1
    token_offsets[count] = token_total
    bag_offsets[count] = bag_total
    return TokenBagArrays(
        ids[:token_total], token_offsets, starts[:bag_total], ends[:bag_total], bag_offsets
    )


def align(tokens: PackedTokens, bags: PackedBags) -> PackedBags:
    """Move the edges of character bags to edges of tokens.

    A bag that would end inside a token grows to its end. A bag without a token (a control
    character) is joined to the bag before it, or to the next one at the beginning of a title.
    """
    count = len(tokens.offsets) - 1
    room = len(bags.starts)
    starts = np.empty(room, np.int32)
    ends = np.empty(room, np.int32)
    sources = np.empty(room, np.int32)  # which of the given bags each came from
    offsets = np.empty(count + 1, np.int64)
    total = 0
    for title in range(count):
        offsets[title] = total
        before = total
        token = tokens.offsets[title]
        last_token = tokens.offsets[title + 1]
        has_tokens = token < last_token
        first = bags.offsets[title]
        stop = bags.offsets[title + 1]
        for bag in range(first, stop):
            end = bags.ends[bag]
            last = bag == stop - 1
            begin = token
            while token < last_token and (tokens.starts[token] < end or last):
                token += 1
            if token > begin:
                end = max(end, tokens.ends[token - 1])
            elif has_tokens:
                if total > before:
                    ends[total - 1] = max(ends[total - 1], end)
                continue
            if total > before:
                starts[total] = max(bags.starts[bag], ends[total - 1])
            else:
                starts[total] = bags.starts[first]
            ends[total] = end
            sources[total] = bag
            total += 1
    offsets[count] = total
    return PackedBags(
        starts[:total],
        ends[:total],
        bags.kinds[sources[:total]],
        bags.types[sources[:total]],
        offsets,
        bags.costs,
    )
