"""MaxSim: late interaction of titles and images, in both directions from the same dot products.

Example, one title of two bags and one image of three patches::

                patch 0   patch 1   patch 2 │ max over patches
        bag 0     0.9       0.1       0.2   │ 0.9
        bag 1     0.3       0.4       0.5   │ 0.5  ──▶ t2i = 0.9 + 0.5 = 1.4
    ────────────────────────────────────────┘
    max over bags 0.9       0.4       0.5         ──▶ i2t = 0.9 + 0.4 + 0.5 = 1.8

This file chooses the path; the paths are in ``kernels/``: plain torch on every device
(``reference``, which defines the result), compiled tiles on the CPU (``cpu``), AVX-512 registers
(``avx512``, scores only), Triton on CUDA (``cuda``).

Shapes: Q titles of G bags in total, N images of P patches in total, D dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bagformer_cli.interaction.kernels import recompute, reference
from bagformer_cli.interaction.kernels.avx512 import scores as avx512
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.kernels.cpu import tiles
from bagformer_cli.interaction.kernels.reference import Argmax, Packed, ScoreGrads
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of

BUDGET = 256 << 20
"""Default bytes for temporaries, besides the vectors and the scores themselves."""

MAX_SAVED_ARGMAX_BYTES = 1 << 30
"""Above this, argmax indices are recomputed in the backward pass instead of kept for it."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Run the kernels of a GPU on the CPU, in Triton's interpreter: slow, for tests."""

DTYPES = (torch.float32, torch.bfloat16, torch.int8)
"""Types in which vectors are multiplied."""


def maxsim(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype | None = None,
    budget: int = BUDGET,
) -> tuple[Tensor, Tensor]:
    """Score every title against every image in both directions.

    With the bags ``b`` of title ``q`` and the patches ``p`` of image ``n``::

        t2i[q, n] = Σ_b max_p b·p        i2t[n, q] = Σ_p max_b b·p

    (ColBERT, Khattab and Zaharia 2020, eq. 3, for ``t2i``; FILIP, Yao et al. 2022, eqs. 4–6, for
    both directions, as means.) With unit vectors each term is a cosine, so ``t2i`` lies in
    [−bags, bags] of its title. An item without vectors scores 0 with everything. NaN or infinity
    in an item affects the scores of that item only.

    Args:
        texts: Q titles.
        images: N images of the same dimension, on the same device.
        dtype: Type in which vectors are multiplied: float32, bfloat16 or int8. Sums are always
            float32 (int8: exact integers first). bfloat16 halves and int8 quarters the time of
            float32 where the processor supports it, and both round the vectors. None: the stored
            type if both sides have the same, int8 if one side is int8, bfloat16 on CUDA under
            autocast to bfloat16, else float32. If a gradient is needed, int8 and stored types
            are ignored: float32, or bfloat16 where ``dtype`` or autocast says so. Gradients are
            float32.
        budget: Bytes that temporaries may take. The result does not depend on it.

    Returns:
        ``t2i`` [Q, N] and ``i2t`` [N, Q], float32. Both are differentiable once with respect to
        the values of both sides; of equal maxima the first gets the gradient.

    Raises:
        ValueError: The dimensions or devices differ, or ``dtype`` is none of the three.

    Example:
        >>> texts = MultiVectors.from_list([torch.tensor([[1.0, 0.0], [0.0, 1.0]])])
        >>> images = MultiVectors.from_list([torch.tensor([[0.9, 0.3], [0.1, 0.4], [0.2, 0.5]])])
        >>> t2i, i2t = maxsim(texts, images)
        >>> t2i, i2t
        (tensor([[1.4000]]), tensor([[1.8000]]))
    """
    _check(texts, images)
    dtype = dtype or _autocast_dtype(texts.device)
    if torch.is_grad_enabled() and (texts.values.requires_grad or images.values.requires_grad):
        multiplied = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
        with torch.autocast(texts.device.type, enabled=False):
            t2i, i2t = _MaxSim.apply(
                _floating(texts),
                _floating(images),
                texts.offsets,
                images.offsets,
                multiplied,
                budget,
            )
        return t2i, i2t
    return _scores(texts, images, both=True, dtype=dtype, budget=budget)


def score_texts(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype | None = None,
    candidates: Tensor | None = None,
    budget: int = BUDGET,
) -> Tensor:
    """Score every title against every image from title to image only, without gradients.

    Args:
        texts: Q titles.
        images: N images.
        dtype: See :func:`maxsim`.
        candidates: [n] int64, positions of the images to score; None: all N. int8 vectors are read
            where they are stored, others are copied in parts.
        budget: Bytes that temporaries may take.

    Returns:
        ``t2i`` [Q, N] float32, or [Q, n] of the candidates, in their order.

    Raises:
        ValueError: See :func:`maxsim`; or ``candidates`` are not positions of images.
    """
    _check(texts, images)
    if candidates is not None:
        return _score_candidates(texts, images, dtype, candidates, budget)
    return _scores(texts, images, both=False, dtype=dtype, budget=budget)[0]


def maxsim_blocks(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype | None = None,
    budget: int = BUDGET,
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Score a catalogue block by block: neither its vectors nor its scores need fit in memory.

    Args:
        texts: Q titles.
        images: N images, for example memory-mapped.
        dtype: See :func:`maxsim`.
        budget: Bytes for temporaries; half of it is for the scores and vectors of a block.

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
    """Keeps the vectors and the argmax for the backward pass, but no dot products.

    An argmax of more than ``MAX_SAVED_ARGMAX_BYTES`` is not kept: :mod:`.kernels.recompute`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        bags: Tensor,
        patches: Tensor,
        bag_offsets: Tensor,
        patch_offsets: Tensor,
        dtype: torch.dtype,
        budget: int,
    ) -> tuple[Tensor, Tensor]:
        path = _path(bags, patches, dtype)
        ctx.path, ctx.budget = path, budget
        bags, patches = bags.to(dtype), patches.to(dtype)
        if path is not cuda_kernels():  # products of rounded values are exact in float32
            bags, patches = bags.float(), patches.float()
        vectors = Packed(bags.contiguous(), patches.contiguous(), bag_offsets, patch_offsets)
        limit = MAX_SAVED_ARGMAX_BYTES
        if recompute.argmax_bytes(path, bag_offsets, patch_offsets) > limit:
            ctx.save_for_backward(*vectors)
            return recompute.forward(path, vectors, budget=budget, limit=limit)
        t2i, i2t, argmax = path.forward(vectors, budget=budget)
        ctx.save_for_backward(*vectors, *argmax)
        return t2i, i2t

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_t2i: Tensor, grad_i2t: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None, None]:
        vectors, saved = Packed(*ctx.saved_tensors[:4]), ctx.saved_tensors[4:]
        grads = ScoreGrads(grad_t2i.contiguous(), grad_i2t.contiguous())
        if saved:
            grad_bags, grad_patches = ctx.path.backward(
                vectors, Argmax(*saved), grads, budget=ctx.budget
            )
        else:
            grad_bags, grad_patches = recompute.backward(
                ctx.path, vectors, grads, budget=ctx.budget, limit=MAX_SAVED_ARGMAX_BYTES
            )
        return grad_bags, grad_patches, None, None, None, None


def _scores(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    both: bool,
    dtype: torch.dtype | None,
    budget: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` and, if ``both``, ``i2t`` (else [0, 0]) without gradients."""
    dtype = dtype or _default_dtype(texts, images)
    if dtype not in DTYPES:
        raise ValueError(f"vectors are multiplied as float32, bfloat16 or int8, not as {dtype}")
    path = _path(texts.values, images.values, dtype)
    with torch.no_grad(), torch.autocast(texts.device.type, enabled=False):
        if path is tiles and avx512.usable(texts, images, dtype, both=both):
            path = avx512
        t2i, i2t = path.scores(texts, images, dtype=dtype, both=both, budget=budget)
    return t2i, i2t


def _score_candidates(
    texts: MultiVectors,
    images: MultiVectors,
    dtype: torch.dtype | None,
    candidates: Tensor,
    budget: int,
) -> Tensor:
    """Compute ``t2i`` of some images: read in place if possible, else copied in parts."""
    dtype = dtype or _default_dtype(texts, images)
    candidates = images.check_positions(candidates)
    path = _path(texts.values, images.values, dtype)
    in_place = dtype == images.dtype == torch.int8 and path is tiles
    if in_place and avx512.usable(texts, images, dtype, both=False):
        return avx512.scores(
            texts, images, dtype=dtype, both=False, budget=budget, candidates=candidates
        )[0]
    limit = max(1, budget // (8 * max(1, images.values[:1].nbytes)))
    parts = [
        _scores(texts, images.select(candidates[a:b]), both=False, dtype=dtype, budget=budget // 2)[
            0
        ]
        for a, b in cut(offsets_of(images.lengths[candidates]), limit)
    ]
    return torch.cat([texts.values.new_zeros((len(texts), 0), dtype=torch.float32), *parts], 1)


def _default_dtype(texts: MultiVectors, images: MultiVectors) -> torch.dtype:
    if torch.int8 in (texts.dtype, images.dtype):
        return torch.int8
    if texts.dtype == images.dtype == torch.bfloat16:
        return torch.bfloat16
    return torch.float32


def _floating(vectors: MultiVectors) -> Tensor:
    """Return the values; of integers and codes, which have no gradient, as float32."""
    return (vectors if vectors.dtype.is_floating_point else vectors.to(dtype=torch.float32)).values


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where autocast makes matrix products of a GPU bfloat16, else None."""
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return None
    return torch.bfloat16 if torch.get_autocast_dtype("cuda") == torch.bfloat16 else None


def argmax_index_bytes(device: torch.device) -> tuple[int, int]:
    """Return the bytes of the index of a patch and of a bag in the argmax kept for a gradient."""
    if device.type == "cuda":
        cuda = cuda_kernels()
        if cuda and cuda.works(device, torch.float32):
            return (int(cuda.ARGMAX_BYTES[0]), int(cuda.ARGMAX_BYTES[1]))
    return reference.ARGMAX_BYTES


def _path(bags: Tensor, patches: Tensor, dtype: torch.dtype) -> ModuleType:
    """Choose the module that computes; each has ``scores``, ``forward`` and ``backward``."""
    if bags.device.type == "cuda" or INTERPRETED:
        cuda = cuda_kernels()
        if cuda and cuda.works(bags.device, dtype):
            return cuda
    if bags.device.type == "cpu":
        # Plain torch converts int8 to float32 first, so tiles are faster much earlier: 10 bags ×
        # 400 images take 9 ms in plain torch and 1 ms in AVX-512 registers.
        least = tiles.MIN_PRODUCTS >> 5 if dtype == torch.int8 else tiles.MIN_PRODUCTS
        large = len(bags) * len(patches) >= max(1, least)
        return tiles if large and tiles.kernels() is not None else reference
    return reference


@cache
def cuda_kernels() -> ModuleType | None:
    """Return the CUDA kernels, or None where Triton is not installed."""
    try:
        from bagformer_cli.interaction.kernels import cuda
    except (ImportError, RuntimeError, OSError):
        return None
    return cuda


def _check(texts: MultiVectors, images: MultiVectors) -> None:
    if texts.dim != images.dim:
        raise ValueError(
            f"texts and images must have the same dimension, found {texts.dim} and {images.dim}"
        )
    if texts.device != images.device:
        raise ValueError(
            f"texts and images must be on the same device, found {texts.device} and {images.device}"
        )
