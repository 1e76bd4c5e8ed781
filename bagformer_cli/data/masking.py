"""Masking for masked modelling: hide tokens of titles, or all tokens of an entity bag together.

80 % of the tokens to predict become [MASK], 10 % a random token, and 10 % stay as they are (BERT,
section 3.1). Special tokens are never hidden and never used as random tokens. A title of two bags,
with whole bags hidden::

    tokens    [CLS]  连     衣     裙     红     色    [SEP]
    bags             ╰──── bag 0 ────╯    ╰─ bag 1 ─╯
    shown     [CLS] [MASK] [MASK] [MASK]  红     色    [SEP]       bag 0 is drawn, bag 1 is not
    targets     0     1      1      1     0      0      0

Every title has its own random generator, so neither the other titles of the batch nor a resumed
run change what is hidden.

Shapes: n titles, T tokens of all of them, B images of a batch, P patches of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.text.bags import TokenBags
from bagformer_cli.text.tokenizer import Tokenizer

_MASKED, _RANDOM = 0.8, 0.9  # a way below 0.8: [MASK]; below 0.9: a random token; else: kept


@dataclass(frozen=True)
class TokenMasking:
    """Rules by which tokens are hidden.

    Args:
        share: Probability that a token (or a bag) is drawn, 0 to 1.
        whole_bags: Draw bags instead of tokens; all tokens of a bag are hidden in the same way.
        mask_id: Id of [MASK].
        special: Ids of the special tokens.
        vocab_size: Number of ids; random tokens are drawn below it.
    """

    share: float
    whole_bags: bool
    mask_id: int
    special: tuple[int, ...]
    vocab_size: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, share: float, *, whole_bags: bool) -> TokenMasking:
        """Make the rules for the vocabulary of a tokenizer."""
        t = tokenizer
        special = (t.pad_id, t.unk_id, t.cls_id, t.sep_id, t.mask_id)
        return cls(share, whole_bags, t.mask_id, special, t.vocab_size)

    def hide(
        self, tokens: TokenBags, randoms: Sequence[np.random.Generator]
    ) -> tuple[TokenBags, NDArray[np.bool_]]:
        """Hide tokens of n titles.

        Args:
            tokens: The titles.
            randoms: [n] random generator of each title.

        Returns:
            The titles with hidden tokens replaced, and [T] bool: the tokens to predict.
        """
        ids, targets = tokens.ids.copy(), np.zeros(len(tokens.ids), bool)
        ordinary = np.setdiff1d(np.arange(self.vocab_size), self.special)
        for title, random in enumerate(randoms):
            own = slice(tokens.bag_offsets[title], tokens.bag_offsets[title + 1])
            starts, ends = tokens.bag_starts[own], tokens.bag_ends[own]
            if not self.whole_bags:
                # Every token of the bags becomes a bag of one token.
                starts = np.concatenate(
                    [np.arange(a, b) for a, b in zip(starts, ends, strict=True)]
                )
                ends = starts + 1
            drawn = random.random(len(starts)) < self.share
            ways = random.random(len(starts))
            for a, b, way in zip(starts[drawn], ends[drawn], ways[drawn], strict=True):
                hidden = np.arange(a, b)
                hidden = hidden[~np.isin(tokens.ids[hidden], self.special)]
                targets[hidden] = True
                if way < _MASKED:
                    ids[hidden] = self.mask_id
                elif way < _RANDOM:
                    ids[hidden] = random.choice(ordinary, len(hidden))
        return replace(tokens, ids=ids), targets


def hidden_patches(
    seeds: NDArray[np.int64], valid: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    """Draw the patches of each image to hide.

    Args:
        seeds: [B] random seed of each image.
        valid: [B, P] bool, False for padding.
        share: Probability that a patch is hidden, 0 to 1.

    Returns:
        [B, P] bool, True for hidden patches.
    """
    rows = [np.random.default_rng(int(seed)).random(valid.shape[1]) < share for seed in seeds]
    return np.stack(rows) & valid
