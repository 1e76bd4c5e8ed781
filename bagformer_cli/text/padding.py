"""Pad titles to one length, and say where padding has put the tokens of every bag.

Two titles, the first with two bags of 2 and 1 tokens, the second with one bag of 1 token::

    input_ids      [[CLS] 5     6     7  [SEP]]     L = 5 tokens of the longest title
                   [[CLS] 8  [SEP] [PAD] [PAD]]
    flattened        0    1     2     3     4
                     5    6     7     8     9
    token_index    [1, 2,   3,   6]                 the tokens of bag 0, bag 1 and bag 2
    bag_starts     [0,      2,   3]                 where each bag starts in token_index
    bag_offsets    [0,           2, 3]              title 0 owns bags 0 and 1, title 1 owns bag 2

Shapes: Q titles, L tokens of the longest, T tokens in bags, G bags of all titles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.text.bags import TokenBags


class PaddedTitles(NamedTuple):
    """Titles of one length; the module draws an example.

    Args:
        input_ids: [Q, L] int64.
        attention_mask: [Q, L] bool, False for padding.
        token_index: [T] int64, positions of the bags' tokens in the flattened [Q * L], bag by bag.
        bag_starts: [G] int64, start of each bag in ``token_index``.
        bag_offsets: [Q + 1] int64, title i owns bags ``bag_offsets[i]:bag_offsets[i + 1]``.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    token_index: NDArray[np.int64]
    bag_starts: NDArray[np.int64]
    bag_offsets: NDArray[np.int64]

    def bag_tokens(self) -> NDArray[np.bool_]:
        """Say which positions each bag holds: [Q, most bags of a title, L].

        A title with fewer bags has rows of False. This is the form of exported text encoders.
        """
        titles, length = self.input_ids.shape
        counts = np.diff(self.bag_offsets)
        members = np.zeros((titles, int(counts.max(initial=0)), length), np.bool_)
        sizes = np.diff(np.append(self.bag_starts, len(self.token_index)))
        rank = np.arange(len(sizes)) - np.repeat(self.bag_offsets[:-1], counts)
        title, position = np.divmod(self.token_index, length)
        members[title, np.repeat(rank, sizes), position] = True
        return members


def pad_titles(tokens: TokenBags, pad_id: int) -> PaddedTitles:
    """Pad packed titles to the longest of them.

    >>> tokens = TokenBags(ids=np.array([1, 5, 6, 7, 2, 1, 8, 2], np.int32),
    ...     token_offsets=np.array([0, 5, 8]), bag_starts=np.array([1, 3, 6]),
    ...     bag_ends=np.array([3, 4, 7]), bag_offsets=np.array([0, 2, 3]))
    >>> pad_titles(tokens, pad_id=0).bag_tokens().astype(int).tolist()
    [[[0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]]
    """
    lengths = np.diff(tokens.token_offsets)
    longest = int(lengths.max(initial=0))
    mask = np.arange(longest) < lengths[:, None]
    ids = np.full((len(tokens), longest), pad_id, np.int64)
    ids[mask] = tokens.ids
    positions = np.flatnonzero(mask)  # position of every token, with the special ones
    sizes = tokens.bag_ends - tokens.bag_starts
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
    # Token j of bag g is packed token bag_starts[g] + j; look up where padding has put it.
    index = positions[np.repeat(tokens.bag_starts, sizes) + within]
    return PaddedTitles(ids, mask, index, starts[:-1].copy(), tokens.bag_offsets)
