"""Contrastive losses on a score matrix: InfoNCE, with true labels or with soft targets.

Shapes: Q titles, N images; rows of ``t2i`` are titles, rows of ``i2t`` images, as in MaxSim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    t2i: Tensor, i2t: Tensor, positives: Tensor, temperature: Tensor | float = 1.0
) -> Tensor:
    """Compute symmetric InfoNCE: each title picks its images, each image its titles.

    ``½ [mean_q CE(softmax(t2i_q / τ), y_q) + mean_n CE(softmax(i2t_n / τ), y_n)]`` where ``y``
    shares its weight equally among a row's positives (ALBEF, eq. 1 and 2, with in-batch targets;
    FILIP, eq. 3, for MaxSim scores; BagFormer's ITA and TWC).

    Args:
        t2i: [Q, N] unscaled scores, title to image.
        i2t: [N, Q] unscaled scores, image to title.
        positives: [Q, N] bool, the pairs that match. Rows and columns without a positive are left
            out of the mean.
        temperature: τ, divides the scores. A smaller τ weights the hardest negatives more.

    Returns:
        A scalar. With one positive per row and N candidates, the random-guess loss is ``ln N``.

    >>> guess = torch.zeros(4, 4)
    >>> contrastive_loss(guess, guess, torch.eye(4, dtype=torch.bool))  # ln 4
    tensor(1.3863)
    """
    rows = _cross_entropy(t2i / temperature, positives)
    columns = _cross_entropy(i2t / temperature, positives.T)
    return (rows + columns) / 2


class SoftTargets(NamedTuple):
    """One direction of :func:`momentum_contrastive_loss`: R rows against C candidates.

    The candidates are vectors of the momentum encoder: those of the batch and those of a queue.

    Attributes:
        scores: [R, C] unscaled scores of the model's rows with the candidates.
        momentum: [R, C] unscaled scores of the momentum encoder's rows with the candidates.
        positives: [R, C] bool, the pairs that match.
    """

    scores: Tensor
    momentum: Tensor
    positives: Tensor


def momentum_contrastive_loss(
    t2i: SoftTargets, i2t: SoftTargets, alpha: float, temperature: Tensor | float = 1.0
) -> Tensor:
    """Compute symmetric InfoNCE against a batch and queues, with soft targets.

    ``½ [mean_q H(α softmax(m_q / τ) + (1 - α) y_q, softmax(s_q / τ)) + the same for images]``, with
    ``s`` the model's scores, ``m`` the momentum encoder's and ``y`` shared equally among a row's
    positives (ALBEF, eq. 6). Every row has a positive: its own partner.

    Args:
        t2i: Titles against images.
        i2t: Images against titles.
        alpha: α, weight of the momentum encoder's softmax in the targets, in [0, 1].
        temperature: τ, divides all scores.
    """

    def side(rows: SoftTargets) -> Tensor:
        with torch.no_grad():
            soft = torch.softmax(rows.momentum.float() / temperature, dim=1)
            targets = alpha * soft + (1 - alpha) * _shared(rows.positives)
        # float32: a softmax over tens of thousands of queued candidates loses too much in bfloat16
        log_p = F.log_softmax((rows.scores / temperature).float(), dim=1)
        return -(targets * log_p).sum(dim=1).mean()

    return (side(t2i) + side(i2t)) / 2


def _shared(positives: Tensor) -> Tensor:
    """Share a weight of 1 equally among each row's positives."""
    return positives / positives.sum(dim=1).clamp(min=1)[:, None]


def _cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    counts = positives.sum(dim=1)
    losses = -(_shared(positives) * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)
