"""Captioning: likelihood of a title's tokens, given its image.

Shapes: K pairs, T predicted tokens.
"""

from __future__ import annotations

from torch import Tensor


def captioning_loss(forward: Tensor, backward: Tensor, mask: Tensor) -> Tensor:
    """Compute ``-1/n Σ_l [log p(y_l | y_<l, x) + log p(y_l | y_>l, x)]`` over n tokens.

    Thinking Fast and Slow, eq. 2: the mean cross-entropy of the forward reading plus that of the
    backward reading.

    Args:
        forward: [K, T] log-likelihoods of the forward reading.
        backward: [K, T] log-likelihoods of the backward reading.
        mask: [K, T] bool, True where a token is predicted.

    Returns:
        A scalar; the random-guess loss is ``2 ln V`` with a vocabulary of V tokens.
    """
    total = ((forward + backward) * mask).sum()
    return -total / mask.sum().clamp(min=1)
