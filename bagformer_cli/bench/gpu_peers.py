"""Other implementations of MaxSim on a GPU: plain torch, and two libraries if installed.

``late-interaction-kernels`` and ``flash-maxsim`` (Apache-2.0) are Triton kernels for one direction;
titles are padded to 25 bags for them.

Shapes: Q titles of G bags in total, N images × P patches, D dimensions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.vectors.multi_vectors import MultiVectors

PADDED = 25
PRODUCT_BYTES = 2 << 30  # of the products that are in memory at once

Peer = Callable[[], object]


def peers(texts: MultiVectors, images: MultiVectors, *, both: bool) -> dict[str, Peer]:
    """Return the peers that can run here, by name.

    Args:
        texts: Q titles, bfloat16.
        images: N images of equal length, bfloat16.
        both: Whether the libraries are also called for the other direction.
    """
    found: dict[str, Peer] = {"packed mm + amax, one direction": lambda: packed_t2i(texts, images)}
    titles, real = padded(texts, max(PADDED, int(texts.lengths.max())))
    dense = images.values.view(len(images), -1, images.dim)
    if find_spec("late_interaction_kernels"):
        score = importlib.import_module("late_interaction_kernels").maxsim

        def late_interaction_kernels() -> Any:
            one = score(titles, dense, q_mask=real)
            return (one, score(dense, titles, d_mask=real)) if both else one

        found["late-interaction-kernels" + (", two calls" if both else "")] = (
            late_interaction_kernels
        )
    if find_spec("flash_maxsim"):
        batched = importlib.import_module("flash_maxsim").flash_maxsim_batched
        lengths = texts.lengths.to(texts.device, torch.int32)
        found["flash-maxsim, one direction"] = lambda: batched(
            titles, dense, shared_docs=True, query_lengths=lengths
        )
    return found


def packed_t2i(texts: MultiVectors, images: MultiVectors) -> Tensor:
    """Score titles with one matrix product a block of images: [Q, N] float32."""
    patches = len(images.values) // max(1, len(images))
    step = max(1, PRODUCT_BYTES // (2 * len(texts.values) * patches))
    owner = reference.owners(texts.offsets, texts.device)
    parts = []
    for first in range(0, len(images), step):
        block = images[first : first + step]
        products = texts.values @ block.values.T
        best = products.view(len(products), len(block), patches).amax(2).float()
        total = torch.zeros(len(texts), len(block), device=texts.device)
        parts.append(total.index_add_(0, owner, best))
    return torch.cat(parts, 1)


def padded(texts: MultiVectors, length: int) -> tuple[Tensor, Tensor]:
    """Return titles [Q, length, D], filled with zeros, and which bags are real [Q, length]."""
    real = torch.arange(length) < texts.lengths[:, None]
    out = texts.values.new_zeros(len(texts), length, texts.dim)
    out[real.to(texts.device)] = texts.values
    return out, real.to(texts.device)
