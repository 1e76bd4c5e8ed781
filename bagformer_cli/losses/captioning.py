"""Captioning: how likely the right words are.

Shapes: K pairs, T predicted tokens.
"""

from __future__ import annotations

from torch import Tensor


def captioning_loss(ahead: Tensor, behind: Tensor, mask: Tensor) -> Tensor:
    """``-1/n Σ_l [log p(y_l | y_<l, x) + log p(y_l | y_>l, x)]`` over the n tokens predicted.

    Thinking Fast and Slow, eq. 2: the mean of both readings' cross-entropy, added.

    Args:
        ahead: [K, T] log-likelihoods read forwards.
        behind: [K, T] log-likelihoods read backwards.
        mask: [K, T] bool, True where a token is predicted.

    Returns:
        A scalar, ``2 ln V`` by chance.
    """
    total = ((ahead + behind) * mask).sum()
    return -total / mask.sum().clamp(min=1)
