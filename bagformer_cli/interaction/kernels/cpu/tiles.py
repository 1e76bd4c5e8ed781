"""MaxSim on the CPU: tiles of dot products that stay in the cache and are reduced there.

The matrix of all dot products [G, P] is cut into tiles: some titles × some images. Each thread
takes a range of images and goes through the titles; a tile is one matrix product followed by one
compiled pass (see :mod:`.loops`), which costs about 2 % of the product::

                    images 0–4    images 5–9    images 10–14
    titles 0–37   [ tile 1      | tile 1      | tile 1      ]     a column of tiles is one task:
    titles 38–75  [ tile 2      | tile 2      | tile 2      ]     its patches stay in the cache
                    thread 0      thread 1      next free thread

No dot product leaves the cache, and memory is one tile per thread, whatever Q and N are. Shapes: Q
titles of G bags in total, N images of P patches in total, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.blocks import (
    Array,
    Range,
    block_of,
    cut_evenly,
    scales_of,
)
from bagformer_cli.interaction.kernels.cpu.products import product_for
from bagformer_cli.interaction.kernels.reference import Argmax, Packed, ScoreGrads
from bagformer_cli.interaction.kernels.threads import on_every_thread
from bagformer_cli.vectors.multi_vectors import MultiVectors

ARGMAX_BYTES = reference.ARGMAX_BYTES

# With fewer dot products plain torch finishes before a thread of the pool has started.
MIN_PRODUCTS = 1 << 18

# A tile has at most 2 MiB, near the size of a core's second-level cache. Measured (Xeon, 1 MiB per
# core): half the size costs 20 %, twice the size gains 3 %.
_TILE_BYTES = 2 << 20
_TILE_BAGS = 384
_TILE_PATCHES = 1 << 15


@cache
def kernels() -> ModuleType | None:
    """Return the module of compiled loops, or None where numba does not work."""
    try:
        from bagformer_cli.interaction.kernels.cpu import loops
    except (ImportError, RuntimeError, OSError):
        return None
    return loops


class _Plan(NamedTuple):
    """Ranges of titles and images that make tiles of bounded size.

    Attributes:
        titles: Ranges of titles: the rows of the tiles.
        images: Ranges of images: the columns of the tiles.
        tile: Number of products in the largest tile.
        longest: Patches of the longest image.
    """

    titles: list[Range]
    images: list[Range]
    tile: int
    longest: int

    @classmethod
    def make(
        cls, bag_offsets: Tensor, patch_offsets: Tensor, threads: int, itemsize: int = 4
    ) -> _Plan:
        """Cut titles and images for tiles of ``itemsize`` bytes per product."""
        titles = Range.from_cuts(bag_offsets, cut_evenly(bag_offsets, _TILE_BAGS))
        bags = max(map(len, titles))
        columns = _TILE_BYTES // itemsize // max(bags, 1)
        limit = min(_TILE_PATCHES, max(256, columns))
        images = Range.from_cuts(patch_offsets, cut_evenly(patch_offsets, limit, threads))
        tile = bags * max(map(len, images))
        return cls(titles, images, tile, int(patch_offsets.diff().max()))

    def tasks(self, threads: int) -> Iterator[tuple[Range, list[Range]]]:
        """Return ranges of images, each with ranges of titles; threads draw from one iterator.

        With fewer ranges of images than threads, the titles are distributed as well.
        """
        shares = min(len(self.titles), -(-threads // len(self.images)))
        return iter(
            [(image, self.titles[k::shares]) for image in self.images for k in range(shares)]
        )


def scores(
    texts: MultiVectors, images: MultiVectors, *, dtype: torch.dtype, both: bool, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` [Q, N] and, if ``both``, ``i2t`` [N, Q] (else [0, 0]), without gradients.

    Args:
        texts: Q titles.
        images: N images. Those stored in another type are converted a block at a time.
        dtype: float32, bfloat16 or int8.
        both: Whether to compute the second direction.
        budget: Bytes that temporaries may take.
    """
    texts = texts.to(dtype=dtype)
    if dtype != torch.int8 and not all_finite(texts.values):
        return reference.scores(texts, images, dtype=dtype, both=both, budget=budget)
    loops = _loops()
    single = bool((images.lengths == 1).all())
    reduce_tile = loops.reduce_tile_single if single else loops.reduce_tile
    Q, N = len(texts), len(images)
    t2i = torch.empty(Q, N)
    i2t = torch.empty(N, Q) if both else torch.empty(0, 0)
    threads = torch.get_num_threads()
    product = product_for(dtype)
    plan = _Plan.make(texts.offsets, images.offsets, threads, product.tile.itemsize)
    bags = texts.values.detach()
    if bags.dtype != product.operand and bags.numel() * product.operand.itemsize <= budget // 4:
        bags = bags.to(product.operand)
    title_scales = scales_of(texts)
    arrays = loops.TileScores(t2i.numpy(), i2t.numpy())
    tasks = plan.tasks(threads)

    def work(_: int) -> None:
        buffer = torch.empty(plan.tile, dtype=product.tile)
        compared = torch.int32 if product.tile == torch.int32 else torch.float32
        column_best = torch.empty(plan.tile if single else plan.longest, dtype=compared).numpy()
        while (task := next(tasks, None)) is not None:
            image, titles = task
            patches, image_scales = block_of(images, image, dtype)
            if dtype != torch.int8 and not all_finite(patches):
                # The compiled loops do not handle NaN. This is rare, so all titles are scored
                # here, whichever of them this task has.
                block = images[image.items]
                found = reference.scores(texts, block, dtype=dtype, both=both, budget=budget)
                arrays.t2i[:, image.items] = found[0].numpy()
                if both:
                    arrays.i2t[image.items] = found[1].numpy()
                continue
            patches = patches.to(product.operand)
            columns = loops.Items(image.offsets, image_scales)
            for title in titles:
                rows = bags[title.vectors].to(product.operand)
                tile = _tile(buffer, len(title), len(image))
                if tile.numel():
                    tile = product.multiply(rows, patches, tile)
                reduce_tile(
                    _as_array(tile),
                    loops.Items(title.offsets, title_scales[title.items]),
                    columns,
                    _cells(arrays, title, image),
                    column_best,
                )

    on_every_thread(work, threads)
    return t2i, i2t


def forward(vectors: Packed, *, budget: int) -> tuple[Tensor, Tensor, Argmax]:
    """Compute both directions and the argmax in float32; see ``reference.forward``."""
    bags, patches, bag_offsets, patch_offsets = vectors
    if not (all_finite(bags) and all_finite(patches)):
        return reference.forward(vectors, budget=budget)
    loops = _loops()
    Q, N = len(bag_offsets) - 1, len(patch_offsets) - 1
    t2i, i2t = torch.empty(Q, N), torch.empty(N, Q)
    argmax = Argmax(
        torch.zeros(len(bags), N, dtype=torch.int32),
        torch.zeros(Q, len(patches), dtype=torch.int32),
    )
    threads = torch.get_num_threads()
    product = product_for(torch.float32)
    plan = _Plan.make(bag_offsets, patch_offsets, threads)
    tasks = plan.tasks(threads)
    arrays = loops.TileScores(t2i.numpy(), i2t.numpy())
    patch, bag = argmax.patch.numpy(), argmax.bag.numpy()

    def work(_: int) -> None:
        buffer = torch.empty(plan.tile)
        column_best = torch.empty(plan.longest).numpy()
        while (task := next(tasks, None)) is not None:
            image, titles = task
            for title in titles:
                tile = _tile(buffer, len(title), len(image))
                if tile.numel():
                    tile = product.multiply(bags[title.vectors], patches[image.vectors], tile)
                loops.reduce_tile_argmax(
                    tile.numpy(),
                    title.offsets,
                    image.offsets,
                    _cells(arrays, title, image),
                    loops.TileArgmax(
                        patch, bag, title.first, image.first, title.start, image.start
                    ),
                    column_best,
                )

    on_every_thread(work, threads)
    return t2i, i2t, argmax


def backward(
    vectors: Packed, argmax: Argmax, grads: ScoreGrads, *, budget: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradients [G, D] and [P, D] from the argmax; see ``reference.backward``.

    A tile holds the gradients of its dot products here; two matrix products pass them on.
    """
    bags, patches, bag_offsets, patch_offsets = vectors
    loops = _loops()
    threads = torch.get_num_threads()
    plan = _Plan.make(bag_offsets, patch_offsets, threads)
    grad_patches = torch.zeros_like(patches)
    # Every thread adds to its own sum over a fixed set of images: the result does not depend on
    # which thread is faster.
    parts = torch.zeros(min(threads, len(plan.images)), *bags.shape)
    arrays = loops.TileScores(grads.t2i.numpy(), grads.i2t.numpy())
    patch, bag = argmax.patch.numpy(), argmax.bag.numpy()

    def work(thread: int) -> None:
        buffer = torch.empty(plan.tile)
        for image in plan.images[thread::threads]:
            for title in plan.titles:
                weights = _tile(buffer, len(title), len(image)).zero_()
                loops.spread_grads(
                    weights.numpy(),
                    title.offsets,
                    image.offsets,
                    loops.TileArgmax(
                        patch, bag, title.first, image.first, title.start, image.start
                    ),
                    _cells(arrays, title, image),
                )
                parts[thread, title.vectors].addmm_(weights, patches[image.vectors])
                grad_patches[image.vectors].addmm_(weights.T, bags[title.vectors])

    on_every_thread(work, threads)
    return parts.sum(0), grad_patches


def all_finite(values: Tensor) -> bool:
    """Return whether all numbers, float32 or bfloat16, are finite.

    Infinity and NaN are the numbers whose exponent bits are all set.
    """
    wide = values.dtype == torch.float32
    bits = values.detach().contiguous().view(torch.uint32 if wide else torch.uint16)
    exponent = np.uint32(0x7F80_0000) if wide else np.uint16(0x7F80)
    return bool(_loops().all_finite(bits.view(-1).numpy(), exponent))


def _loops() -> Any:
    return kernels()


def _cells(arrays: Any, title: Range, image: Range) -> Any:
    """Return the part of ``t2i`` and ``i2t`` that belongs to a tile."""
    return arrays._replace(
        t2i=arrays.t2i[title.items, image.items], i2t=arrays.i2t[image.items, title.items]
    )


def _tile(buffer: Tensor, rows: int, columns: int) -> Tensor:
    return buffer[: rows * columns].view(rows, columns)


def _as_array(tile: Tensor) -> Array:
    """Return a tile as a numpy array; bfloat16, which numpy lacks, as its bits."""
    return (tile.view(torch.uint16) if tile.dtype == torch.bfloat16 else tile).numpy()
