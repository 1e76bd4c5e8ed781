"""The two towers of a dual encoder as functions of plain tensors, which exporters can trace.

A model packs vectors end to end (``MultiVectors``): their number depends on the titles, which a
traced graph cannot express well. These modules return padded tensors and a mask instead::

    input_ids, attention_mask, bag_tokens ─▶ TextTower ─▶ vectors [Q, M, D], mask [Q, M], cls
    pixels (uint8) ─▶ ImageTower ─▶ vectors [B, P, D], mask [B, P], cls

``vectors[i][mask[i]]`` are the vectors of item i, in the model's order. ``bag_tokens`` says which
tokens each bag holds, so a bag's sum is one matrix product, and no index depends on the padding.

Shapes: Q titles, L positions, G bags of the title with the most, M vectors of a title at most,
B images, S side in pixels, P vectors of an image, W width of a tower, D embedding dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.data.batches import normalised
from bagformer_cli.encoders.pooling import pool_grid
from bagformer_cli.encoders.states import States
from bagformer_cli.models.dual import DualEncoder


class TextTower(nn.Module):
    """The text side of a dual encoder, without packing; the module draws it.

    Args:
        dual: A dual encoder in evaluation mode.
    """

    def __init__(self, dual: DualEncoder) -> None:
        super().__init__()
        self.dual = dual

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, bag_tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode titles.

        Args:
            input_ids: [Q, L] int64.
            attention_mask: [Q, L] bool, False for padding.
            bag_tokens: [Q, G, L] bool, whether a position belongs to a bag. A title with fewer
                than G bags has rows of False.

        Returns:
            ``vectors`` [Q, M, D], ``mask`` [Q, M], ``cls`` [Q, D].
        """
        dual = self.dual
        codes = None if dual.text_codes is None else dual.text_codes()
        extra = {} if codes is None else {"codes": codes}
        present = bag_tokens.any(dim=2)
        if dual.early:
            words = dual.text_encoder.word_embeddings(input_ids)
            inputs = torch.cat([words[:, :1], _sums(words, bag_tokens)], dim=1)
            mask = torch.cat([attention_mask[:, :1], present], dim=1)
            output = dual.text_encoder(None, mask, inputs_embeds=inputs, **extra)
        else:
            mask = attention_mask
            output = dual.text_encoder(input_ids, mask, **extra)
        length = mask.shape[1]
        states, code_states = output[:, :length], output[:, length:]
        if dual.head is not None:
            cls = F.normalize(dual.head.summarise_texts(States(states, mask)), dim=-1)
        else:
            cls = F.normalize(dual.text_proj(states[:, 0]), dim=-1)
        if dual.config.single:
            return _one_each(cls)
        if dual.early:
            chosen, kept = states[:, 1:], present
        elif dual.config.interaction == "bagwise":
            chosen, kept = _sums(states, bag_tokens), present
        else:
            chosen, kept = states, bag_tokens.any(dim=1)
        keep = dual.config.keep
        if keep != "all":  # position 0 and the first keep - 1 of the others
            chosen = torch.cat([states[:, :1], chosen], dim=1)
            kept = torch.cat([torch.ones_like(kept[:, :1]), kept], dim=1)
            kept = kept & (kept.to(torch.int64).cumsum(dim=1) <= int(keep))
        if codes is not None:
            chosen = torch.cat([chosen, code_states], dim=1)
            kept = F.pad(kept, (0, len(codes)), value=True)
        return F.normalize(dual.text_proj(chosen), dim=-1), kept, cls


class ImageTower(nn.Module):
    """The image side of a dual encoder, from resized pixels; the module draws it.

    Args:
        dual: A dual encoder in evaluation mode.
    """

    def __init__(self, dual: DualEncoder) -> None:
        super().__init__()
        self.dual = dual

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images.

        Args:
            pixels: [B, S, S, 3] uint8, RGB.

        Returns:
            ``vectors`` [B, P, D], ``mask`` [B, P] (all True), ``cls`` [B, D].
        """
        dual = self.dual
        given = normalised(pixels)
        codes = None if dual.image_codes is None else dual.image_codes()
        if codes is None or dual.shared is not None:
            output = dual.vision_encoder(given)
        else:
            output = dual.vision_encoder(given, codes)
        if dual.shared is not None:
            output = dual.text_encoder.layers(dual.shared(output), None, codes)
        length = output.shape[1] - (0 if codes is None else len(codes))
        states, code_states = output[:, :length], output[:, length:]
        if dual.head is not None:
            cls = F.normalize(dual.head.summarise_images(States(states)), dim=-1)
        else:
            cls = F.normalize(dual.vision_proj(states[:, 0]), dim=-1)
        if dual.config.single:
            return _one_each(cls)
        keep = dual.config.keep
        if keep != "all":
            chosen = pool_grid(states[:, 1:], int(keep))
        else:
            chosen = states if dual.config.image_first else states[:, 1:]
        chosen = torch.cat([chosen, code_states], dim=1)
        vectors = F.normalize(dual.vision_proj(chosen), dim=-1)
        return vectors, torch.ones_like(vectors[..., 0], dtype=torch.bool), cls


def _sums(states: Tensor, bag_tokens: Tensor) -> Tensor:
    """Sum the states [Q, L, W] of each bag's tokens: [Q, G, W]."""
    return bag_tokens.to(states.dtype) @ states


def _one_each(cls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return single vectors [n, D] in the form of several: [n, 1, D], a mask of True, [n, D]."""
    return cls[:, None], torch.ones_like(cls[:, :1], dtype=torch.bool), cls
