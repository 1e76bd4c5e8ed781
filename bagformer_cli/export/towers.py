"""The two towers of a dual encoder as functions of plain tensors, which exporters can trace.

A model packs vectors end to end (``MultiVectors``): their number depends on the titles, which a
traced graph cannot express well. These modules return padded tensors and a mask instead::

    input_ids, attention_mask, bag_tokens ─▶ TextTower ─▶ vectors [Q, M, D], mask [Q, M], cls
    pixels (uint8) ─▶ ImageTower ─▶ vectors [B, P, D], mask [B, P], cls

If the model reranks, the towers also return the states that its cross-encoder reads::

    text_states [K, L, W] (or ids [K, L]), text_mask, image_states [K, P, W] ─▶ CrossTower ─▶ [K]

``vectors[i][mask[i]]`` are the vectors of item i, in the model's order. ``bag_tokens`` says which
tokens each bag holds, so a bag's sum is one matrix product, and no index depends on the padding.

Shapes: Q titles, L positions, G bags of the title with the most, M vectors of a title at most,
B images, S side in pixels, P vectors of an image, K pairs, W width of a tower, D embedding
dimension.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.data.batches import normalised
from bagformer_cli.encoders.pooling import pool_grid
from bagformer_cli.encoders.states import States
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.cross_encoders import CrossEncoder, MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded


class TextTower(nn.Module):
    """The text side of a dual encoder, without packing; the module draws it.

    Args:
        dual: A dual encoder in evaluation mode.
        states: Whether the states are returned that a cross-encoder reads.
    """

    def __init__(self, dual: DualEncoder, states: bool = False) -> None:
        super().__init__()
        self.dual, self.states = dual, states

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, bag_tokens: Tensor
    ) -> tuple[Tensor, ...]:
        """Encode titles.

        Args:
            input_ids: [Q, L] int64.
            attention_mask: [Q, L] bool, False for padding.
            bag_tokens: [Q, G, L] bool, whether a position belongs to a bag. A title with fewer
                than G bags has rows of False.

        Returns:
            ``vectors`` [Q, M, D], ``mask`` [Q, M], ``cls`` [Q, D]; with ``states`` also
            ``states`` [Q, L', W] and ``states_mask`` [Q, L'].
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
            cls = dual.project_single_text(states[:, 0])
        read = (states, mask) if self.states else ()
        if dual.config.single:
            return (*_one_each(cls), *read)
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
        return F.normalize(dual.text_proj(chosen), dim=-1), kept, cls, *read


class ImageTower(nn.Module):
    """The image side of a dual encoder, from resized pixels; the module draws it.

    Args:
        dual: A dual encoder in evaluation mode.
        cross: The cross-encoder whose states are returned too; None: no states.
    """

    def __init__(self, dual: DualEncoder, cross: CrossEncoder | None = None) -> None:
        super().__init__()
        self.dual, self.cross = dual, cross

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            pixels: [B, S, S, 3] uint8, RGB.

        Returns:
            ``vectors`` [B, P, D], ``mask`` [B, P] (all True), ``cls`` [B, D]; with ``cross`` also
            ``states`` [B, P', W].
        """
        dual = self.dual
        given = normalised(pixels)
        codes = None if dual.image_codes is None else dual.image_codes()
        maps: list[Tensor] = []
        if self.cross is not None and dual.wants_maps:
            output, maps = dual.vision_encoder.forward_maps(given)
        elif codes is None or dual.shared is not None:
            output = dual.vision_encoder(given)
        else:
            output = dual.vision_encoder(given, codes)
        count = 0 if codes is None else len(codes)
        features = output
        if dual.shared is not None:
            output = dual.text_encoder.layers(dual.shared(output), None, codes)
        else:
            features = output[:, : output.shape[1] - count]
        length = output.shape[1] - count
        states, code_states = output[:, :length], output[:, length:]
        if dual.head is not None:
            cls = F.normalize(dual.head.summarise_images(States(states)), dim=-1)
        else:
            cls = dual.project_single_image(states[:, 0])
        read: tuple[Tensor, ...] = ()
        if self.cross is not None:
            # Cross-encoders read states; packed vectors, which cannot be traced, are left out.
            none: Any = None
            encoded = Encoded(none, cls, States(states), None, maps, States(features))
            read = (self.cross.read_images(given, encoded).states.values,)
        if dual.config.single:
            return (*_one_each(cls), *read)
        keep = dual.config.keep
        if keep != "all":
            chosen = pool_grid(states[:, 1:], int(keep))
        else:
            chosen = states if dual.config.image_first else states[:, 1:]
        chosen = torch.cat([chosen, code_states], dim=1)
        vectors = F.normalize(dual.vision_proj(chosen), dim=-1)
        return vectors, torch.ones_like(vectors[..., 0], dtype=torch.bool), cls, *read


class CrossTower(nn.Module):
    """The cross-encoder of a model, from the states that the towers return.

    Args:
        model: A model with a cross-encoder, in evaluation mode.
    """

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        assert model.cross is not None
        self.cross = model.cross
        self.dual = model.dual  # a joint encoder borrows the text tower's weights

    def forward(self, text_states: Tensor, text_mask: Tensor, image_states: Tensor) -> Tensor:
        """Score K pairs, [K].

        Args:
            text_states: [K, L, W] states of the text tower, or [K, L] int64 token ids
                (:func:`reads_ids`).
            text_mask: [K, L] bool, False for padding.
            image_states: [K, P, W] states of the image tower.
        """
        return self.cross.score(States(text_states, text_mask), States(image_states))


def reads_ids(cross: CrossEncoder) -> bool:
    """Tell whether a cross-encoder reads token ids in place of the text tower's states."""
    return not isinstance(cross, MatchingHead) or bool(cross.fusion.reads_ids)


def _sums(states: Tensor, bag_tokens: Tensor) -> Tensor:
    """Sum the states [Q, L, W] of each bag's tokens: [Q, G, W]."""
    return bag_tokens.to(states.dtype) @ states


def _one_each(cls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return single vectors [n, D] in the form of several: [n, 1, D], a mask of True, [n, D]."""
    return cls[:, None], torch.ones_like(cls[:, :1], dtype=torch.bool), cls
