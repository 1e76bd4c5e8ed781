"""MaxSim on the CPU: tiles of dot products that stay in the cache, reduced where they lie.

Each thread multiplies one tile (some titles by some images) and reduces it to both directions in
a single compiled pass. Memory is a few tiles a thread, whatever Q and N. Shapes: Q titles of G
bags in all, N images of P patches in all, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.interaction.kernels import reference as _plain
from bagformer_cli.interaction.kernels.blocks import (
    Array,
    Range,
    block_of,
    cut_evenly,
    scales_of,
)
from bagformer_cli.interaction.kernels.cpu.products import product_for
from bagformer_cli.interaction.kernels.threads import on_every_thread, on_one_thread
from bagformer_cli.vectors.multi_vectors import MultiVectors

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
        from bagformer_cli.interaction.kernels.cpu import loops as _kernels
    except (ImportError, RuntimeError, OSError):
        return None
    return _kernels


@dataclass(frozen=True, slots=True)
class _Plan:
    """Ranges of titles and of images; the size of the largest tile they make, the longest image."""

    titles: list[Range]
    images: list[Range]
    tile: int
    longest: int

    @classmethod
    def make(cls, bag_offsets: Tensor, patch_offsets: Tensor, threads: int) -> _Plan:
        titles = Range.all(bag_offsets, cut_evenly(bag_offsets, _TILE_BAGS))
        bags = max(map(len, titles))
        limit = min(_TILE_PATCHES, max(256, _TILE // max(bags, 1)))
        images = Range.all(patch_offsets, cut_evenly(patch_offsets, limit, threads))
        tile = bags * max(map(len, images))
        return cls(titles, images, tile, int(patch_offsets.diff().max()))

    def tasks(self, threads: int) -> Iterator[tuple[Range, list[Range]]]:
        """Ranges of images, each with the ranges of titles it meets; threads draw from one list.

        The titles are shared out as well where there are fewer ranges of images than threads.
        """
        shares = min(len(self.titles), -(-threads // len(self.images)))
        return iter(
            [(image, self.titles[k::shares]) for image in self.images for k in range(shares)]
        )


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
    if dtype != torch.int8 and not finite(texts.values):
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
    title_scale, down, up = scales_of(texts), t2i.numpy(), i2t.numpy()
    tasks = plan.tasks(threads)

    def work(_: int) -> None:
        buffer = torch.empty(plan.tile, dtype=product.tile)
        compared = torch.int32 if product.tile == torch.int32 else torch.float32
        width = plan.tile if single else plan.longest
        over_bags = torch.empty(width, dtype=compared).numpy()
        while (task := next(tasks, None)) is not None:
            image, titles = task
            patches, image_scale = block_of(images, image, dtype)
            if dtype != torch.int8 and not finite(patches):
                # All titles, whatever this task's share of them: it is rare.
                block = images[image.items]
                found = _plain.scores(texts, block, dtype=dtype, both=both, budget=budget)
                down[:, image.items] = found[0].numpy()
                if both:
                    up[image.items] = found[1].numpy()
                continue
            patches = patches.to(product.operand)
            for title in titles:
                rows = bags[title.vectors].to(product.operand)
                tile = _tile(buffer, len(title), len(image))
                reduce_tile(
                    _array(product.multiply(rows, patches, tile) if tile.numel() else tile),
                    title.offsets,
                    image.offsets,
                    title_scale[title.items],
                    image_scale,
                    down[title.items, image.items],
                    up[image.items, title.items],
                    over_bags,
                )

    on_every_thread(work, threads)
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
    if not (finite(bags) and finite(patches)):
        return _plain.forward(bags, patches, bag_offsets, patch_offsets, budget=budget)
    reduce_tile_arg = _kernels().reduce_tile_arg
    Q, N = len(bag_offsets) - 1, len(patch_offsets) - 1
    t2i, i2t = torch.empty(Q, N), torch.empty(N, Q)
    arg_patch = torch.zeros(len(bags), N, dtype=torch.int32)
    arg_bag = torch.zeros(Q, len(patches), dtype=torch.int32)
    threads = torch.get_num_threads()
    product = on_one_thread(lambda: product_for(torch.float32), threads)
    plan = _Plan.make(bag_offsets, patch_offsets, threads)
    tasks = plan.tasks(threads)
    outputs = [x.numpy() for x in (t2i, i2t, arg_patch, arg_bag)]

    def work(_: int) -> None:
        down, up, met_patch, met_bag = outputs
        buffer = torch.empty(plan.tile)
        over_bags = torch.empty(plan.longest).numpy()
        while (task := next(tasks, None)) is not None:
            image, titles = task
            for title in titles:
                tile = _tile(buffer, len(title), len(image))
                if tile.numel():
                    tile = product.multiply(bags[title.vectors], patches[image.vectors], tile)
                reduce_tile_arg(
                    tile.numpy(),
                    title.offsets,
                    image.offsets,
                    down[title.items, image.items],
                    up[image.items, title.items],
                    over_bags,
                    met_patch[title.vectors, image.items],
                    met_bag[title.items, image.vectors],
                )

    on_every_thread(work, threads)
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

    inputs = [x.numpy() for x in (arg_patch, arg_bag, grad_t2i, grad_i2t)]

    def work(thread: int) -> None:
        met_patch, met_bag, down, up = inputs
        buffer = torch.empty(plan.tile)
        for image in plan.images[thread::threads]:
            for title in plan.titles:
                weights = _tile(buffer, len(title), len(image)).zero_()
                weigh_tile(
                    weights.numpy(),
                    title.offsets,
                    image.offsets,
                    met_patch[title.vectors, image.items],
                    met_bag[title.items, image.vectors],
                    down[title.items, image.items],
                    up[image.items, title.items],
                )
                parts[thread, title.vectors].addmm_(weights, patches[image.vectors])
                grad_patches[image.vectors].addmm_(weights.T, bags[title.vectors])

    on_every_thread(work, threads)
    return parts.sum(0), grad_patches


def _kernels() -> Any:
    return kernels()


def finite(values: Tensor) -> bool:
    """Whether all numbers, float32 or bfloat16, are finite."""
    wide = values.dtype == torch.float32
    bits = values.detach().contiguous().view(torch.uint32 if wide else torch.uint16)
    exponent = np.uint32(0x7F80_0000) if wide else np.uint16(0x7F80)
    return bool(_kernels().finite(bits.view(-1).numpy(), exponent))


def _tile(buffer: Tensor, rows: int, columns: int) -> Tensor:
    return buffer[: rows * columns].view(rows, columns)


def _array(tile: Tensor) -> Array:
    """A tile as numpy; bfloat16, which numpy lacks, as its bits."""
    return (tile.view(torch.uint16) if tile.dtype == torch.bfloat16 else tile).numpy()
