"""Token vectors to bag vectors, before (early) or after (late) the text encoder.

Bags are sums of their tokens' vectors, made by ``embedding_bag`` over packed offsets: no title is
cut or padded because of another (BagFormer, section 3.2, without its cut to the batch's shortest
bag list).

Shapes: B batch, L tokens padded, T content tokens of the batch, G bags of the batch, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
