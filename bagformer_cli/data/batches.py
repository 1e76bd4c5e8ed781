"""Records to batches: where numpy ends and torch begins.

Shapes: B pairs, L tokens padded, T content tokens of the batch, G bags of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.text.bags import TokenBags


@dataclass
class TextBatch:
    """Titles as the text encoder and the pooling take them.

    Attributes:
        input_ids: [B, L] int64, padded to the longest title of the batch.
        attention_mask: [B, L] bool, True keeps.
        token_index: [T] int64, positions into the flattened [B * L] of the tokens that are in a
            bag, bag by bag (a title's tokens but its [CLS] and [SEP]).
        bag_starts: [G] int64, where each bag begins in ``token_index``: ``embedding_bag``'s
            offsets.
        bag_offsets: [B + 1] int64; title i owns bags ``bag_offsets[i]:bag_offsets[i + 1]``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_index: Tensor
    bag_starts: Tensor
    bag_offsets: Tensor

    def __len__(self) -> int:
        return len(self.bag_offsets) - 1

    @classmethod
    def from_tokens(cls, tokens: TokenBags, pad_id: int) -> TextBatch:
        """Pad packed tokens to the longest title and point the bags at their new places."""
        lengths = np.diff(tokens.token_offsets)
        longest = int(lengths.max(initial=1))
        mask = np.arange(longest) < lengths[:, None]
        ids = np.full(mask.shape, pad_id, dtype=np.int64)
        ids[mask] = tokens.ids
        sizes = tokens.bag_ends - tokens.bag_starts
        ends = np.cumsum(sizes)
        starts = ends - sizes
        packed = np.repeat(tokens.bag_starts - starts, sizes) + np.arange(int(sizes.sum()))
        moved = np.arange(len(lengths)) * longest - tokens.token_offsets[:-1]
        owner = np.repeat(np.arange(len(lengths)), np.diff(tokens.bag_offsets))
        index = packed + np.repeat(moved[owner], sizes)
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(index.astype(np.int64)),
            torch.from_numpy(starts.astype(np.int64)),
            torch.from_numpy(np.asarray(tokens.bag_offsets, dtype=np.int64)),
        )

    def to(self, device: torch.device | str) -> TextBatch:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return TextBatch(**moved)
