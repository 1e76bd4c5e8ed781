"""Other implementations of MaxSim on a GPU: plain torch, and two libraries if installed.

``late-interaction-kernels`` and ``flash-maxsim`` (Apache-2.0) are Triton kernels for one direction.
They read titles padded to at least 25 bags::

    title of 2 bags       b1  b2  0   0  …        mask  1  1  0  0  …
    title of 4 bags       b1  b2  b3  b4 …        mask  1  1  1  1  …

Shapes: Q titles of G bags in total, at most L of one title, N images × P patches, D dimensions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bagformer_cli.bench.plain_maxsim import pad
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors

PADDED = 25
PRODUCT_BYTES = 2 << 30  # of the products that are in memory at once


class Peer(NamedTuple):
    """Another implementation of a measured work.

    Attributes:
        name: Name in the tables.
        run: Does the work once; raises ``NotInstalledError`` if its package is missing.
        both: True if it computes both directions; False: titles to images only.
    """

    name: str
    run: Callable[[], object]
    both: bool = False


class NotInstalledError(Exception):
    """The package of a peer is not installed."""


def peers(texts: MultiVectors, images: MultiVectors) -> list[Peer]:
    """Return the peers that score titles against images.

    Args:
        texts: Q titles, float32 or bfloat16.
        images: N images of equal length, of the same type and on the same device.
    """
    titles, real = padded(texts)
    lengths = texts.lengths.to(titles.device, torch.int32)
    dense = images.values.view(len(images), -1, images.dim)

    def one_way(library: Any) -> object:
        return library.maxsim(titles, dense, q_mask=real)

    def two_ways(library: Any) -> object:
        return one_way(library), library.maxsim(dense, titles, d_mask=real)

    def flash(library: Any) -> object:
        return library.flash_maxsim_batched(titles, dense, query_lengths=lengths)

    return [
        Peer("packed mm + amax, one direction", partial(packed_t2i, texts, images)),
        _of("late_interaction_kernels", "one direction", one_way),
        _of("late_interaction_kernels", "two calls", two_ways, both=True),
        _of("flash_maxsim", "one direction", flash),
    ]


def loss_peers(
    texts: MultiVectors, images: MultiVectors, loss: Callable[[Tensor, Tensor], Tensor]
) -> list[Peer]:
    """Return the peers that score both directions and compute gradients of all vectors.

    Args:
        texts: Q titles, float32 or bfloat16.
        images: N images of equal length, of the same type and on the same device.
        loss: Makes a number of the scores [Q, N] and [N, Q].
    """
    titles, real = padded(texts)
    titles.requires_grad_()
    dense = images.values.view(len(images), -1, images.dim).clone().requires_grad_()

    def step(library: Any) -> None:
        titles.grad = dense.grad = None
        t2i = library.maxsim(titles, dense, q_mask=real)
        i2t = library.maxsim(dense, titles, d_mask=real)
        loss(t2i, i2t).backward()  # type: ignore[no-untyped-call]

    return [_of("late_interaction_kernels", "two calls", step, both=True)]


def _of(module: str, way: str, work: Callable[[Any], object], *, both: bool = False) -> Peer:
    """Return a peer that calls ``work`` with a module, which is imported when the peer runs."""

    def run() -> object:
        if not find_spec(module):
            raise NotInstalledError
        return work(importlib.import_module(module))

    return Peer(f"{module.replace('_', '-')}, {way}", run, both)


def failure_of(error: Exception) -> str:
    """Return in one line why a measurement failed."""
    if isinstance(error, NotInstalledError):
        return tr("not installed")
    return f"{type(error).__name__}: {error}".splitlines()[0]


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


def padded(texts: MultiVectors) -> tuple[Tensor, Tensor]:
    """Return titles [Q, L, D], filled with zeros, and which bags are real [Q, L]; L is ≥ 25."""
    length = max(PADDED, int(texts.lengths.max()))
    real = torch.arange(length) < texts.lengths[:, None]
    return pad(texts, length), real.to(texts.device)
