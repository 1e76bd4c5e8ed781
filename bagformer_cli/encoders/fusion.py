"""Layers in which a title attends to an image, and a summary head that both sides share.

Several pairs may read one image, for example in matching, where each image is in about three
pairs. Its keys and values are computed once and copied for each pair::

    pairs   (title 0, image 0) (title 1, image 1) (title 0, image 1)      rows = [0, 1, 1]

Shapes: K pairs, B items, L text positions, P image positions, W width of the text, W' of the image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel

from bagformer_cli.config import HeadConfig, TextConfig
from bagformer_cli.encoders.states import States


class CrossAttention(nn.MultiheadAttention):
    """Cross-attention with the weights and names of torch's, without its copies.

    torch puts the sequence first and makes keys and values contiguous: with many image positions
    these copies, in each layer and in the backward pass, are most of a layer's memory traffic.
    """

    def keys_and_values(self, states: Tensor) -> Tensor:
        """Project image states to what :meth:`forward` reads: [B, P, W] to [B, P, 2W]."""
        width = self.embed_dim
        return F.linear(states, self.in_proj_weight[width:], self.in_proj_bias[width:])

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend from ``query`` to the image of each pair.

        Args:
            query: [K, L, W] text states.
            key: [K, P, 2W] from :meth:`keys_and_values`.
            value: The same tensor.
            key_padding_mask: [K, P] bool, True for padding; None: every position counts.
            need_weights: Unused; weights are never returned.
            attn_mask: Unused.
            average_attn_weights: Unused.
            is_causal: Unused.

        Returns:
            [K, L, W], and None.
        """
        width, heads = self.embed_dim, self.num_heads
        (pairs, length, _), positions = query.shape, key.shape[1]
        q = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
        q = q.view(pairs, length, heads, -1).transpose(1, 2)
        both = key.view(pairs, positions, 2, heads, -1)
        k, v = both.permute(2, 0, 3, 1, 4).unbind()  # [K, heads, P, W / heads] each
        mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        # The result lies in memory as torch's does, so that dropout draws the same masks for it.
        rows = read.permute(2, 0, 1, 3).reshape(length, pairs, width)
        return self.out_proj(rows).transpose(0, 1), None


class FusionLayer(nn.TransformerDecoderLayer):
    """Decoder layer of torch with :class:`CrossAttention`; ``memory`` is its keys and values."""

    multihead_attn: CrossAttention

    def __init__(self, width: int, heads: int, *arguments: Any, **options: Any) -> None:
        super().__init__(width, heads, *arguments, **options)
        own = self.multihead_attn
        with torch.device("meta"):  # draws no random numbers: seeds give the weights they gave
            lean = CrossAttention(width, heads, own.dropout, batch_first=True)
        lean.load_state_dict(own.state_dict(), assign=True)
        self.multihead_attn = lean


class FusionEncoder(nn.Module):
    """ALBEF's multimodal encoder: self-attention, cross-attention to the image, feed-forward.

    A BERT layer with cross-attention is torch's post-norm ``TransformerDecoderLayer`` with BERT's
    GELU and LayerNorm epsilon (ALBEF, section 3.1).

    Args:
        config: The text section; width, heads, feed-forward and dropout are those of the text.
        layers: Number of layers.
        image_width: W'; image states are projected if it is not the text's width.
    """

    reads_ids = False
    """The text states are outputs of the text encoder, not token ids."""

    def __init__(self, config: TextConfig, layers: int, image_width: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.adapt: nn.Module = (
            nn.Identity() if image_width == width else nn.Linear(image_width, width)
        )
        self.layers = nn.ModuleList(
            FusionLayer(
                width,
                config.heads,
                config.feed_forward,
                config.dropout,
                activation="gelu",
                layer_norm_eps=config.options.get("layer_norm_eps", 1e-12),
                batch_first=True,
            )
            for _ in range(layers)
        )

    def forward(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Let each title attend to its image.

        Args:
            texts: [K, L, W] states. The mask is [K, L], or [K, L, L] bool to say which positions
                (last axis) each position attends to.
            images: [B, P, W'] states.
            rows: [K] int64, the image of each title; None: title k reads image k (B = K).

        Returns:
            [K, L, W].
        """
        if rows is not None and len(rows) <= len(images):
            images, rows = images.select(rows), None  # no more to project than all images
        kept = images.mask
        if kept is not None and rows is not None:
            kept = kept.index_select(0, rows)
        masks = {} if kept is None else {"memory_key_padding_mask": ~kept}
        if texts.kept.ndim == 3:
            masks["tgt_mask"] = (~texts.kept).repeat_interleave(self.heads, dim=0)
        else:
            masks["tgt_key_padding_mask"] = ~texts.kept
        seen, states = self.adapt(images.values), texts.values
        layer: Any
        for layer in self.layers:
            read = layer.multihead_attn.keys_and_values(seen)
            states = layer(states, read if rows is None else read.index_select(0, rows), **masks)
        return states

    @torch.no_grad()
    def load_bert_layers(self, bert: BertModel, first: int) -> None:
        """Initialise from the layers of a pretrained BERT, from layer ``first`` on.

        Self-attention and feed-forward are copied. Cross-attention stays random, as in ALBEF.
        """
        layer: Any
        source: Any
        for layer, source in zip(self.layers, bert.encoder.layer[first:], strict=False):
            attention, output = source.attention, source.output
            projections = (attention.self.query, attention.self.key, attention.self.value)
            layer.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
            layer.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
            for target, module in (
                (layer.self_attn.out_proj, attention.output.dense),
                (layer.norm1, attention.output.LayerNorm),
                (layer.linear1, source.intermediate.dense),
                (layer.linear2, output.dense),
                (layer.norm3, output.LayerNorm),
            ):
                for ours, theirs in zip(target.parameters(), module.parameters(), strict=True):
                    ours.copy_(theirs)


class SummaryHead(nn.Module):
    """A transformer shared by both sides; its output at position 0 is an item's single vector.

    ALADIN's matching head (section 3.2).

    Args:
        config: Layers, heads, feed-forward, dropout.
        text_width: W.
        image_width: W'; image states are projected if it is not the text's width.
        out: D, length of the vector.
    """

    def __init__(self, config: HeadConfig, text_width: int, image_width: int, out: int) -> None:
        super().__init__()
        self.adapt: nn.Module = (
            nn.Identity() if image_width == text_width else nn.Linear(image_width, text_width)
        )
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                text_width,
                config.heads,
                config.feed_forward,
                config.dropout,
                activation="gelu",
                batch_first=True,
            ),
            config.layers,
            enable_nested_tensor=False,
        )
        self.out = nn.Linear(text_width, out)

    def summarise_texts(self, states: States) -> Tensor:
        """Summarise titles: [B, L, W] to [B, D]."""
        padding = None if states.mask is None else ~states.mask.bool()
        summary: Tensor = self.out(self.layers(states.values, src_key_padding_mask=padding)[:, 0])
        return summary

    def summarise_images(self, states: States) -> Tensor:
        """Summarise images: [B, P, W'] to [B, D]."""
        return self.summarise_texts(States(self.adapt(states.values), states.mask))
