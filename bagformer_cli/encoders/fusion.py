"""Layers in which a title's tokens attend to an image, and those that both sides share.

Shapes: B pairs, L tokens, P image vectors, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel

from bagformer_cli.config import HeadConfig, TextConfig


class FusionEncoder(nn.Module):
    """ALBEF's multimodal encoder: self-attention, cross-attention to the image, feed-forward.

    A BERT layer with cross-attention is exactly torch's post-norm ``TransformerDecoderLayer``
    with BERT's GELU and LayerNorm epsilon, so that one serves (ALBEF, section 3.1).

    Args:
        config: The text section: width, heads, feed-forward and dropout are the same here.
        layers: How many.
        image_width: Width of the image vectors; projected where it is not the text's.
    """

    reads_words = False
    """Its text states are the text tower's output."""

    def __init__(self, config: TextConfig, layers: int, image_width: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.adapt: nn.Module = (
            nn.Identity() if image_width == width else nn.Linear(image_width, width)
        )
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
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

    def forward(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Let the title look at the image.

        Args:
            text_states: [B, L, W] from the text encoder.
            text_mask: [B, L] bool, True keeps; or [B, L, L], what each position sees.
            image_states: [B, P, W'] from the vision encoder.
            image_mask: [B, P] bool, True keeps; None: all.

        Returns:
            [B, L, W].
        """
        memory = self.adapt(image_states)
        masks = {} if image_mask is None else {"memory_key_padding_mask": ~image_mask}
        if text_mask.ndim == 3:
            masks["tgt_mask"] = (~text_mask).repeat_interleave(self.heads, dim=0)
        else:
            masks["tgt_key_padding_mask"] = ~text_mask
        states = text_states
        for layer in self.layers:
            states = layer(states, memory, **masks)
        return states

    @torch.no_grad()
    def load_bert_layers(self, bert: BertModel, first: int) -> None:
        """Start from a pretrained BERT's self-attention and feed-forward.

        Its layers from ``first`` on are taken; cross-attention stays random, as in ALBEF.
        """
        layer: Any
        source: Any
        for layer, source in zip(self.layers, bert.encoder.layer[first:], strict=False):
            attention, output = source.attention, source.output
            projections = (attention.self.query, attention.self.key, attention.self.value)
            _copy(layer.self_attn.in_proj_weight, torch.cat([p.weight for p in projections]))
            _copy(layer.self_attn.in_proj_bias, torch.cat([p.bias for p in projections]))
            _copy_modules(
                (layer.self_attn.out_proj, attention.output.dense),
                (layer.norm1, attention.output.LayerNorm),
                (layer.linear1, source.intermediate.dense),
                (layer.linear2, output.dense),
                (layer.norm3, output.LayerNorm),
            )


class SummaryHead(nn.Module):
    """A transformer that both sides share: its first position becomes an item's one vector.

    ALADIN's matching head (section 3.2).

    Args:
        config: Its size.
        text_width: W of the text states.
        image_width: W' of the image states; projected where it is not the text's.
        out: D.
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

    def text(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """[B, L, W] states of titles to [B, D]."""
        padding = None if mask is None else ~mask.bool()
        summary: Tensor = self.out(self.layers(states, src_key_padding_mask=padding)[:, 0])
        return summary

    def image(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """[B, P, W'] states of images to [B, D]."""
        return self.text(self.adapt(states), mask)


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)


def _copy_modules(*pairs: tuple[nn.Module, nn.Module]) -> None:
    for target, source in pairs:
        _copy_all(target.parameters(), source.parameters())


def _copy_all(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        _copy(target, source)
