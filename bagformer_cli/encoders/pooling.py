"""An encoder's states to the vectors that are scored: bags, codes, the first so many.

Bags are sums of their tokens' vectors, made before (early) or after (late) the text encoder by
``embedding_bag`` over packed offsets: no title is cut or padded because of another (BagFormer,
section 3.2, without its cut to the batch's shortest bag list).

Shapes: B batch, L tokens padded, T content tokens of the batch, G bags of the batch, W width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.data.batches import TextBatch


def sum_bags(states: Tensor, text: TextBatch) -> Tensor:
    """Sum each bag's token vectors.

    Args:
        states: [B, L, W] float.
        text: The layout: which positions belong to which bag.

    Returns:
        [G, W], title by title; title i owns rows ``bag_offsets[i]:bag_offsets[i + 1]``.
    """
    flat = states.reshape(-1, states.shape[-1])
    return F.embedding_bag(text.token_index, flat, text.bag_starts, mode="sum")


def content_tokens(states: Tensor, text: TextBatch) -> tuple[Tensor, Tensor]:
    """The vectors of all tokens that are neither special nor padding, packed.

    Returns:
        values [T, W] and offsets [B + 1] int64.
    """
    flat = states.reshape(-1, states.shape[-1])
    ends = torch.cat([text.bag_starts, text.bag_starts.new_tensor([len(text.token_index)])])
    return flat[text.token_index], ends[text.bag_offsets]


def bags_as_tokens(words: Tensor, text: TextBatch) -> tuple[Tensor, Tensor, TextBatch]:
    """Early fusion: one input position a bag, behind [CLS].

    Args:
        words: [B, L, W] word embeddings without positions.
        text: Tokens and bags.

    Returns:
        inputs [B, 1 + max bags, W], mask [B, 1 + max bags] bool (True keeps), and the layout of
        the result: each bag is now the one position that holds it.
    """
    bags = sum_bags(words, text)
    counts = text.bag_offsets.diff()
    longest = 1 + int(counts.max())
    owner = torch.repeat_interleave(torch.arange(len(counts), device=words.device), counts)
    rank = torch.arange(len(owner), device=words.device) - text.bag_offsets[owner]
    inputs = words.new_zeros(len(counts), longest, words.shape[-1])
    inputs[:, 0] = words[:, 0]
    inputs = inputs.index_put((owner, rank + 1), bags)
    mask = torch.arange(longest, device=words.device) <= counts[:, None]
    layout = TextBatch(
        input_ids=text.input_ids,
        attention_mask=mask,
        token_index=owner * longest + rank + 1,
        bag_starts=torch.arange(len(owner), device=words.device),
        bag_offsets=text.bag_offsets,
    )
    return inputs, mask, layout


# ------------------------------------------------------------------- which vectors, and how many


CODE_SIZE = 0.3
"""Where the gain of the codes' LayerNorm begins. At 1 a shallow encoder's residual path carries the
code through as it is, the same for every item (docs/log.md), and it tells no item from another."""


class Codes(nn.Module):
    """Learned slots appended to an encoder's input: embedding, then LayerNorm.

    Inflate and Shrink, section 3.2; they begin small, so that what they gather counts.

    Args:
        count: How many.
        width: Of the encoder.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, CODE_SIZE)

    def __len__(self) -> int:
        return self.embedding.num_embeddings

    def forward(self) -> Tensor:
        """[n, W]."""
        codes: Tensor = self.norm(self.embedding.weight)
        return codes


Packed = tuple[Tensor, Tensor]
"""Vectors [N, W] and where each item's begin, [B + 1] int64."""


def pack(states: Tensor, mask: Tensor | None = None) -> Packed:
    """[B, L, W] states to packed ones, without the positions that ``mask`` [B, L] drops."""
    if mask is None:
        items, each, width = states.shape
        offsets = torch.arange(items + 1, device=states.device) * each
        return states.reshape(items * each, width), offsets
    return states[mask], F.pad(mask.sum(dim=1).cumsum(0), (1, 0))


def first_of(packed: Packed, count: int) -> Packed:
    """Each item's first ``count`` vectors."""
    values, offsets = packed
    lengths = offsets.diff()
    within = _within(lengths)
    return values[within < count], F.pad(lengths.clamp(max=count).cumsum(0), (1, 0))


def join(*parts: Packed) -> Packed:
    """Each item's vectors of the first part, then those of the second, and so on."""
    lengths = torch.stack([offsets.diff() for _, offsets in parts])  # [parts, B]
    offsets = F.pad(lengths.sum(dim=0).cumsum(0), (1, 0))
    begins = offsets[:-1] + lengths.cumsum(0) - lengths
    places = [
        begin.repeat_interleave(length) + _within(length)
        for begin, length in zip(begins, lengths, strict=True)
    ]
    order = torch.cat(places).argsort()
    return torch.cat([values for values, _ in parts]).index_select(0, order), offsets


def pooled_cells(states: Tensor, cells: int) -> Tensor:
    """Average-pool a square patch grid [B, P, W] to ``cells`` of them, row by row.

    32 cells are 4 rows of 8: rows are the largest divisor of ``cells`` up to its root. A grid of no
    more patches than ``cells`` stays as it is.
    """
    items, patches, width = states.shape
    if patches <= cells:
        return states
    side = math.isqrt(patches)
    grid = states.transpose(1, 2).reshape(items, width, side, patches // side)
    return F.adaptive_avg_pool2d(grid, grid_of(cells)).flatten(2).transpose(1, 2)


def grid_of(cells: int) -> tuple[int, int]:
    """Rows and columns of a grid of so many cells: a square, or as near to one as they divide."""
    rows = max(n for n in range(1, math.isqrt(cells) + 1) if cells % n == 0)
    return rows, cells // rows


def _within(lengths: Tensor) -> Tensor:
    """[N] the place of each vector inside its item."""
    starts = lengths.cumsum(0) - lengths
    total = torch.arange(int(lengths.sum()), device=lengths.device)
    return total - starts.repeat_interleave(lengths)
