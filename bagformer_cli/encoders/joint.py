"""The joint, single-stream encoder: one BERT over [CLS; patches; title].

As the QQ-browser 2021 challenge's winners read a video's frames and its title; patches or regions
stand in place of the frames.

Shapes: B pairs, L tokens, P image vectors, W width, F width of the image vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.encoders.text import TextEncoder


class JointEncoder(nn.Module):
    """Reads both sides as one sequence, with the text tower's own BERT.

    What it learns in pretraining is therefore learned for titles as well. Image vectors are
    projected and get BERT's second token type and a position of their own: of two hidden patches,
    both zeros, nothing else tells which is which.

    Args:
        text: The text tower; it stays the property of the dual encoder.
        image_width: F.
        places: The most image vectors.
        drops_first: Leave out the image's first position, a class token that saw all patches.
    """

    reads_words = True
    """Its text states are ids, [B, L] int64, not the text tower's output."""

    def __init__(
        self, text: TextEncoder, image_width: int, places: int, *, drops_first: bool
    ) -> None:
        super().__init__()
        self.drops_first = drops_first
        self._text = (text,)  # no submodule: its weights are saved once, with the dual encoder
        self.image_width = image_width
        self.project = nn.Linear(image_width, text.width)
        self.places = nn.Parameter(torch.empty(places, text.width))
        nn.init.normal_(self.places, std=text.bert.config.initializer_range)
        self.norm = nn.LayerNorm(text.width, eps=text.bert.config.layer_norm_eps)

    def forward(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """What the title's positions become, [B, L, W]; see :meth:`both`."""
        return self.both(text_states, text_mask, image_states, image_mask)[0]

    def both(
        self,
        ids: Tensor,
        text_mask: Tensor,
        patches: Tensor,
        image_mask: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Read pairs.

        Args:
            ids: [B, L] from [CLS] to [SEP].
            text_mask: [B, L] bool, True keeps.
            patches: [B, P, F].
            image_mask: [B, P] bool, True keeps; None: all.
            hidden: [B, P] bool, patches that are zeroed at the input; None: none.

        Returns:
            [B, L, W] of the title (position 0 is [CLS]) and [B, P, W] of the image.
        """
        text = self._text[0]
        if hidden is not None:
            patches = patches.masked_fill(hidden[:, :, None], 0.0)
        kinds = text.bert.embeddings.token_type_embeddings.weight
        count = patches.shape[1]
        seen = self.norm(self.project(patches) + kinds[-1] + self.places[:count])
        words = text.bert.embeddings(input_ids=ids.long())
        if image_mask is None:
            image_mask = text_mask.new_ones(patches.shape[:2])
        states = text.layers(
            torch.cat([words[:, :1], seen, words[:, 1:]], dim=1),
            torch.cat([text_mask[:, :1], image_mask, text_mask[:, 1:]], dim=1),
        )
        title = torch.cat([states[:, :1], states[:, 1 + count :]], dim=1)
        return title, states[:, 1 : 1 + count]


class PredictionHead(nn.Module):
    """From states to what was hidden: dense, GELU, LayerNorm, then the product with a table.

    BERT's head for masked tokens, whose table is the word embedding; for patches the table is the
    head's own, back to their width.

    Args:
        width: W.
        out: V, or F.
        own: Whether it has a table of its own.
        eps: LayerNorm's epsilon.
    """

    def __init__(self, width: int, out: int, *, own: bool = False, eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.table = nn.Parameter(torch.empty(out, width)) if own else None
        self.bias = nn.Parameter(torch.zeros(out))
        if self.table is not None:
            nn.init.xavier_uniform_(self.table)

    def forward(self, states: Tensor, table: Tensor | None = None) -> Tensor:
        """[M, W] states to [M, out]."""
        hidden = self.norm(F.gelu(self.dense(states)))
        weight = self.table if table is None else table
        assert weight is not None
        return F.linear(hidden, weight, self.bias)
