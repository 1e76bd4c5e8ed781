"""From the states of an encoder to the vectors that are scored: bags, code tokens, pooled cells.

A bag is the sum of its tokens' vectors (BagFormer, section 3.2). ``embedding_bag`` computes all
bags of a batch at once from packed positions, so no title is padded or cut because of another.
Two titles with two bags each, in a batch of L = 7 positions::

    flat position  0     1  2  3  4  5  6      7     8  9  10    11 .. 13
    token          [CLS] 红 色 连 衣 裙 [SEP]  [CLS] 女 包 [SEP] [PAD]
    token_index          1  2  3  4  5               8  9         tokens of all bags
    bag_starts           0     2                     5  6         first entry of each bag above
    bag_offsets    0, 2, 4                                        title i owns bags [i] to [i + 1]

Token pooling, which merges the vectors of an index after encoding, is in
``index/compression/token_pooling.py``.

Shapes: B titles or images, L positions, T tokens in bags, G bags of the batch, W width, P patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.data.batches import TextBatch
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors


def sum_bags(states: Tensor, text: TextBatch) -> Tensor:
    """Sum the token vectors of each bag.

    Args:
        states: [B, L, W] float.
        text: The batch; it says which positions belong to which bag.

    Returns:
        [G, W], title by title: title i owns rows ``bag_offsets[i]:bag_offsets[i + 1]``.
    """
    flat = states.reshape(-1, states.shape[-1])
    return F.embedding_bag(text.token_index, flat, text.bag_starts, mode="sum")


def content_tokens(states: Tensor, text: TextBatch) -> MultiVectors:
    """Take the states [B, L, W] of the tokens that are neither special nor padding."""
    flat = states.reshape(-1, states.shape[-1])
    return MultiVectors(flat[text.token_index], text.token_offsets)


def bags_as_tokens(words: Tensor, text: TextBatch) -> tuple[Tensor, Tensor, TextBatch]:
    """Lay out bags as input positions of the text encoder (early fusion).

    Args:
        words: [B, L, W] word embeddings, positions not added yet.
        text: The batch.

    Returns:
        The inputs [B, 1 + most bags, W], [CLS] first; their mask (bool, False for padding); and
        the batch in the new layout, in which each bag is one position.
    """
    bags = sum_bags(words, text)
    counts = text.bag_offsets.diff()  # on the host, as all that sizes depend on
    longest = 1 + int(counts.max())
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    rank = to_device(torch.arange(len(owner)) - text.bag_offsets[owner], words.device)
    title = to_device(owner, words.device)
    inputs = words.new_zeros(len(counts), longest, words.shape[-1])
    inputs[:, 0] = words[:, 0]
    inputs = inputs.index_put((title, rank + 1), bags)
    mask = to_device(torch.arange(longest) <= counts[:, None], words.device)
    layout = TextBatch(
        input_ids=text.input_ids,
        attention_mask=mask,
        token_index=title * longest + rank + 1,
        bag_starts=torch.arange(len(title), device=words.device),
        bag_offsets=text.bag_offsets,
        token_offsets=text.bag_offsets,
    )
    return inputs, mask, layout


class CodeTokens(nn.Module):
    """Learned slots that are appended to an encoder's input and gather from all positions.

    An embedding and a LayerNorm (Inflate and Shrink, section 3.2).

    Args:
        count: n, slots appended to every item.
        width: W of the encoder.
        gain: Initial gain of the LayerNorm.
    """

    def __init__(self, count: int, width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, gain)

    def __len__(self) -> int:
        return self.embedding.num_embeddings

    def forward(self) -> Tensor:
        """Return the input vectors of the slots, [n, W]."""
        codes: Tensor = self.norm(self.embedding.weight)
        return codes


def pool_grid(states: Tensor, cells: int) -> Tensor:
    """Average-pool a square patch grid [B, P, W] to ``cells`` cells, row by row.

    A grid of no more than ``cells`` patches is returned unchanged. See :func:`grid_shape` for the
    shape of the pooled grid.
    """
    items, patches, width = states.shape
    if patches <= cells:
        return states
    side = math.isqrt(patches)
    grid = states.transpose(1, 2).reshape(items, width, side, patches // side)
    return F.adaptive_avg_pool2d(grid, grid_shape(cells)).flatten(2).transpose(1, 2)


def grid_shape(cells: int) -> tuple[int, int]:
    """Return rows and columns of a grid of ``cells`` cells, as near to a square as possible.

    >>> grid_shape(32), grid_shape(49)
    ((4, 8), (7, 7))
    """
    rows = max(n for n in range(1, math.isqrt(cells) + 1) if cells % n == 0)
    return rows, cells // rows
