"""Hinge losses on a score matrix: every negative must score a margin lower than the positive.

Each loss is a mean over the positive pairs, title to image, plus the same for image to title.

Shapes: Q titles, N images, M positive pairs; rows of ``t2i`` are titles, rows of ``i2t`` images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.transfer import to_device

EPSILON = 1e-5
"""Keeps the gradient of ``x^(1/8)`` finite where no negative violates the margin (x = 0)."""


def power_hinge_loss(
    t2i: Tensor,
    i2t: Tensor,
    positives: Tensor,
    margin: float,
    *,
    include_diagonal: bool = False,
    power: int = 8,
) -> Tensor:
    """Compute the soft-max hinge (Inflate and Shrink, eq. 5).

    ``1/B Σ_i (ε + Σ_j [m + S_ij - S_ii]₊⁸)^⅛`` over rows, plus the same over columns. The hardest
    negative dominates, but every negative that violates the margin has a gradient.

    Args:
        t2i: [Q, N] unscaled scores, title to image.
        i2t: [N, Q] unscaled scores, image to title.
        positives: [Q, N] bool, the pairs that match: each is one ``i`` of the sum, none a negative.
            Better on the host: their number is read.
        margin: m, in units of the scores.
        include_diagonal: Include j = i in the sum, as the paper's code does; adds m⁸ to each sum.
        power: 8. A larger power comes closer to the hardest negative alone.
    """

    def side(scores: Tensor, positive: Tensor) -> Tensor:
        over, wanted = _over_margin(scores, positive, margin)
        total = over.pow(power).sum(dim=1)
        if include_diagonal:
            total = total + margin**power
        return (EPSILON + total).pow(1 / power).sum() / max(1, wanted)

    return side(t2i, positives) + side(i2t, positives.T)


def triplet_loss(t2i: Tensor, i2t: Tensor, positives: Tensor, margin: float) -> Tensor:
    """Compute the hinge of the hardest negative (VSE++; ALADIN, eq. 3).

    ``1/B Σ_i max_j [m + S_ij - S_ii]₊`` over rows, plus the same over columns.

    Args:
        t2i: [Q, N] unscaled scores, title to image.
        i2t: [N, Q] unscaled scores, image to title.
        positives: [Q, N] bool, the pairs that match: each is one ``i`` of the sum, none a negative.
        margin: m, in units of the scores.
    """

    def side(scores: Tensor, positive: Tensor) -> Tensor:
        over, wanted = _over_margin(scores, positive, margin)
        return over.amax(dim=1).sum() / max(1, wanted)

    return side(t2i, positives) + side(i2t, positives.T)


def _over_margin(scores: Tensor, positives: Tensor, margin: float) -> tuple[Tensor, int]:
    """Return by how much each negative violates the margin, [M, C], and M.

    One row per positive pair; 0 for positives and for negatives below the margin.
    """
    rows, columns = to_device(positives.nonzero(), scores.device).unbind(1)
    positives = to_device(positives, scores.device)
    scores = scores.float()
    # index_select instead of indexing: its gradient is added up in the same order in every run
    own = scores.index_select(0, rows)
    right = own.gather(1, columns[:, None])
    over = (margin + own - right).clamp_min(0)
    return torch.where(positives[rows], 0.0, over), len(rows)
