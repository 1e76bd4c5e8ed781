"""Each token's part of MaxSim, as an input of the matching head.

A fusion encoder from random weights needs many steps to learn whether an image shows what a token
names. The projections of trained towers know it already. So each token's best cosine among the
image's positions is added to its state, along a learned direction, before the first fusion layer::

    token states [L, W]  ─▶ projection ─▶ unit vectors ─┐
                                                        ├▶ cosines [L, P] ─▶ max over P [L]
    image states [P, W'] ─▶ projection ─▶ unit vectors ─┘                      │
    token states [L, W]  ──────────────────────────────────────▶ + ◀── × direction [W]

Similarities of a first stage as inputs of a cross-encoder: CEDR (MacAvaney et al. 2019,
arXiv:1904.07094); its score as an input: Askari et al. 2023 (arXiv:2301.09728). The projections
begin as copies of the towers' and are trained with the head.

Shapes: K pairs, B images, L text positions, P image positions, W width of the text, W' of the
image, D embedding dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.encoders.states import States

MIDDLE, SPREAD = 0.5, 0.125
"""Best cosines are mostly within two spreads of the middle: so scaled, they are about as large as
the states that they are added to."""
DIRECTION_STD = 0.3
"""Standard deviation of the learned direction before training."""


class TokenMaxSim(nn.Module):
    """Adds each token's best cosine to its state.

    Args:
        text: Projection of text states to D; its copy is trained.
        image: Projection of image states to D, likewise.
        image_first: Include the image's first position, as MaxSim does (``model.image_first``).
    """

    def __init__(self, text: nn.Linear, image: nn.Linear, *, image_first: bool = True) -> None:
        super().__init__()
        self.image_first = image_first
        self.text_proj, self.vision_proj = _copy(text), _copy(image)
        self.direction = nn.Parameter(torch.randn(text.in_features) * DIRECTION_STD)

    def forward(self, texts: States, images: States, rows: Tensor | None = None) -> States:
        """Add the best cosines to the states of titles.

        Args:
            texts: [K, L, W] states.
            images: [B, P, W'] states.
            rows: [K] int64, the image of each title; None: title k reads image k (B = K).

        Returns:
            [K, L, W] states with the mask of ``texts``.
        """
        if not self.image_first:
            images = images.without_first()
        tokens = F.normalize(self.text_proj(texts.values), dim=-1)
        positions, mask = F.normalize(self.vision_proj(images.values), dim=-1), images.mask
        if rows is not None:
            positions = positions.index_select(0, rows)
            mask = None if mask is None else mask.index_select(0, rows)
        cosines = tokens @ positions.transpose(1, 2)  # [K, L, P]
        if mask is not None:
            cosines = cosines.masked_fill(~mask[:, None, :], -1.0)
        best = (cosines.amax(dim=-1, keepdim=True) - MIDDLE) / SPREAD
        return States(texts.values + best * self.direction, texts.mask)


def _copy(projection: nn.Linear) -> nn.Linear:
    """Copy a projection; the copy is trained even if the original is frozen."""
    has_bias = projection.bias is not None
    with torch.device("meta"):  # draws no random numbers
        copied = nn.Linear(projection.in_features, projection.out_features, bias=has_bias)
    copied = copied.to_empty(device=projection.weight.device)
    copied.load_state_dict(projection.state_dict())
    return copied
