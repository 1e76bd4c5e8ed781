"""Compare the kernels of a GPU with float64 on ragged shapes, before anything is timed.

Gradients are compared on vectors whose dot products are exact in every type. Two patches of random
vectors may be equally near to a bag within the rounding of a sum: a kernel and float64 then choose
different ones, and the gradients differ although both are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.bench.gpu_peers import failure_of
from bagformer_cli.interaction.kernels import cuda, reference
from bagformer_cli.interaction.kernels.cuda.scan import DeviceBlock, scan
from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads
from bagformer_cli.training.arithmetic import training_arithmetic
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
        failure: Why the kernel did not run; ``error`` is then infinite.
    """

    name: str
    dtype: str
    error: float
    passed: bool
    failure: str = ""


def all_checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Compare scores, gradients and scans with float64.

    Args:
        device: The GPU, or the CPU with Triton's interpreter.
        small: Few and small shapes.
    """
    for name, (titles, images, dim) in (SMALL_SHAPES if small else SHAPES).items():
        texts, items = _vectors(titles, dim, 0, device), _vectors(images, dim, 1, device)
        exact = _packed(texts, items, torch.float64)
        t2i, i2t, _ = reference.forward(exact, budget=BUDGET)
        for dtype in (torch.float32, torch.bfloat16, torch.int8):
            scores = partial(cuda.scores, texts, items, dtype=dtype, both=True, budget=BUDGET)
            yield _check(f"scores, {name}", dtype, scores, (t2i, i2t))
        scores = partial(cuda.scores, texts, items, dtype=torch.float32, both=True, budget=BUDGET)
        with training_arithmetic(deterministic=False):
            check = _check(f"scores as in training, {name}", torch.float32, scores, (t2i, i2t))
        yield check
        coarse = coarse_vectors(titles, dim, 0, device), coarse_vectors(images, dim, 1, device)
        exact = _packed(*coarse, torch.float64)
        argmax = reference.forward(exact, budget=BUDGET)[2]
        grads = ScoreGrads(torch.randn_like(t2i), torch.randn_like(i2t))
        doubled = ScoreGrads(grads.t2i.double(), grads.i2t.double())
        true = reference.backward(exact, argmax, doubled, budget=BUDGET)
        for dtype in (torch.float32, torch.bfloat16):
            gradients = partial(_gradients, _packed(*coarse, dtype), grads)
            yield _check(f"gradients, {name}", dtype, gradients, true)
        if len(texts.values) > 128:
            continue
        book = Codebook.train(items.values.cpu()) if dim % 2 == 0 else None
        stored = [items.to(dtype=torch.bfloat16), items.to(dtype=torch.int8)]
        coded = [] if book is None else [items.code(book).to(device)]
        for kept in stored + coded:
            block = DeviceBlock.of(kept)
            decoded = _packed(texts, kept.to(dtype=torch.float32), torch.float64)
            (true_scores, _, _) = reference.forward(decoded, budget=BUDGET)
            yield _check(f"scan, {name}", kept.dtype, partial(_scan, texts, block), (true_scores,))


def relative_error(found: Tensor, true: Tensor) -> float:
    """Return the largest error divided by the largest value of ``true``; NaN counts as infinite."""
    if not true.numel():
        return 0.0
    error = (found.double().cpu() - true.double().cpu()).abs().nan_to_num(torch.inf).max()
    return float(error / true.double().abs().max().cpu().clamp_min(1e-9))


def coarse_vectors(lengths: list[int], dim: int, seed: int, device: torch.device) -> MultiVectors:
    """Return vectors of about unit length for 256 dimensions, of multiples of 1/32.

    Their dot products are exact in float64, float32, TF32 and bfloat16 and often equal, so that the
    argmax is the same in all of them: the first of equals.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (sum(lengths), dim), generator=generator) / 32
    return MultiVectors(values.to(device), offsets_of(torch.tensor(lengths)))


def _gradients(vectors: Packed, grads: ScoreGrads) -> tuple[Tensor, Tensor]:
    argmax = cuda.forward(vectors, budget=BUDGET)[2]
    return cuda.backward(vectors, argmax, grads, budget=BUDGET)


def _scan(texts: MultiVectors, block: DeviceBlock) -> tuple[Tensor]:
    return (scan(texts, block),)


def _check(
    name: str,
    dtype: torch.dtype,
    run: Callable[[], tuple[Tensor, ...]],
    true: tuple[Tensor, ...],
) -> Check:
    """Compare the results of ``run`` with float64, and with those of a second run."""
    kind = str(dtype).removeprefix("torch.") if dtype != torch.uint8 else "residual codes"
    try:
        found, again = run(), run()
    except Exception as raised:  # compilers raise many types; the other checks continue
        return Check(name, kind, torch.inf, False, failure_of(raised))
    error = max(relative_error(a, b) for a, b in zip(found, true, strict=True))
    same = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    return Check(name, kind, error, same and error < TOLERANCE[kind])


def _vectors(lengths: list[int], dim: int, seed: int, device: torch.device) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=1)
    return MultiVectors(values.to(device), offsets_of(torch.tensor(lengths)))


def _packed(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype) -> Packed:
    return Packed(texts.values.to(dtype), images.values.to(dtype), texts.offsets, images.offsets)
