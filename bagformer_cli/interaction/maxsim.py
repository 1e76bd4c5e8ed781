"""MaxSim: the late interaction of titles and images, both directions from the same dot products.

Shapes: Q titles of G bags in all, N images of P patches in all, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bagformer_cli.errors import InputError
from bagformer_cli.interaction.kernels import recompute as _recompute
from bagformer_cli.interaction.kernels import reference as _plain
from bagformer_cli.interaction.kernels.avx512 import scores as _wide
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.kernels.cpu import tiles as _cpu
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of

BUDGET = 256 << 20  # bytes for temporaries, beside the vectors and the scores themselves
KEEP = 1 << 30  # bytes of places of maxima kept for a backward pass; beyond, it finds them again


def maxsim(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype | None = None,
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """Score every title against every image, both ways (ColBERT eq. 3; FILIP eqs. 4–6).

    Args:
        texts: Q titles.
        images: N images, of the same dimension and on the same device.
        dtype: What is multiplied: float32, bfloat16 or int8; sums are float32 always. By default
            the stored type if both sides share one of these, int8 if either is int8, else
            float32. With gradients it is float32: a bfloat16 forward picks other maxima.
        budget: Bytes that temporaries may take, whatever Q and N.

    Returns:
        ``t2i`` [Q, N], for each title and image the sum over the title's vectors of the largest
        dot product with a vector of the image; ``i2t`` [N, Q], the other way round. float32.
        Differentiable: of equal maxima the first gets the gradient. An item without vectors
        scores 0.

    Raises:
        InputError: If dimensions or devices differ, or ``dtype`` is not one of the three.
    """
    _check(texts, images)
    if torch.is_grad_enabled() and (texts.values.requires_grad or images.values.requires_grad):
        with torch.autocast(texts.device.type, enabled=False):
            t2i, i2t = _MaxSim.apply(
                texts.to(dtype=torch.float32).values,
                images.to(dtype=torch.float32).values,
                texts.offsets,
                images.offsets,
                budget,
            )
        return t2i, i2t
    return _scores(texts, images, both=True, dtype=dtype, budget=budget)


def score_texts(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype | None = None,
    chosen: Tensor | None = None,
    budget: int = BUDGET,
) -> Tensor:
    """``t2i`` [Q, N] alone, without gradients: what a search needs. See :func:`maxsim`.

    Of ``chosen`` images alone ([n] int64, their positions) it is [Q, n].
    """
    _check(texts, images)
    if chosen is not None:
        return _score_chosen(texts, images, dtype, chosen, budget)
    return _scores(texts, images, both=False, dtype=dtype, budget=budget)[0]


def maxsim_blocks(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype | None = None,
    budget: int = BUDGET,
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Score a pile of images that never need to be in memory at once, nor their scores.

    Args:
        texts: Q titles.
        images: N images, memory-mapped perhaps.
        dtype: See :func:`maxsim`.
        budget: Bytes for temporaries; half of it for a block's scores and vectors.

    Yields:
        ``(first, end, t2i [Q, end - first], i2t [end - first, Q])``, in the order of the images.
    """
    _check(texts, images)
    per_vector = images.dim * images.values.element_size()
    mean = max(1.0, len(images.values) / max(1, len(images)))
    per_image = 8 * max(1, len(texts)) + mean * per_vector
    items = max(1, int(budget / 2 / per_image))
    for first, end in cut(images.offsets, max(1, int(items * mean))):
        block = images[first:end]
        t2i, i2t = _scores(texts, block, both=True, dtype=dtype, budget=budget // 2)
        yield first, end, t2i, i2t


class _MaxSim(torch.autograd.Function):
    """Keeps the places of the maxima, where they are not too many, and no dot products."""

    @staticmethod
    def forward(
        ctx: Any,
        bags: Tensor,
        patches: Tensor,
        bag_offsets: Tensor,
        patch_offsets: Tensor,
        budget: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.path = _path(bags, patches, bag_offsets, torch.float32)
        bags, patches = bags.contiguous(), patches.contiguous()
        ctx.budget = budget
        vectors = bags, patches, bag_offsets, patch_offsets
        if _recompute.places_bytes(bag_offsets, patch_offsets) > KEEP:
            ctx.save_for_backward(*vectors)
            return _recompute.forward(ctx.path, *vectors, budget=budget, keep=KEEP)
        t2i, i2t, arg_patch, arg_bag = ctx.path.forward(
            bags, patches, bag_offsets, patch_offsets, budget=budget
        )
        ctx.save_for_backward(*vectors, arg_patch, arg_bag)
        return t2i, i2t

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_t2i: Tensor, grad_i2t: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        bags, patches, bag_offsets, patch_offsets, *places = ctx.saved_tensors
        vectors = bags, patches, bag_offsets, patch_offsets
        grad_t2i, grad_i2t = grad_t2i.contiguous(), grad_i2t.contiguous()
        if places:
            grad_bags, grad_patches = ctx.path.backward(
                *vectors, *places, grad_t2i, grad_i2t, budget=ctx.budget
            )
        else:
            grad_bags, grad_patches = _recompute.backward(
                ctx.path, *vectors, grad_t2i, grad_i2t, budget=ctx.budget, keep=KEEP
            )
        return grad_bags, grad_patches, None, None, None


def _scores(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    both: bool,
    dtype: torch.dtype | None,
    budget: int,
) -> tuple[Tensor, Tensor]:
    dtype = dtype or _shared_type(texts, images)
    if dtype not in (torch.float32, torch.bfloat16, torch.int8):
        raise InputError(tr("Vectors are multiplied as float32, bfloat16 or int8."), found=dtype)
    path = _path(texts.values, images.values, texts.offsets, dtype)
    how: dict[str, Any] = {"dtype": dtype, "both": both, "budget": budget}
    with torch.no_grad(), torch.autocast(texts.device.type, enabled=False):
        if path is _cpu and _wide.can(texts, images, dtype, both=both):
            path = _wide
        t2i, i2t = path.scores(texts, images, **how)
    return t2i, i2t


def _score_chosen(
    texts: MultiVectors,
    images: MultiVectors,
    dtype: torch.dtype | None,
    chosen: Tensor,
    budget: int,
) -> Tensor:
    """``t2i`` of some images: read where they lie if they can be, else copied a part at a time."""
    dtype, chosen = dtype or _shared_type(texts, images), images.positions(chosen)
    path = _path(texts.values, images.values, texts.offsets, dtype)
    in_place = dtype == images.dtype == torch.int8 and path is _cpu
    if in_place and _wide.can(texts, images, dtype, both=False):
        how: dict[str, Any] = {"dtype": dtype, "both": False, "budget": budget}
        return _wide.scores(texts, images, **how, chosen=chosen)[0]
    limit = max(1, budget // (8 * max(1, images.values[:1].nbytes)))
    parts = [
        _scores(texts, images.select(chosen[a:b]), both=False, dtype=dtype, budget=budget // 2)[0]
        for a, b in cut(offsets_of(images.lengths[chosen]), limit)
    ]
    return torch.cat([texts.values.new_zeros((len(texts), 0), dtype=torch.float32), *parts], 1)


def _shared_type(texts: MultiVectors, images: MultiVectors) -> torch.dtype:
    if torch.int8 in (texts.dtype, images.dtype):
        return torch.int8
    if texts.dtype == images.dtype == torch.bfloat16:
        return torch.bfloat16
    return torch.float32


def _path(bags: Tensor, patches: Tensor, bag_offsets: Tensor, dtype: torch.dtype) -> ModuleType:
    """The module that computes: each has ``scores``, ``forward`` and ``backward``."""
    if bags.device.type == "cpu":
        # int8 as plain torch is widened first: 10 bags × 400 images 9 ms, in registers 1 ms.
        least = _cpu.WORTH_IT >> 5 if dtype == torch.int8 else _cpu.WORTH_IT
        worth_it = len(bags) * len(patches) >= max(1, least)
        return _cpu if worth_it and _cpu.kernels() is not None else _plain
    if bags.device.type == "cuda":
        fused = _fused()
        if fused and fused.fits(bag_offsets) and fused.works(bags.device, dtype):
            return fused
    return _plain


@cache
def _fused() -> ModuleType | None:
    """The CUDA kernels, or None where Triton is not installed."""
    try:
        from bagformer_cli.interaction.kernels import cuda as _triton
    except (ImportError, RuntimeError, OSError):
        return None
    return _triton


def _check(texts: MultiVectors, images: MultiVectors) -> None:
    if texts.dim != images.dim:
        raise InputError(
            tr("Titles and images have vectors of different dimension."),
            found=images.dim,
            expected=texts.dim,
        )
    if texts.device != images.device:
        raise InputError(
            tr("Titles and images are on different devices."),
            found=images.device,
            expected=texts.device,
        )
