"""MaxSim on the CPU: tiles of dot products that stay in the cache, reduced where they lie.

Each thread multiplies one tile (some titles by some images) and reduces it to both directions in
a single compiled pass. Memory is a few tiles a thread, whatever Q and N. Shapes: Q titles of G
bags in all, N images of P patches in all, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.interaction import _plain
from bagformer_cli.interaction._blocks import cut_evenly
from bagformer_cli.interaction._products import product_for
from bagformer_cli.interaction._threads import on_every_thread, on_one_thread
from bagformer_cli.interaction.vectors import MultiVectors

# Below this many dot products, plain torch is done before a thread has begun.
WORTH_IT = 1 << 18

# One tile: 2 MiB of float32, near a core's second-level cache, and at most so many bags high.
# Measured (Xeon, 1 MiB a core): half as large costs 20 %, twice as large gains 3 %.
_TILE = 1 << 19
_TILE_BAGS = 384
_TILE_PATCHES = 1 << 15


@cache
def kernels() -> ModuleType | None:
    """The compiled loops, or None where numba cannot be used."""
    try:
        from bagformer_cli.interaction import _kernels
    except (ImportError, RuntimeError, OSError):
        return None
    return _kernels


@dataclass(frozen=True)
class _Plan:
    """Ranges of titles and of images, the largest tile they make, the longest image."""

    titles: list[tuple[int, int]]
    images: list[tuple[int, int]]
    tile: int
    longest: int

    @classmethod
    def make(cls, bag_offsets: Tensor, patch_offsets: Tensor, threads: int) -> _Plan:
        titles = cut_evenly(bag_offsets, _TILE_BAGS)
        bags = max(int(bag_offsets[b] - bag_offsets[a]) for a, b in titles)
        limit = min(_TILE_PATCHES, max(256, _TILE // max(bags, 1)))
        images = cut_evenly(patch_offsets, limit, threads)
        patches = max(int(patch_offsets[b] - patch_offsets[a]) for a, b in images)
        return cls(titles, images, bags * patches, int(patch_offsets.diff().max()))

    def tasks(self, threads: int) -> list[tuple[tuple[int, int], list[tuple[int, int]]]]:
        """Ranges of images, each with the ranges of titles it meets.

        The titles are shared out as well where there are fewer ranges of images than threads.
        """
        shares = min(len(self.titles), -(-threads // len(self.images)))
        return [
            (images, self.titles[share::shares])
            for images in self.images
            for share in range(shares)
        ]


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """``t2i`` [Q, N] and, with ``both``, ``i2t`` [N, Q] (else [0, 0]). No gradients.

    Args:
        texts: Q titles.
        images: N images; converted a block at a time where they are not of ``dtype``.
        dtype: float32, bfloat16 or int8.
        both: Whether the second direction is wanted.
        budget: Bytes that temporaries may take.
    """
    texts = texts.to(dtype=dtype)
    if dtype != torch.int8 and not _finite(texts.values):
        return _plain.scores(texts, images, dtype=dtype, both=both, budget=budget)
    single = bool((images.lengths == 1).all())
    reduce_tile = _kernels().reduce_tile_single if single else _kernels().reduce_tile
    Q, N = len(texts), len(images)
    t2i = torch.empty(Q, N)
    i2t = torch.empty(N, Q) if both else torch.empty(0, 0)
    threads = torch.get_num_threads()
    product = on_one_thread(lambda: product_for(dtype), threads)
    plan = _Plan.make(texts.offsets, images.offsets, threads)
    bags = texts.values.detach()
    if bags.dtype != product.operand and bags.numel() * product.operand.itemsize <= budget // 4:
        bags = bags.to(product.operand)
    title_scale = _scales(texts)
    tasks = iter(plan.tasks(threads))  # a thread that is free takes the next

    def work(_: int) -> None:
        buffer = torch.empty(plan.tile, dtype=product.tile)
        compared = torch.int32 if product.tile == torch.int32 else torch.float32
        width = plan.tile if single else plan.longest
        over_bags = torch.empty(width, dtype=compared).numpy()
        while (task := next(tasks, None)) is not None:
            (n0, n1), titles = task
            block = images[n0:n1].to(dtype=dtype)
            if dtype != torch.int8 and not _finite(block.values):
                down, up = _plain.scores(texts, block, dtype=dtype, both=both, budget=budget)
                t2i[:, n0:n1] = down  # all titles, whatever this task's share: it is rare
                if both:
                    i2t[n0:n1] = up
                continue
            image_scale = _scales(block)
            patches = block.values.detach().to(product.operand)
            for q0, q1 in titles:
                g0, g1 = int(texts.offsets[q0]), int(texts.offsets[q1])
                rows = bags[g0:g1].to(product.operand)
                tile = _tile(buffer, len(rows), len(patches))
                reduce_tile(
                    _array(product.multiply(rows, patches, tile) if tile.numel() else tile),
                    (texts.offsets[q0 : q1 + 1] - g0).numpy(),
                    block.offsets.numpy(),
                    title_scale[q0:q1],
                    image_scale,
                    t2i[q0:q1, n0:n1].numpy(),
                    i2t[n0:n1, q0:q1].numpy(),
                    over_bags,
                )

    on_every_thread(_without_gradients(work), threads)
    return t2i, i2t


def forward(
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    *,
    budget: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both directions and the places of the maxima, of float32; see ``_plain.forward``."""
    if not (_finite(bags) and _finite(patches)):
        return _plain.forward(bags, patches, bag_offsets, patch_offsets, budget=budget)
    reduce_tile_arg = _kernels().reduce_tile_arg
    Q, N = len(bag_offsets) - 1, len(patch_offsets) - 1
    t2i, i2t = torch.empty(Q, N), torch.empty(N, Q)
    arg_patch = torch.zeros(len(bags), N, dtype=torch.int32)
    arg_bag = torch.zeros(Q, len(patches), dtype=torch.int32)
    threads = torch.get_num_threads()
    product = on_one_thread(lambda: product_for(torch.float32), threads)
    plan = _Plan.make(bag_offsets, patch_offsets, threads)
    tasks = iter(plan.tasks(threads))

    def work(_: int) -> None:
        buffer = torch.empty(plan.tile)
        over_bags = torch.empty(plan.longest).numpy()
        while (task := next(tasks, None)) is not None:
            (n0, n1), titles = task
            p0, p1 = int(patch_offsets[n0]), int(patch_offsets[n1])
            for q0, q1 in titles:
                g0, g1 = int(bag_offsets[q0]), int(bag_offsets[q1])
                tile = _tile(buffer, g1 - g0, p1 - p0)
                if tile.numel():
                    tile = product.multiply(bags[g0:g1], patches[p0:p1], tile)
                reduce_tile_arg(
                    tile.numpy(),
                    (bag_offsets[q0 : q1 + 1] - g0).numpy(),
                    (patch_offsets[n0 : n1 + 1] - p0).numpy(),
                    t2i[q0:q1, n0:n1].numpy(),
                    i2t[n0:n1, q0:q1].numpy(),
                    over_bags,
                    arg_patch[g0:g1, n0:n1].numpy(),
                    arg_bag[q0:q1, p0:p1].numpy(),
                )

    on_every_thread(_without_gradients(work), threads)
    return t2i, i2t, arg_patch, arg_bag


def backward(
    bags: Tensor,
    patches: Tensor,
    bag_offsets: Tensor,
    patch_offsets: Tensor,
    arg_patch: Tensor,
    arg_bag: Tensor,
    grad_t2i: Tensor,
    grad_i2t: Tensor,
    *,
    budget: int,
) -> tuple[Tensor, Tensor]:
    """Gradients [G, D] and [P, D] from the places of the maxima; see ``_plain.backward``."""
    weigh_tile = _kernels().weigh_tile
    threads = torch.get_num_threads()
    plan = _Plan.make(bag_offsets, patch_offsets, threads)
    grad_patches = torch.zeros_like(patches)
    # Which thread adds which images to its own sum is fixed: the sum can be repeated exactly.
    parts = torch.zeros(min(threads, len(plan.images)), *bags.shape)

    def work(thread: int) -> None:
        buffer = torch.empty(plan.tile)
        for n0, n1 in plan.images[thread::threads]:
            p0, p1 = int(patch_offsets[n0]), int(patch_offsets[n1])
            for q0, q1 in plan.titles:
                g0, g1 = int(bag_offsets[q0]), int(bag_offsets[q1])
                weights = _tile(buffer, g1 - g0, p1 - p0).zero_()
                weigh_tile(
                    weights.numpy(),
                    (bag_offsets[q0 : q1 + 1] - g0).numpy(),
                    (patch_offsets[n0 : n1 + 1] - p0).numpy(),
                    arg_patch[g0:g1, n0:n1].numpy(),
                    arg_bag[q0:q1, p0:p1].numpy(),
                    grad_t2i[q0:q1, n0:n1].numpy(),
                    grad_i2t[n0:n1, q0:q1].numpy(),
                )
                parts[thread, g0:g1].addmm_(weights, patches[p0:p1])
                grad_patches[p0:p1].addmm_(weights.T, bags[g0:g1])

    on_every_thread(_without_gradients(work), threads)
    return parts.sum(0), grad_patches


def _kernels() -> Any:
    return kernels()


def _without_gradients(work: Callable[[int], None]) -> Callable[[int], None]:
    """Recording is set a thread at a time, and on in a new one."""

    def quiet(index: int) -> None:
        with torch.no_grad():
            work(index)

    return quiet


def _finite(values: Tensor) -> bool:
    """Whether all numbers are finite; may say no where a sum overflows, never yes wrongly."""
    return bool(values.sum(dtype=torch.float32).isfinite())


def _tile(buffer: Tensor, rows: int, columns: int) -> Tensor:
    return buffer[: rows * columns].view(rows, columns)


def _array(tile: Tensor) -> np.ndarray[Any, Any]:
    """A tile as numpy; bfloat16, which numpy lacks, as its bits."""
    return (tile.view(torch.uint16) if tile.dtype == torch.bfloat16 else tile).numpy()


def _scales(vectors: MultiVectors) -> np.ndarray[Any, Any]:
    """[n] float32: what an item's integers are multiplied by; ones for floats."""
    if vectors.scales is None:
        return np.ones(len(vectors), np.float32)
    scales: np.ndarray[Any, Any] = vectors.scales.numpy()
    return scales
