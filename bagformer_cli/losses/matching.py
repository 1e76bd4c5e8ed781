"""Image-text matching (ITM): the loss of labelled pairs, and how negative pairs are chosen.

Shapes: Q titles, N images, K pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy over (no match, match).

    Args:
        logits: [K, 2] (ALBEF, eq. 4), or [K, 1], the log-odds of a match (binary cross-entropy).
        labels: [K] int64, 1 for a match.
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0].float(), labels.float())
    return F.cross_entropy(logits.float(), labels)


@torch.no_grad()
def hard_negatives(scores: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a negative for each row, with a probability that grows with its score (ALBEF, 3.2).

    Args:
        scores: [Q, N] logits (scaled scores) of each row against all candidates.
        positives: [Q, N] bool, pairs that match; they are never drawn.

    Returns:
        columns [Q] int64, and [Q] bool: False for a row that has only positives. Its column is
        meaningless and must be left out.

    >>> scores = torch.tensor([[9.0, 1.0, 8.0]])
    >>> hard_negatives(scores, torch.tensor([[True, False, True]]))
    (tensor([1]), tensor([True]))
    """
    weights = torch.softmax(scores.float().masked_fill(positives, -torch.inf), dim=1)
    possible = ~positives.all(dim=1)
    # A diverged model scores NaN, which cannot be drawn from. The loss of any pair is then NaN too,
    # and the training loop stops with advice.
    weights = torch.nan_to_num(weights, nan=0.0)
    # 1e-6: a row whose softmax underflows still has a negative to draw
    weights = torch.where(possible[:, None], weights + 1e-6 * ~positives, torch.ones_like(weights))
    # One draw of each row, as torch.multinomial makes it (the largest ratio of weight to an
    # exponential random number), without its checks, for which some versions wait for the GPU.
    return (weights / torch.empty_like(weights).exponential_()).argmax(dim=1), possible


@torch.no_grad()
def reversed_negatives(own: Tensor, positives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pair the second half of a batch with its images in reverse order, the first half as it is.

    The winners of the QQ-browser challenge made negatives in this way. If the second half has an
    odd number of titles, the one in its middle meets its own image: that pair is left out, as are
    all others of the second half that match. A batch of 10::

        titles  0 1 2 3 4 | 5 6 7 8 9
        images  0 1 2 3 4 | 9 8 7 6 5      (7, 7) is left out: 5 right and 4 wrong pairs

    Args:
        own: [Q] int64, each title's own image.
        positives: [Q, N] bool; reversed pairs that match are dropped.

    Returns:
        rows and columns of the pairs, both [K] int64, and [K] labels, 1 for a match.
    """
    half = (len(own) + 1) // 2
    columns = torch.cat([own[:half], own[half:].flip(0)])
    rows = torch.arange(len(own), device=own.device)
    wrong = rows >= half
    kept = ~(wrong & positives[rows, columns])
    return rows[kept], columns[kept], (~wrong[kept]).long()
