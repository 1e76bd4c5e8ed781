"""The slow scorers: cross-encoders over (title, image).

Shapes: K pairs, L text positions, P patches, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagformer_cli.encoders.fusion import FusionEncoder


class MatchingHead(nn.Module):
    """ITM: fusion encoder, then two logits (no match, match) of position 0 (ALBEF, section 3.2).

    Args:
        fusion: The layers in which the title looks at the image.
        width: Width of the text states.
    """

    def __init__(self, fusion: FusionEncoder, width: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.itm_head = nn.Linear(width, 2)

    def forward(self, text_states: Tensor, text_mask: Tensor, image_states: Tensor) -> Tensor:
        """Logits of pairs.

        Args:
            text_states: [K, L, W].
            text_mask: [K, L] bool, True keeps.
            image_states: [K, 1 + P, W'].

        Returns:
            [K, 2]: no match, match.
        """
        fused = self.fusion(text_states, text_mask, image_states)
        logits: Tensor = self.itm_head(fused[:, 0])
        return logits

    def score(self, text_states: Tensor, text_mask: Tensor, image_states: Tensor) -> Tensor:
        """One number a pair: the log-odds of a match, [K] float32."""
        logits = self(text_states, text_mask, image_states).float()
        return torch.sub(logits[:, 1], logits[:, 0])
