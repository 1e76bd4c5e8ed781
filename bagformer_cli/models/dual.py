"""The dual encoder: two towers whose outputs meet in a late interaction.

Shapes: B batch, L text positions, P patches, W width of a tower, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.config import ModelConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.pooling import bags_as_tokens, content_tokens, sum_bags
from bagformer_cli.encoders.text import TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.interaction.vectors import MultiVectors


@dataclass
class Encoded:
    """One side of a batch, encoded.

    Attributes:
        vectors: Unit vectors for the late interaction.
        cls: [B, D] unit vectors, one an item ([CLS] or class token).
        states: [B, L, W] or [B, 1 + P, W], what the slow scorer sees.
        mask: [B, L] bool, True keeps; None: all.
    """

    vectors: MultiVectors
    cls: Tensor
    states: Tensor
    mask: Tensor | None = None


class DualEncoder(nn.Module):
    """Text and vision encoder, their projections, and the choice of vectors.

    Args:
        text: The text tower.
        vision: The image tower.
        config: Which vectors, how long, and whether bags are made early or late.
    """

    def __init__(self, text: TextEncoder, vision: VisionEncoder, config: ModelConfig) -> None:
        super().__init__()
        self.text_encoder = text
        self.vision_encoder = vision
        self.text_proj = nn.Linear(text.width, config.embed_dim)
        self.vision_proj = nn.Linear(vision.width, config.embed_dim)
        self.interaction = config.interaction
        self.early = config.bag_fusion == "early"

    def encode_texts(self, text: TextBatch) -> Encoded:
        """Titles to vectors; see :class:`Encoded`."""
        if self.early:
            words = self.text_encoder.word_embeddings(text.input_ids)
            inputs, mask, layout = bags_as_tokens(words, text)
            states = self.text_encoder(None, mask, inputs_embeds=inputs)
        else:
            layout, mask = text, text.attention_mask
            states = self.text_encoder(text.input_ids, mask)
        cls = F.normalize(self.text_proj(states[:, 0]), dim=-1)
        if self.interaction == "cls":
            vectors = one_each(cls)
        else:
            if self.interaction == "bagwise":
                values, offsets = sum_bags(states, layout), layout.bag_offsets
            else:
                values, offsets = content_tokens(states, layout)
            vectors = MultiVectors(F.normalize(self.text_proj(values), dim=-1), offsets)
        return Encoded(vectors, cls, states, mask)

    def encode_images(self, pixels: Tensor) -> Encoded:
        """Normalised images [B, 3, H, W] to vectors; see :class:`Encoded`."""
        states = self.vision_encoder(pixels)
        if self.interaction == "cls":
            cls = F.normalize(self.vision_proj(states[:, 0]), dim=-1)
            return Encoded(one_each(cls), cls, states)
        projected = F.normalize(self.vision_proj(states), dim=-1)
        items, each, dim = projected.shape
        offsets = torch.arange(items + 1) * each
        vectors = MultiVectors(projected.reshape(-1, dim), offsets)
        return Encoded(vectors, projected[:, 0], states)


def one_each(rows: Tensor) -> MultiVectors:
    """[B, D] rows as lists of one vector."""
    return MultiVectors(rows, torch.arange(len(rows) + 1))
