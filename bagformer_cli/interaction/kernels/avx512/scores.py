"""MaxSim on processors with AVX-512: bags packed into lanes, no dot product ever in memory.

What :mod:`._cpu` does with a matrix product and a second look at its result happens here inside
the registers, see :mod:`._lanes`. Scores only, no gradients. Shapes: Q titles of G bags, N images
of P patches in all, H slots of 16 lanes, W words of 4 bytes in a vector, D dimensions.
"""

from __future__ import annotations

import time
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
    LANES,
    Array,
    Range,
    block_of,
    cut,
    cut_evenly,
    scales_of,
)
from bagformer_cli.interaction.kernels.cpu import tiles as _cpu
from bagformer_cli.interaction.kernels.threads import on_every_thread, on_one_thread
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int8: "int8"}
_PACK = 1 << 20  # bytes of packed bags that meet an image while both stay in a core's cache
_TASK = 1 << 16  # slots × patches of a task: a millisecond, far longer than calling it takes
_CLEARLY = 1.1  # how much faster a matrix product must be to be taken: the same in every run
_PATCHES = 1 << 17  # and at most so many patches


@cache
def kernels() -> ModuleType | None:
    """The compiled loops, or None where numba cannot be used."""
    try:
        from bagformer_cli.interaction.kernels.avx512 import lanes as _lanes
    except (ImportError, RuntimeError, OSError):
        return None
    return _lanes


@cache
def has(dtype: torch.dtype) -> bool:
    """Whether this processor can multiply this type this way."""
    loops = kernels()
    return loops is not None and bool(loops.has(DTYPES[dtype]))


@cache
def quicker(dtype: torch.dtype, few: bool) -> bool:
    """Whether no matrix product beats this way on this processor: measured once, not assumed.

    Args:
        dtype: What is multiplied.
        few: For a search (10 bags), or for many titles.
    """
    if not has(dtype):
        return False
    generator = torch.Generator().manual_seed(0)
    titles, images = (2, 512) if few else (64, 64)
    texts = MultiVectors.from_dense(torch.randn(titles, 5, 256, generator=generator))
    patches = MultiVectors.from_dense(torch.randn(images, 64, 256, generator=generator))
    texts, patches = texts.to(dtype=dtype), patches.to(dtype=dtype)

    def measure() -> bool:
        seconds = []
        found = []
        for path in (_cpu.scores, scores):
            best = float("inf")
            for _ in range(4):
                start = time.thread_time()  # what others do to this processor does not count
                result = path(texts, patches, dtype=dtype, both=not few, budget=1 << 26)
                best = min(best, time.thread_time() - start)
            seconds.append(best)
            found.append(result[0])
        right = bool((found[1] - found[0]).abs().max() < 1e-2 * found[0].abs().max())
        return right and seconds[1] < seconds[0] * _CLEARLY

    return on_one_thread(measure, torch.get_num_threads())


def can(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype, *, both: bool) -> bool:
    """Whether this way is open: the processor, the width of a vector, and lanes that are in use."""
    width = texts.dim * dtype.itemsize
    if width == 0 or width % 16 or not len(images) or not len(texts.values):
        return False
    # A single vector an image leaves nothing to be reduced: that is one matrix product.
    if len(images.values) < 4 * len(images):
        return False
    # Both ways a title stays in one lane, so that few titles leave most lanes empty.
    if both and len(texts.values) < LANES // 2 * int(texts.lengths.max()):
        return False
    return quicker(dtype, few=len(texts.values) <= 2 * LANES)


@dataclass(frozen=True, slots=True)
class _Pack:
    """Some titles as the loops want them."""

    titles: Range
    bags: Array  # [H, W, 16] uint32
    begins: Array  # [H] uint16
    places: Array  # [bags] int64

    @classmethod
    def make(cls, texts: MultiVectors, titles: Range, both: bool) -> _Pack:
        count = len(titles)
        if both:
            lengths = np.diff(titles.offsets)
            order = np.argsort(-lengths, kind="stable")
            places = np.empty(count, np.int64)
            load, begins = np.zeros(LANES, np.int64), np.zeros(count + 1, np.uint16)
            _lanes().arrange(titles.offsets, order, load, places, begins)
            slots = int(load.max())
        else:
            places, slots = np.arange(count), -(-count // LANES)
            begins = np.zeros(slots, np.uint16)
        # numpy from here: a torch operation of this size would wake torch's threads, which then
        # spin for milliseconds beside those that are to multiply.
        values = texts.values.detach()[titles.vectors].contiguous().view(torch.uint8).numpy()
        words = values.view(np.uint32)
        spread = np.zeros((slots * LANES, words.shape[1]), np.uint32)
        spread[places] = words
        if texts.dtype == torch.int8:
            spread ^= np.uint32(0x80808080)  # bytes unsigned, 128 more
        bags = np.ascontiguousarray(spread.reshape(slots, LANES, -1).transpose(0, 2, 1))
        begins = begins[:slots].copy()
        begins[:1] = 0xFFFF  # an empty lane begins with nothing as well
        return cls(titles, bags, begins, places)

    @property
    def slots(self) -> int:
        return len(self.bags)


def pack(texts: MultiVectors) -> Array:
    """[H, W, 16] words: the vectors of titles side by side, one after the other; see ``_lanes``.

    What is in spare lanes makes nothing of any vector.
    """
    everything = Range.all(texts.offsets, [(0, len(texts))])[0]
    return _Pack.make(texts, everything, both=False).bags


def scores(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype,
    both: bool,
    budget: int,
    chosen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As ``_cpu.scores``; of int8 also of ``chosen`` [n] images alone, read where they lie."""
    if texts.dtype != dtype:
        given = texts
        texts = on_one_thread(lambda: given.to(dtype=dtype), torch.get_num_threads())
    if dtype != torch.int8 and not _cpu.finite(texts.values):
        t2i, i2t = _plain.scores(texts, images, dtype=dtype, both=both, budget=budget)
        return t2i, i2t
    count = len(images) if chosen is None else len(chosen)
    t2i = torch.zeros(len(texts), count)
    i2t = torch.zeros(count if both else 0, len(texts) if both else 0)
    per_vector = texts.dim * dtype.itemsize
    for first, end in cut(texts.offsets, max(LANES, budget // (4 * per_vector))):
        group = texts[first:end]
        ranges = Range.all(
            group.offsets, cut_evenly(group.offsets, max(LANES, _PACK // per_vector))
        )
        packs = [_Pack.make(group, titles, both) for titles in ranges if len(titles)]
        if packs:
            up = i2t[:, first:end]
            _score(group, packs, images, dtype, chosen, t2i[first:end], up, budget)
    return t2i, i2t


def _score(
    texts: MultiVectors, packs: list[_Pack], images: MultiVectors, dtype: torch.dtype,
    chosen: Tensor | None, t2i: Tensor, i2t: Tensor, budget: int,
) -> None:  # fmt: skip
    threads = torch.get_num_threads()
    both = len(i2t) > 0
    limit = _PATCHES
    if images.dtype != dtype:  # they are converted a task at a time
        limit = min(limit, max(1, budget // (4 * threads * images.dim * 4)))
    numbers, offsets = np.zeros(0, np.int64), images.offsets
    if chosen is not None:
        numbers, offsets = chosen.numpy(), offsets_of(images.lengths[chosen])
    tasks = _tasks(packs, offsets, threads, limit)
    title_scale, down, up = scales_of(texts), t2i.numpy(), i2t.numpy()
    longest = int(images.lengths.max())
    most = max(pack.slots for pack in packs)
    compared = np.int32 if dtype == torch.int8 else np.float32
    score = _lanes().score

    def work(_: int) -> None:
        best = np.empty(most * LANES, compared)
        ups = np.empty(most * LANES if both else 0, np.float32)
        over = np.empty(longest * LANES if both else 0, compared)
        begins = np.empty(longest if dtype == torch.int8 else 0, np.int32)
        while (task := next(tasks, None)) is not None:
            image, share = task
            own = numbers[image.items]
            if chosen is None:
                patches, image_scale = block_of(images, image, dtype)
                ends = image.offsets
            else:
                patches, image_scale, ends = (
                    images.values,
                    scales_of(images),
                    images.offsets.numpy(),
                )
            if dtype != torch.int8 and not _cpu.finite(patches):
                # All titles, whatever this task's share of them: it is rare.
                block = images[image.items]
                found = _plain.scores(texts, block, dtype=dtype, both=both, budget=budget)
                down[:, image.items] = found[0].numpy()
                if both:
                    up[image.items] = found[1].numpy()
                continue
            for pack in share:
                width = pack.slots * LANES
                score(
                    _bits(patches), ends, own, pack.bags, pack.begins, pack.places,
                    pack.titles.offsets, title_scale[pack.titles.items], image_scale,
                    down[pack.titles.items, image.items],
                    up[image.items, pack.titles.items], begins, best[:width], over, ups[:width],
                )  # fmt: skip

    on_every_thread(work, threads)


def _tasks(
    packs: list[_Pack], offsets: Tensor, threads: int, limit: int
) -> Iterator[tuple[Range, list[_Pack]]]:
    """Ranges of images, each with the packs it meets; threads draw from one list."""
    slots = sum(pack.slots for pack in packs)
    vectors = int(offsets[-1])
    limit = min(limit, max(_TASK // slots, 64))
    parts = min(4 * threads, max(threads, slots * vectors // _TASK))
    ranges = Range.all(offsets, cut_evenly(offsets, limit, parts))
    shares = min(len(packs), -(-threads // max(1, len(ranges))))
    return iter([(image, packs[k::shares]) for image in ranges for k in range(shares)])


def _bits(values: Tensor) -> Array:
    """Vectors as numpy, their rows next to each other; bfloat16, which numpy lacks, as its bits."""
    values = values.contiguous()
    return (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()


def _lanes() -> Any:
    return kernels()
