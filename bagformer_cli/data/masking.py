"""What masked modelling hides: tokens of titles, or all tokens of an entity bag together.

Of what is hidden, 80 % becomes [MASK], 10 % a random token, 10 % stays (BERT, section 3.1). Special
tokens are never hidden and never put in another's place. Everything follows from the source of
chance given for each sample, so neither batch-mates nor a resumed run change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.text.bags import TokenBags
from bagformer_cli.text.tokenizer import Tokenizer

_MASKED, _RANDOM = 0.8, 0.9  # below the first: [MASK]; up to the second: another token


@dataclass(frozen=True)
class TokenMasking:
    """How tokens are hidden.

    Args:
        share: Of tokens (or of bags).
        whole_bags: Hide the tokens of a bag together, in one way, or none of them.
        mask_id: [MASK].
        special: Ids of special tokens.
        vocab_size: Ids are below it.
    """

    share: float
    whole_bags: bool
    mask_id: int
    special: tuple[int, ...]
    vocab_size: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, share: float, *, whole_bags: bool) -> TokenMasking:
        """With a tokenizer's special tokens."""
        t = tokenizer
        special = (t.pad_id, t.unk_id, t.cls_id, t.sep_id, t.mask_id)
        return cls(share, whole_bags, t.mask_id, special, t.vocab_size)

    def hide(
        self, tokens: TokenBags, randoms: Sequence[np.random.Generator]
    ) -> tuple[TokenBags, NDArray[np.bool_]]:
        """Hide tokens of n titles.

        Args:
            tokens: The titles.
            randoms: [n] the source of chance of each.

        Returns:
            The titles as they are shown, and [T] bool: which of their tokens must be told.
        """
        ids, chosen = tokens.ids.copy(), np.zeros(len(tokens.ids), bool)
        ordinary = np.setdiff1d(np.arange(self.vocab_size), self.special)
        for title, random in enumerate(randoms):
            own = slice(tokens.bag_offsets[title], tokens.bag_offsets[title + 1])
            starts, ends = tokens.bag_starts[own], tokens.bag_ends[own]
            if not self.whole_bags:
                places = np.concatenate(
                    [np.arange(a, b) for a, b in zip(starts, ends, strict=True)]
                )
                starts, ends = places, places + 1
            drawn = random.random(len(starts)) < self.share
            ways = random.random(len(starts))
            for a, b, way in zip(starts[drawn], ends[drawn], ways[drawn], strict=True):
                hidden = np.arange(a, b)
                hidden = hidden[~np.isin(tokens.ids[hidden], self.special)]
                chosen[hidden] = True
                if way < _MASKED:
                    ids[hidden] = self.mask_id
                elif way < _RANDOM:
                    ids[hidden] = random.choice(ordinary, len(hidden))
        return replace(tokens, ids=ids), chosen


def hidden_patches(
    seeds: NDArray[np.int64], valid: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    """Which patches of each image are hidden.

    Args:
        seeds: [B] one a sample.
        valid: [B, P], False where there is no patch.
        share: Of the valid patches.

    Returns:
        [B, P] bool.
    """
    rows = [np.random.default_rng(int(seed)).random(valid.shape[1]) < share for seed in seeds]
    return np.stack(rows) & valid
