"""Image-text matching (ITM): does this title belong to this image?

Shapes: Q titles, N images, K pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over (no match, match), the mean over pairs (ALBEF, eq. 4).

    Args:
        logits: [K, 2].
        labels: [K] int64, 1 for a match.
    """
    return F.cross_entropy(logits.float(), labels)


@torch.no_grad()
def hard_negatives(scores: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one wrong partner for each row, the likelier the better it scores (ALBEF, section 3.2).

    Args:
        scores: [Q, N] logits (scaled scores) of each row against all candidates.
        positives: [Q, N] bool; these are never drawn.

    Returns:
        columns [Q] int64, and [Q] bool: False where a row has nothing but positives (its column
        means nothing and must be left out).
    """
    weights = torch.softmax(scores.float().masked_fill(positives, -torch.inf), dim=1)
    possible = ~positives.all(dim=1)
    weights = torch.where(possible[:, None], weights + 1e-6 * ~positives, torch.ones_like(weights))
    return torch.multinomial(weights, 1).squeeze(1), possible
