"""Start the CUDA kernels for packed titles and images.

Shapes: Q titles of G bags in total, N images of P patches in total, D dimensions; R rows of the
planes (``planes.py``).
"""

# mypy: disable-error-code="index"
# (Triton's types do not know that a kernel is started by indexing it with a grid.)

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.kernels.cuda.gradient_tiles import bag_gradients, patch_gradients
from bagformer_cli.interaction.kernels.cuda.planes import Planes
from bagformer_cli.interaction.kernels.cuda.score_tiles import score_tiles
from bagformer_cli.interaction.kernels.cuda.settings import (
    INTERPRETED,
    PROGRAMS,
    WIDEST,
    Columns,
    GradientTile,
    ScoreTile,
    fastest,
    float32_products,
    gradient_tiles_for,
    least_depth,
    score_tiles_for,
)
from bagformer_cli.interaction.kernels.reference import Argmax, Packed, ScoreGrads
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of

ARGMAX_BYTES = (2, 1)
"""Bytes of an index of a patch and of a bag in the argmax, unless items are very long."""

Scales = tuple[Tensor | None, Tensor | None]


class _Images(NamedTuple):
    """The images as the kernels take them.

    Attributes:
        patches: [P, D].
        lengths: [N] int64, CPU.
        starts: [N + 1] int64 on the device; one zero where it is not read.
        uniform: Patches of every image; 0: it differs.
        arg_starts: [N] int64 on the device: column of ``arg_bag`` where each image begins.
        arg_columns: Number of these columns.
    """

    patches: Tensor
    lengths: Tensor
    starts: Tensor
    uniform: int
    arg_starts: Tensor
    arg_columns: int

    @classmethod
    def of(cls, patches: Tensor, offsets: Tensor, *, argmax: bool) -> _Images:
        lengths, device = offsets.diff(), patches.device
        uniform = int(lengths[0]) if len(lengths) and bool((lengths == lengths[0]).all()) else 0
        starts = offsets[:1] if uniform else offsets
        arg_starts = offsets[:1]
        columns = 0
        if argmax:
            arg_starts = offsets_of(-(-lengths // 16) * 16)  # multiples of 16: wide loads
            columns = int(arg_starts[-1])
        starts, arg_starts = to_device(starts, device), to_device(arg_starts, device)
        return cls(patches, lengths, starts, uniform, arg_starts, columns)


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` [Q, N] and, if ``both``, ``i2t`` [N, Q] (else [0, 0])."""
    texts = texts.to(dtype=dtype)
    t2i = torch.zeros(len(texts), len(images), device=texts.device)
    i2t = t2i.new_zeros(len(images) if both else 0, len(texts) if both else 0)
    if not len(texts.values):
        return t2i, i2t
    planes = Planes.of(_computed(texts.values), texts.offsets)
    scale = _title_scale(planes, texts.scales)
    copied = 0 if images.dtype == dtype else 2 * images.dim * images.values.element_size()
    limit = budget // copied if copied else len(images.values)
    for first, end in cut(images.offsets, max(1, limit)):
        block = images[first:end].to(dtype=dtype)
        own = _Images.of(_computed(block.values), block.offsets, argmax=False)
        found = _score(planes, own, scale, block.scales, both=both, argmax=False)
        t2i[:, first:end] = found[0]
        if both:
            i2t[first:end] = found[1]
    return t2i, i2t


def forward(
    vectors: Packed, *, budget: int, keep_argmax: bool = True, scales: Scales = (None, None)
) -> tuple[Tensor, Tensor, Argmax]:
    """Do what ``reference.forward`` does, for float32, bfloat16 and int8.

    Args:
        vectors: Titles and images.
        budget: Not used: temporaries are small.
        keep_argmax: False: the returned argmax is empty.
        scales: Scale of each title [Q] and of each image [N]; None: ones.

    Returns:
        ``t2i`` [Q, N], ``i2t`` [N, Q], and the argmax for :func:`backward`: patches [N, R] and bags
        [slots, columns], in the order of the planes.
    """
    planes = Planes.of(_computed(vectors.bags), vectors.bag_offsets)
    images = _Images.of(_computed(vectors.patches), vectors.patch_offsets, argmax=keep_argmax)
    scale = _title_scale(planes, scales[0])
    return _score(planes, images, scale, scales[1], both=True, argmax=keep_argmax)


def backward(
    vectors: Packed, argmax: Argmax, grads: ScoreGrads, *, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradients [G, D] and [P, D], float32, from the argmax of :func:`forward`."""
    planes = Planes.of(_computed(vectors.bags), vectors.bag_offsets)
    images = _Images.of(_computed(vectors.patches), vectors.patch_offsets, argmax=True)
    device, D, G = vectors.bags.device, vectors.bags.shape[1], len(vectors.bags)
    R, P = len(planes.values), len(images.patches)
    grad_patches = torch.zeros(P, D, device=device)
    if not R or not P:
        return torch.zeros(G, D, device=device), grad_patches
    of_t2i = grads.t2i.float().index_select(0, planes.titles).T.contiguous()
    of_i2t = grads.i2t.float().index_select(1, planes.titles).contiguous()
    work = _Gradients(planes, images, argmax, ScoreGrads(of_t2i, of_i2t))
    tiles = gradient_tiles_for(device, vectors.bags.dtype)
    key = (_multiplied(vectors.bags.dtype), D, images.uniform)
    operations = 2.0 * R * P * D

    def choose(name: str, run: Callable[[GradientTile], object]) -> GradientTile:
        return fastest((name, *key), tiles, operations, run, gradients=True)

    tile = choose("patches", lambda each: work.patches(each, grad_patches))
    work.patches(tile, grad_patches)
    tile = choose("bags", lambda each: work.bags(each, budget))
    return planes.to_bags(work.bags(tile, budget), G), grad_patches


class _Gradients(NamedTuple):
    """The input of both kernels of the backward pass; ``grads`` are [N, slots], in slot order."""

    planes: Planes
    images: _Images
    argmax: Argmax
    grads: ScoreGrads

    def _shared(self) -> tuple[Tensor, ...]:
        images, planes = self.images, self.planes
        return (
            images.starts,
            images.arg_starts,
            planes.slot,
            planes.nth,
            *self.argmax,
            *self.grads,
        )

    def _sizes(self, tile: GradientTile) -> dict[str, int | str]:
        D = self.images.patches.shape[1]
        depth = min(tile.depth, least_depth(D, self.images.patches.dtype))
        return {
            "ROWS": tile.rows, "INNER": tile.inner, "DEPTH": depth, "EVEN": D % depth == 0,
            "UNIFORM": self.images.uniform, "STAGES": tile.stages, "num_warps": tile.warps,
            "FLOAT32": float32_products(),
        }  # fmt: skip

    def patches(self, tile: GradientTile, out: Tensor) -> None:
        """Write the gradients of the patches to ``out`` [P, D]."""
        planes, images, sizes = self.planes, self.images, self._sizes(tile)
        N, R, D = len(images.lengths), len(planes.values), out.shape[1]
        blocks = triton.cdiv(int(images.lengths.max()), tile.rows)
        patch_gradients[(N * blocks, triton.cdiv(D, sizes["DEPTH"]))](
            planes.values, *self._shared(), out,
            blocks, N, R, D, len(planes.titles), images.arg_columns, **sizes,
        )  # fmt: skip

    def bags(self, tile: GradientTile, budget: int) -> Tensor:
        """Return the gradients of the rows of the planes [R, D]."""
        planes, images, sizes = self.planes, self.images, self._sizes(tile)
        N, R, (P, D) = len(images.lengths), len(planes.values), images.patches.shape
        blocks = triton.cdiv(int(images.lengths.max()), tile.inner)
        programs, deep = triton.cdiv(R, tile.rows), triton.cdiv(D, sizes["DEPTH"])
        # Images are cut into parts, so that enough programs run, as far as their sums fit.
        wanted = max(1, min(N, PROGRAMS // (programs * deep), budget // (4 * R * D)))
        images_each = triton.cdiv(N, wanted)
        parts = torch.empty(triton.cdiv(N, images_each), R, D, device=images.patches.device)
        bag_gradients[(programs, len(parts), deep)](
            images.patches, *self._shared(), parts,
            blocks, images_each, N, P, R, D, len(planes.titles), images.arg_columns, **sizes,
        )  # fmt: skip
        return parts.sum(0)


def _score(
    planes: Planes,
    images: _Images,
    title_scale: Tensor,
    image_scale: Tensor | None,
    *,
    both: bool,
    argmax: bool,
) -> tuple[Tensor, Tensor, Argmax]:
    """Run ``score_tiles``; without ``both`` the second result is empty, without ``argmax`` it."""
    device, dtype = planes.values.device, images.patches.dtype
    N, Q, R = len(images.lengths), planes.count, len(planes.values)
    t2i = torch.zeros(Q, N, device=device)
    i2t = torch.zeros(N if both else 0, Q if both else 0, device=device)
    long_image = bool(N) and int(images.lengths.max()) > torch.iinfo(torch.int16).max
    kept = Argmax(
        torch.zeros(
            N if argmax else 0, R,
            device=device, dtype=torch.int32 if long_image else torch.int16,
        ),
        torch.zeros(
            len(planes.titles) if argmax else 0, images.arg_columns,
            device=device, dtype=torch.uint8 if planes.longest < 256 else torch.int32,
        ),
    )  # fmt: skip
    if not R or not len(images.patches):
        return t2i, i2t, kept
    image_scale = torch.ones(N, device=device) if image_scale is None else image_scale
    D = images.patches.shape[1]

    def run(tile: ScoreTile) -> None:
        columns = Columns.best(images.lengths, tile.columns, join=not argmax)
        depth, keep = tile.depth or least_depth(D, dtype), not tile.depth
        if depth > WIDEST or (INTERPRETED and D > 16):
            depth, keep = min(depth, 64 if dtype != torch.float32 else 32), False
        tops = torch.empty(N if columns.several else 0, R, device=device)
        image_tiles = triton.cdiv(N, columns.images)
        splits = min(planes.groups, max(1, PROGRAMS // image_tiles))
        groups_each = triton.cdiv(planes.groups, splits)
        score_tiles[(image_tiles, triton.cdiv(planes.groups, groups_each))](
            planes.values, images.patches, planes.starts, planes.counts, planes.titles,
            title_scale, images.starts, image_scale, t2i, i2t, tops, *kept, images.arg_starts,
            planes.groups, groups_each, N, Q, len(images.patches), R, D, images.arg_columns,
            TITLES=planes.slots, IMAGES=columns.images, LENGTH=columns.length,
            EXTRA=columns.extra, DEPTH=depth, KEEP=keep, UNIFORM=images.uniform,
            EVEN=D % depth == 0, SEVERAL=columns.several, BOTH=both, ARGMAX=argmax,
            INTEGER=dtype == torch.int8, STAGES=tile.stages, FLOAT32=float32_products(),
            num_warps=tile.warps,
        )  # fmt: skip

    stored = torch.bfloat16 if dtype == torch.bfloat16 else dtype
    tiles = score_tiles_for(device, stored, argmax=argmax)
    name = "scores and argmax" if argmax else "scores" if both else "scores, one direction"
    key = (name, _multiplied(dtype), D, planes.slots, images.uniform)
    work = 2.0 * R * len(images.patches) * D
    run(fastest(key, tiles, work, run, gradients=argmax))
    return t2i, i2t, kept


def _title_scale(planes: Planes, scales: Tensor | None) -> Tensor:
    """Return the factor of each slot's scores; NaN for a title with a value that is not finite."""
    values = planes.values
    scale = torch.ones(planes.count, device=values.device) if scales is None else scales
    scale = planes.of_slots(scale)
    if values.dtype == torch.int8:
        return scale
    # x · 0 is NaN for NaN and infinity. Titles are few, so that this reads little.
    of_row = (values * 0).sum(1, dtype=torch.float32)
    return scale.index_add(0, planes.slot.long(), of_row)


def _computed(values: Tensor) -> Tensor:
    """Return contiguous values; in the interpreter, which lacks bfloat16, as float32."""
    if INTERPRETED and values.dtype == torch.bfloat16:
        values = values.float()
    return values.detach().contiguous()


def _multiplied(dtype: torch.dtype) -> str:
    """Name a type as it is multiplied, for the choice of a tile."""
    return float32_products() if dtype == torch.float32 else str(dtype).removeprefix("torch.")


@cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Compile and run the kernels once; return whether they agree with plain torch on the CPU.

    The answer is kept for the process, so it must not depend on where the first call happens: the
    CPU has no TF32, which training allows on the GPU, and autocast would round the products.
    """
    generator = torch.Generator().manual_seed(0)
    texts, images = (
        MultiVectors(torch.randn(int(o[-1]), 32, generator=generator), o)
        for o in (torch.tensor([0, 3, 5]), torch.tensor([0, 18, 23]))
    )
    options: dict[str, Any] = {"dtype": dtype, "both": True, "budget": 1 << 20}
    try:
        with warnings.catch_warnings(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # compilers warn about their defaults
            expected = reference.scores(texts, images, **options)
            found = [x.cpu() for x in scores(texts.to(device), images.to(device), **options)]
            torch.testing.assert_close(found, list(expected), rtol=1e-3, atol=1e-3)
            if dtype != torch.int8:
                bags, patches = texts.values.to(dtype), images.values.to(dtype)
                exact = Packed(bags.float(), patches.float(), texts.offsets, images.offsets)
                argmax = reference.forward(exact, budget=1 << 20)[2]
                theirs = reference.backward(exact, argmax, ScoreGrads(*expected), budget=1 << 20)
                vectors = exact._replace(bags=bags.to(device), patches=patches.to(device))
                grads = ScoreGrads(*(x.to(device) for x in expected))
                argmax = forward(vectors, budget=1)[2]
                ours = [x.cpu() for x in backward(vectors, argmax, grads, budget=1)]
                tolerance = 1e-2 if dtype == torch.float32 else 0.3  # of sums of about 30
                torch.testing.assert_close(ours, list(theirs), rtol=1e-2, atol=tolerance)
    except Exception:  # compilers raise many types; plain torch always works
        return False
    return True
