"""MaxSim: the late interaction of titles and images, both directions from the same dot products.

Shapes: Q titles of G bags in all, N images of P patches in all, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.errors import InputError
from bagformer_cli.interaction.vectors import MultiVectors
from bagformer_cli.messages import tr


def maxsim(texts: MultiVectors, images: MultiVectors) -> tuple[Tensor, Tensor]:
    """Score every title against every image, both ways (BagFormer eq. 4; ColBERT eq. 3).

    Args:
        texts: Q titles.
        images: N images, of the same dimension and device.

    Returns:
        ``t2i`` [Q, N], for each title and image the sum over the title's vectors of the largest
        dot product with a vector of the image; ``i2t`` [N, Q], the other way round. float32.
        Differentiable. An item without vectors scores 0.

    Raises:
        InputError: If the dimensions differ.
    """
    if texts.dim != images.dim:
        raise InputError(
            tr("Titles and images have vectors of different dimension."),
            found=images.dim,
            expected=texts.dim,
        )
    x = images.to(dtype=torch.float32)
    y = texts.to(dtype=torch.float32)
    products = x.values @ y.values.T
    t2i = _max_then_sum(products, x, y)
    i2t = _max_then_sum(products.T, y, x)
    return t2i.T, i2t.T


def _max_then_sum(products: Tensor, rows: MultiVectors, columns: MultiVectors) -> Tensor:
    """[rows, columns] → [items, items]: max over each row item, then sum over each column item."""
    length = rows.uniform_length
    if length:
        best = products.reshape(len(rows), length, -1).amax(1)
    else:
        # A ragged item repeats its last row up to the longest: no maximum changes.
        place = torch.arange(int(rows.lengths.max()) if len(rows) else 0)
        last = (rows.lengths - 1).clamp_min(0)
        index = (rows.offsets[:-1, None] + torch.minimum(place, last[:, None])).clamp_max(
            max(len(products) - 1, 0)
        )
        best = products.new_zeros(len(rows), products.shape[1])
        if index.numel() and len(products):
            filled = (rows.lengths > 0).to(products.device)
            best = torch.where(filled[:, None], products[index.to(products.device)].amax(1), best)
    item = torch.arange(len(columns)).repeat_interleave(columns.lengths).to(products.device)
    return best.new_zeros(len(rows), len(columns)).index_add(1, item, best)
