"""Contrastive objectives on a score matrix.

Shapes: Q titles, N images; rows of ``t2i`` are titles, rows of ``i2t`` images, as in MaxSim.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    t2i: Tensor, i2t: Tensor, positives: Tensor, temperature: Tensor | float = 1.0
) -> Tensor:
    """Symmetric InfoNCE: each title picks its images, each image its titles.

    ``½ [mean_q CE(softmax(t2i_q / τ), y_q) + mean_n CE(softmax(i2t_n / τ), y_n)]`` where ``y``
    shares its weight equally among a row's positives (ALBEF, eq. 1 and 2, with in-batch targets;
    FILIP, eq. 3, for MaxSim scores; BagFormer's ITA and TWC).

    Args:
        t2i: [Q, N] unscaled scores, title to image.
        i2t: [N, Q] unscaled scores, image to title.
        positives: [Q, N] bool: which pairs belong together. Rows and columns without any positive
            are left out of their mean.
        temperature: Divides the scores.

    Returns:
        A scalar, ``ln N`` by chance where each row has one positive of N.
    """
    rows = _cross_entropy(t2i / temperature, positives)
    columns = _cross_entropy(i2t / temperature, positives.T)
    return (rows + columns) / 2


def _cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    counts = positives.sum(dim=1)
    targets = positives / counts.clamp(min=1)[:, None]
    losses = -(targets * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)
