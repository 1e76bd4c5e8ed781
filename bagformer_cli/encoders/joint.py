"""The joint, single-stream encoder: one BERT over ``[CLS] patches title``.

The winners of the QQ-browser 2021 challenge read a video's frames and its title in this way; here
patches or regions take the place of the frames.

Shapes: K pairs, L text positions, P image positions, W width, F width of the image states.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.encoders.states import States
from bagformer_cli.encoders.text import TextEncoder


class JointEncoder(nn.Module):
    """Read title and image as one sequence with the BERT of the text encoder.

    The title's encoder therefore learns in pretraining as well. Image states are projected and get
    BERT's second token type and learned position embeddings: without positions, two hidden
    patches, both zeros, would be the same.

    Args:
        text: The text encoder. Its weights belong to the dual encoder and are saved there.
        image_width: F.
        places: Length of the position table: the most image states of an item.
        drops_first: Whether the image's position 0 is left out: a class token has seen the patches
            that MFM hides.
    """

    reads_ids = True
    """The text states are token ids, [K, L] int64."""

    def __init__(
        self, text: TextEncoder, image_width: int, places: int, *, drops_first: bool
    ) -> None:
        super().__init__()
        self.drops_first = drops_first
        self._text = (text,)  # a tuple hides it from nn.Module: saved once, with the dual encoder
        self.image_width = image_width
        self.project = nn.Linear(image_width, text.width)
        self.places = nn.Parameter(torch.empty(places, text.width))
        nn.init.normal_(self.places, std=text.bert.config.initializer_range)
        self.norm = nn.LayerNorm(text.width, eps=text.bert.config.layer_norm_eps)

    def forward(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Encode pairs and return the title's positions, [K, L, W]; see :meth:`both`.

        Args:
            texts: [K, L] token ids, from [CLS] to [SEP].
            images: [B, P, F] states.
            rows: [K] int64, the image of each title; None: title k is read with image k.
        """
        return self.both(texts, images if rows is None else images.select(rows))[0]

    def both(
        self, texts: States, images: States, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode pairs.

        Args:
            texts: [K, L] token ids, from [CLS] to [SEP].
            images: [K, P, F] states.
            hidden: [K, P] bool, patches that are zeroed at the input; None: none.

        Returns:
            States of the title [K, L, W], [CLS] first, and of the image [K, P, W].
        """
        text = self._text[0]
        patches, count = images.values, images.values.shape[1]
        if hidden is not None:
            patches = patches.masked_fill(hidden[:, :, None], 0.0)
        token_types = text.bert.embeddings.token_type_embeddings.weight
        seen = self.norm(self.project(patches) + token_types[-1] + self.places[:count])
        words = text.bert.embeddings(input_ids=texts.values.long())
        states = text.layers(
            torch.cat([words[:, :1], seen, words[:, 1:]], dim=1),
            torch.cat([texts.kept[:, :1], images.kept, texts.kept[:, 1:]], dim=1),
        )
        title = torch.cat([states[:, :1], states[:, 1 + count :]], dim=1)
        return title, states[:, 1 : 1 + count]


class PredictionHead(nn.Module):
    """Predict what was hidden: dense, GELU, LayerNorm, then the product with a table.

    BERT's head for masked tokens; its table is the word embedding. For patches the table is the
    head's own and leads back to the width of the patches.

    Args:
        width: W.
        out: Width of the prediction: the vocabulary, or F.
        own: Whether the head has its own table.
        eps: Epsilon of LayerNorm.
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
        """Predict [M, out] from states [M, W]; ``table`` [out, W] is for a head without its own."""
        hidden = self.norm(F.gelu(self.dense(states)))
        weight = self.table if table is None else table
        assert weight is not None
        return F.linear(hidden, weight, self.bias)
