"""MaxSim as it is usually written: the references that ours is measured against.

Shapes: Q titles × L bags (padded with zero vectors), N images × P patches, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.maxsim import BUDGET
from bagformer_cli.vectors.multi_vectors import MultiVectors


def pad(texts: MultiVectors, length: int) -> Tensor:
    """Pad every title with zero vectors to ``length`` [Q, length, D], as BagFormer evaluates."""
    padded = texts.values.new_zeros(len(texts), length, texts.dim)
    position = torch.arange(len(texts.values)) - texts.offsets[:-1].repeat_interleave(texts.lengths)
    item = torch.arange(len(texts)).repeat_interleave(texts.lengths)
    padded[item, position] = texts.values
    return padded


def original_t2i(titles: Tensor | Sequence[Tensor], images: Tensor) -> Tensor:
    """Score one title at a time against all images, as BagFormer's code does: [Q, N]."""
    across = images.permute(0, 2, 1)
    return torch.stack([(title @ across).max(2).values.sum(1) for title in titles])


def original_i2t(titles: Tensor, images: Tensor) -> Tensor:
    """Score one image at a time against all titles, as BagFormer's code does: [N, Q]."""
    across = titles.permute(0, 2, 1)
    return torch.stack([(image @ across).max(2).values.sum(1) for image in images])


def einsum_t2i(titles: Tensor, images: Tensor, chunk: int = 16) -> Tensor:
    """Score all titles against ``chunk`` images at a time: [Q, N]."""
    parts = [
        torch.einsum("qld,npd->qnlp", titles, block).amax(3).sum(2)
        for block in torch.split(images, chunk)
    ]
    return torch.cat(parts, 1)


def einsum_both(titles: Tensor, images: Tensor, chunk: int = 16) -> tuple[Tensor, Tensor]:
    """Score both directions from the same products, ``chunk`` images at a time: [Q, N], [N, Q]."""
    t2i, i2t = [], []
    for block in torch.split(images, chunk):
        products = torch.einsum("qld,npd->qnlp", titles, block)
        t2i.append(products.amax(3).sum(2))
        i2t.append(products.amax(2).sum(2).T)
    return torch.cat(t2i, 1), torch.cat(i2t)


def packed(texts: MultiVectors, images: MultiVectors) -> tuple[Tensor, Tensor]:
    """Score packed vectors with plain torch, without compiled loops: [Q, N], [N, Q]."""
    with torch.no_grad():
        return reference.scores(texts, images, dtype=torch.float32, both=True, budget=BUDGET)


def symmetric_loss(t2i: Tensor, i2t: Tensor) -> Tensor:
    """Compute the cross-entropy of both score matrices; the positives are on the diagonal."""
    target = torch.arange(len(t2i), device=t2i.device)
    return (F.cross_entropy(t2i, target) + F.cross_entropy(i2t, target)) / 2
