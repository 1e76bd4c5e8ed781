"""Masked modelling: predict hidden tokens (MLM) or hidden patches (MFM) from what is visible.

Both return one loss per hidden position and no mean: the caller adds up the positions of all chunks
and processes and divides by their number.

Shapes: M hidden positions, V vocabulary, C candidate patches, F features of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_token_losses(
    logits: Tensor, tokens: Tensor, momentum: Tensor | None = None, alpha: float = 0.0
) -> Tensor:
    """Compute the cross-entropy of each hidden token, with soft targets if there are any.

    ``(1 - α) CE(p, y) - α Σ_v q_v log p_v`` with ``q`` the momentum encoder's softmax (ALBEF,
    eq. 3 and 7).

    Args:
        logits: [M, V] at the hidden positions.
        tokens: [M] int64, the hidden tokens.
        momentum: [M, V] logits of the momentum encoder; None: no soft targets.
        alpha: α, the weight of the soft targets, in [0, 1].

    Returns:
        [M] float32; the random-guess loss is ``ln V`` each.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    hard = -log_p.gather(1, tokens[:, None]).squeeze(1)
    if momentum is None or not alpha:
        return hard
    soft = torch.softmax(momentum.detach().float(), dim=1)
    return (1 - alpha) * hard - alpha * (soft * log_p).sum(dim=1)


def masked_patch_losses(
    outputs: Tensor, own: Tensor, candidates: Tensor, temperature: float | None = None
) -> Tensor:
    """Compute NCE: each hidden patch's output picks its own features among all patches of a batch.

    ``-log exp(o · f_own / τ) / Σ_c exp(o · f_c / τ)``; plain products (τ = 1), or cosines divided
    by a temperature (the masked frame model of HERO and of the QQ-browser challenge's winners).

    Args:
        outputs: [M, F] at the hidden patches.
        own: [M] int64, the row of each patch's own features in ``candidates``.
        candidates: [C, F] original features of all valid patches; they get no gradient.
        temperature: τ of cosines; None: plain dot products.

    Returns:
        [M] float32; the random-guess loss is ``ln C`` each.
    """
    outputs, candidates = outputs.float(), candidates.detach().float()
    if temperature is not None:
        outputs = F.normalize(outputs, dim=1) / temperature
        candidates = F.normalize(candidates, dim=1)
    return F.cross_entropy(outputs @ candidates.T, own, reduction="none")
