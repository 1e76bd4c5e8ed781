"""MaxSim as it is usually written: what ours is measured against.

Shapes: B or Q titles × L bags (padded with zero vectors), N images × P patches, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.vectors.multi_vectors import MultiVectors


def pad(texts: MultiVectors, length: int) -> Tensor:
    """[Q, length, D], short titles filled with zero vectors, as BagFormer's evaluation does."""
    padded = texts.values.new_zeros(len(texts), length, texts.dim)
    place = torch.arange(len(texts.values)) - texts.offsets[:-1].repeat_interleave(texts.lengths)
    item = torch.arange(len(texts)).repeat_interleave(texts.lengths)
    padded[item, place] = texts.values
    return padded


def original_t2i(titles: Tensor | Sequence[Tensor], images: Tensor) -> Tensor:
    """BagFormer's way: one title at a time against all images. [Q, N]."""
    across = images.permute(0, 2, 1)
    return torch.stack([(title @ across).max(2).values.sum(1) for title in titles])


def original_i2t(titles: Tensor, images: Tensor) -> Tensor:
    """BagFormer's way: one image at a time against all titles. [N, Q]."""
    across = titles.permute(0, 2, 1)
    return torch.stack([(image @ across).max(2).values.sum(1) for image in images])


def einsum_t2i(titles: Tensor, images: Tensor, chunk: int = 16) -> Tensor:
    """All titles against ``chunk`` images at a time. [Q, N]."""
    parts = [
        torch.einsum("qld,npd->qnlp", titles, block).amax(3).sum(2)
        for block in torch.split(images, chunk)
    ]
    return torch.cat(parts, 1)


def einsum_both(titles: Tensor, images: Tensor, chunk: int = 16) -> tuple[Tensor, Tensor]:
    """As :func:`einsum_t2i`, both directions of the same products. [Q, N], [N, Q]."""
    down, up = [], []
    for block in torch.split(images, chunk):
        products = torch.einsum("qld,npd->qnlp", titles, block)
        down.append(products.amax(3).sum(2))
        up.append(products.amax(2).sum(2).T)
    return torch.cat(down, 1), torch.cat(up)


def packed(texts: MultiVectors, images: MultiVectors, budget: int) -> tuple[Tensor, Tensor]:
    """Ours without compiled loops: packed blocks and torch's own maxima. [Q, N], [N, Q]."""
    with torch.no_grad():
        return reference.scores(texts, images, dtype=torch.float32, both=True, budget=budget)


def symmetric_loss(t2i: Tensor, i2t: Tensor) -> Tensor:
    """Cross-entropy of both score matrices, the right pair on the diagonal (no temperature)."""
    target = torch.arange(len(t2i))
    return (F.cross_entropy(t2i, target) + F.cross_entropy(i2t, target)) / 2
