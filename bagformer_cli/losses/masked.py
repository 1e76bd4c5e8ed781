"""Masked modelling: what was hidden, told from what can be seen (MLM for tokens, MFM for patches).

Both give one loss a hidden place and no mean: whoever adds up the places of a whole batch, in parts
or over processes, divides by their number.

Shapes: M hidden places, V vocabulary, C candidate patches, F features of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_token_losses(
    logits: Tensor, tokens: Tensor, momentum: Tensor | None = None, alpha: float = 0.0
) -> Tensor:
    """Cross-entropy of each hidden token, partly against what a momentum model believes.

    ``(1 - α) CE(p, y) - α Σ_v q_v log p_v`` with ``q`` the momentum model's softmax (ALBEF, eq. 3
    and 7).

    Args:
        logits: [M, V] of the hidden places alone.
        tokens: [M] int64, what stood there.
        momentum: [M, V] logits of the momentum model; None: true tokens alone.
        alpha: α, the weight of its belief.

    Returns:
        [M] float32, ``ln V`` each by chance.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    hard = -log_p.gather(1, tokens[:, None]).squeeze(1)
    if momentum is None or not alpha:
        return hard
    belief = torch.softmax(momentum.detach().float(), dim=1)
    return (1 - alpha) * hard - alpha * (belief * log_p).sum(dim=1)


def masked_patch_losses(
    outputs: Tensor, own: Tensor, candidates: Tensor, temperature: float | None = None
) -> Tensor:
    """NCE: each hidden patch's output picks out its own features among all patches of a batch.

    ``-log exp(o · f_own / τ) / Σ_c exp(o · f_c / τ)``; plain products (τ = 1), or cosines divided
    by a temperature (the masked frame model of HERO and of the QQ-browser challenge's winners).

    Args:
        outputs: [M, F] of the hidden patches.
        own: [M] int64, the place of each one's own features among the candidates.
        candidates: [C, F] original features of all valid patches; they get no gradient.
        temperature: τ of the normalised form; None: the plain one.

    Returns:
        [M] float32, ``ln C`` each by chance.
    """
    outputs, candidates = outputs.float(), candidates.detach().float()
    if temperature is not None:
        outputs = F.normalize(outputs, dim=1) / temperature
        candidates = F.normalize(candidates, dim=1)
    return F.cross_entropy(outputs @ candidates.T, own, reduction="none")
