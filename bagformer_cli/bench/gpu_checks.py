"""Compare the kernels of a GPU with float64 on ragged shapes, before anything is timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.interaction.kernels import cuda, reference
from bagformer_cli.interaction.kernels.cuda.scan import DeviceBlock, scan
from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of
from bagformer_cli.vectors.residual_codes import Codebook

BUDGET = 1 << 28

SHAPES = {
    "ragged": ([3, 1, 40, 17, 0, 9] * 20, [257, 1, 300, 0, 33] * 8, 256),
    "one title, one image": ([5], [257], 256),
    "dimension 100": ([2, 0, 30], [577, 64], 100),
    "100,000 products": ([4] * 3, [1, 2] * 50_000, 64),
}
SMALL_SHAPES = {"ragged": ([3, 0, 1], [18, 0, 1], 16), "dimension 7": ([2], [3], 7)}

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 2e-2, "residual codes": 1e-2}
"""Largest error relative to the largest value; float64 gets the vectors before rounding."""


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        name: Computation and shapes.
        dtype: Type in which vectors are multiplied.
        error: Largest error relative to the largest value of float64.
        passed: Whether the error is small, and a second run gave the same bits.
    """

    name: str
    dtype: str
    error: float
    passed: bool


def all_checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Compare scores, gradients and scans with float64.

    Args:
        device: The GPU, or the CPU with Triton's interpreter.
        small: Few and small shapes.
    """
    for name, (titles, images, dim) in (SMALL_SHAPES if small else SHAPES).items():
        texts, items = _vectors(titles, dim, 0, device), _vectors(images, dim, 1, device)
        exact = _packed(texts, items, torch.float64)
        t2i, i2t, argmax = reference.forward(exact, budget=BUDGET)
        for dtype in (torch.float32, torch.bfloat16, torch.int8):
            options = {"dtype": dtype, "both": True, "budget": BUDGET}
            found = cuda.scores(texts, items, **options)  # type: ignore[arg-type]
            again = cuda.scores(texts, items, **options)  # type: ignore[arg-type]
            yield _check(f"scores, {name}", dtype, found, again, (t2i, i2t))
        grads = ScoreGrads(torch.randn_like(t2i), torch.randn_like(i2t))
        doubled = ScoreGrads(grads.t2i.double(), grads.i2t.double())
        for dtype in (torch.float32, torch.bfloat16):
            # The argmax of rounded vectors differs, so float64 gets the rounded ones.
            rounded = _packed(texts, items, dtype)
            exact = Packed(rounded.bags.double(), rounded.patches.double(), *rounded[2:])
            true = reference.backward(
                exact, reference.forward(exact, budget=BUDGET)[2], doubled, budget=BUDGET
            )
            argmax = cuda.forward(rounded, budget=BUDGET)[2]
            found = cuda.backward(rounded, argmax, grads, budget=BUDGET)
            again = cuda.backward(rounded, argmax, grads, budget=BUDGET)
            yield _check(f"gradients, {name}", dtype, found, again, true)
        if len(texts.values) > 128:
            continue
        book = Codebook.train(items.values.cpu()) if dim % 2 == 0 else None
        stored = [items.to(dtype=torch.bfloat16), items.to(dtype=torch.int8)]
        coded = [] if book is None else [items.code(book).to(device)]
        for kept in stored + coded:
            block = DeviceBlock.of(kept)
            decoded = _packed(texts, kept.to(dtype=torch.float32), torch.float64)
            (true_scores, _, _) = reference.forward(decoded, budget=BUDGET)
            one, other = (scan(texts, block),), (scan(texts, block),)
            dtype = kept.dtype if kept.codebook is None else torch.uint8
            yield _check(f"scan, {name}", dtype, one, other, (true_scores,))


def relative_error(found: Tensor, true: Tensor) -> float:
    """Return the largest error divided by the largest value of ``true``; NaN counts as infinite."""
    if not true.numel():
        return 0.0
    error = (found.double().cpu() - true.double().cpu()).abs().nan_to_num(torch.inf).max()
    return float(error / true.double().abs().max().cpu().clamp_min(1e-9))


def _check(
    name: str,
    dtype: torch.dtype,
    found: tuple[Tensor, ...],
    again: tuple[Tensor, ...],
    true: tuple[Tensor, ...],
) -> Check:
    kind = str(dtype).removeprefix("torch.") if dtype != torch.uint8 else "residual codes"
    error = max(relative_error(a, b) for a, b in zip(found, true, strict=True))
    same = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    return Check(name, kind, error, same and error < TOLERANCE[kind])


def _vectors(lengths: list[int], dim: int, seed: int, device: torch.device) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=1)
    return MultiVectors(values.to(device), offsets_of(torch.tensor(lengths)))


def _packed(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype) -> Packed:
    return Packed(texts.values.to(dtype), images.values.to(dtype), texts.offsets, images.offsets)
