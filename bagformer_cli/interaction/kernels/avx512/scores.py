"""MaxSim on processors with AVX-512: no dot product reaches memory. Scores without gradients.

Its main use is a search: few titles, many images, read where they are stored. README.md in this
folder explains the data layout; ``XMR_AVX512=0`` switches the path off. Shapes: Q titles of G bags,
N images of P patches in total, H slots of 16 bags, W words of 4 bytes per vector, D dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.blocks import (
    Array,
    Range,
    block_of,
    cut,
    cut_evenly,
    scales_of,
)
from bagformer_cli.interaction.kernels.cpu.tiles import all_finite
from bagformer_cli.interaction.kernels.threads import on_every_thread, on_one_thread
from bagformer_cli.vectors.multi_vectors import MultiVectors, offsets_of

SWITCH = "XMR_AVX512"
"""Environment variable: ``0`` makes every score use tiles instead of AVX-512."""

LANES = 16
_PACK_BYTES = 1 << 20  # packed bags that stay in the second-level cache with an image
_TASK = 1 << 16  # slots × patches of a task: about a millisecond, much longer than a call takes
_TASK_PATCHES = 1 << 17


@cache
def _processor_has(dtype: torch.dtype) -> bool:
    try:
        from bagformer_cli.interaction.kernels.avx512 import registers
    except (ImportError, RuntimeError, OSError):  # numba does not work here
        return False
    return registers.processor_has(str(dtype).removeprefix("torch."))


@cache
def _processor_has_amx(dtype: torch.dtype) -> bool:
    import llvmlite.binding

    name = {torch.bfloat16: "amx-bf16", torch.int8: "amx-int8"}.get(dtype, "")
    return bool(llvmlite.binding.get_host_cpu_features().get(name, False))


def supported(dtype: torch.dtype) -> bool:
    """Return whether this processor can multiply ``dtype`` here and the path is switched on."""
    return os.environ.get(SWITCH, "1") != "0" and _processor_has(dtype)


def usable(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype, *, both: bool) -> bool:
    """Return whether these titles and images can be scored here, and no slower than by tiles."""
    width = texts.dim * dtype.itemsize
    if width == 0 or width % 16 or not len(images) or not len(texts.values):
        return False
    # With one vector per image nothing is reduced: that is a single matrix product.
    if len(images.values) < 4 * len(images) or not supported(dtype):
        return False
    # In both directions a title stays in one lane, so that few titles leave most lanes unused.
    if both and len(texts.values) < LANES // 2 * int(texts.lengths.max()):
        return False
    # Many bags are one large matrix product, for which AMX has eight times the speed of AVX-512.
    return len(texts.values) <= 2 * LANES or not _processor_has_amx(dtype)


class _Pack(NamedTuple):
    """Titles as the compiled loop reads them; see ``loops.TitleArrays``."""

    titles: Range
    bags: Array
    positions: Array
    starts: Array

    @classmethod
    def make(cls, texts: MultiVectors, titles: Range, both: bool) -> _Pack:
        """Pack titles: bag after bag, or for both directions each title into one lane."""
        values = texts.values.detach()[titles.vectors]
        count = len(titles)
        if not both:
            positions = np.arange(count)
            return cls(titles, _interleave(values, positions), positions, np.zeros(0, np.uint16))
        order = np.argsort(-np.diff(titles.offsets), kind="stable")
        load, positions = np.zeros(LANES, np.int64), np.empty(count, np.int64)
        starts = np.zeros(count + 1, np.uint16)
        _loops().arrange(titles.offsets, order, load, positions, starts)
        starts = starts[: int(load.max())].copy()
        starts[:1] = 0xFFFF  # unused lanes must not continue what an earlier image left
        return cls(titles, _interleave(values, positions), positions, starts)


def pack(texts: MultiVectors) -> Array:
    """Interleave the vectors of titles into slots: [H, W, 16] uint32.

    Lane ``l`` of ``[h, k]`` is word ``k`` of vector ``16 h + l``. Unused lanes are zero vectors.
    int8 bytes are stored as unsigned, 128 larger.
    """
    return _interleave(texts.values.detach(), np.arange(len(texts.values)))


def _interleave(values: Tensor, positions: Array) -> Array:
    """Put vector ``i`` [W words] into slot and lane ``positions[i]``: [H, W, 16] uint32."""
    # numpy, because a torch operation of this size would wake torch's threads, which then spin for
    # milliseconds on the cores that are to multiply.
    words = values.contiguous().view(torch.uint8).numpy().view(np.uint32)
    slots = -(-(int(positions.max(initial=-1)) + 1) // LANES)
    filled = np.zeros((slots * LANES, words.shape[1]), np.uint32)
    filled[positions] = words
    if values.dtype == torch.int8:
        filled ^= np.uint32(0x80808080)  # flips the sign bit of each byte: adds 128
    return np.ascontiguousarray(filled.reshape(slots, LANES, -1).transpose(0, 2, 1))


def scores(
    texts: MultiVectors,
    images: MultiVectors,
    *,
    dtype: torch.dtype,
    both: bool,
    budget: int,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute ``t2i`` [Q, N] and, if ``both``, ``i2t`` [N, Q] (else [0, 0]), without gradients.

    Args:
        texts: Q titles.
        images: N images. Those stored in another type are converted a block at a time.
        dtype: float32, bfloat16 or int8.
        both: Whether to compute the second direction.
        budget: Bytes that temporaries may take.
        candidates: [n] int64, positions of the images to score (n instead of N), read where they
            are stored; only for images stored as int8.
    """
    if texts.dtype != dtype:
        given = texts
        texts = on_one_thread(lambda: given.to(dtype=dtype), torch.get_num_threads())
    if dtype != torch.int8 and not all_finite(texts.values):
        return reference.scores(texts, images, dtype=dtype, both=both, budget=budget)
    count = len(images) if candidates is None else len(candidates)
    t2i = torch.zeros(len(texts), count)
    i2t = torch.zeros(count if both else 0, len(texts) if both else 0)
    per_vector = texts.dim * dtype.itemsize
    for first, end in cut(texts.offsets, max(LANES, budget // (4 * per_vector))):
        group = texts[first:end]
        cuts = cut_evenly(group.offsets, max(LANES, _PACK_BYTES // per_vector))
        packs = [
            _Pack.make(group, titles, both)
            for titles in Range.from_cuts(group.offsets, cuts)
            if len(titles)
        ]
        if packs:
            out = t2i[first:end], i2t[:, first:end]
            _score(group, packs, images, candidates, out, budget)
    return t2i, i2t


def _score(
    texts: MultiVectors,
    packs: list[_Pack],
    images: MultiVectors,
    candidates: Tensor | None,
    out: tuple[Tensor, Tensor],
    budget: int,
) -> None:
    loops, dtype, threads = _loops(), texts.dtype, torch.get_num_threads()
    limit = _TASK_PATCHES
    if images.dtype != dtype:  # every thread converts the images of its task
        limit = min(limit, max(1, budget // (4 * threads * images.dim * 4)))
    positions, offsets = np.zeros(0, np.int64), images.offsets
    if candidates is not None:
        positions, offsets = candidates.numpy(), offsets_of(images.lengths[candidates])
    tasks = _tasks(packs, offsets, threads, limit)
    title_scales, t2i, i2t = scales_of(texts), out[0].numpy(), out[1].numpy()
    longest = int(images.lengths.max())
    most = LANES * max(len(each.bags) for each in packs)
    integers, both = dtype == torch.int8, len(i2t) > 0

    def work(_: int) -> None:
        compared = np.int32 if integers else np.float32
        best = np.empty(most, compared)
        begins = np.empty(longest if integers else 0, np.int32)
        over = np.empty(longest * LANES if both else 0, compared)
        sums = np.empty(most if both else 0, np.float32)
        while (task := next(tasks, None)) is not None:
            image, share = task
            if candidates is None:
                patches, scales = block_of(images, image, dtype)
                ends = image.offsets
            else:
                patches, scales, ends = images.values, scales_of(images), images.offsets.numpy()
            if dtype != torch.int8 and not all_finite(patches):
                # The compiled loop does not handle NaN. This is rare, so all titles are scored
                # here, whichever of them this task has.
                block = images[image.items]
                found = reference.scores(texts, block, dtype=dtype, both=both, budget=budget)
                t2i[:, image.items] = found[0].numpy()
                if both:
                    i2t[image.items] = found[1].numpy()
                continue
            stored = loops.ImageArrays(_as_array(patches), ends, scales, positions[image.items])
            for titles, bags, positions_of_bags, starts in share:
                width = len(bags) * LANES
                loops.score(
                    stored,
                    loops.TitleArrays(
                        bags, positions_of_bags, starts, titles.offsets, title_scales[titles.items]
                    ),
                    loops.Scratch(best[:width], begins, over, sums[:width]),
                    t2i[titles.items, image.items],
                    i2t[image.items, titles.items],
                )

    on_every_thread(work, threads)


def _tasks(
    packs: list[_Pack], offsets: Tensor, threads: int, limit: int
) -> Iterator[tuple[Range, list[_Pack]]]:
    """Return ranges of images, each with the packs to score; threads draw from one iterator."""
    slots = sum(len(each.bags) for each in packs)
    vectors = int(offsets[-1])
    limit = min(limit, max(_TASK // slots, 64))
    parts = min(4 * threads, max(threads, slots * vectors // _TASK))
    ranges = Range.from_cuts(offsets, cut_evenly(offsets, limit, parts))
    shares = min(len(packs), -(-threads // max(1, len(ranges))))
    return iter([(image, packs[k::shares]) for image in ranges for k in range(shares)])


def _as_array(values: Tensor) -> Array:
    """Return vectors as a C-contiguous numpy array; bfloat16, which numpy lacks, as its bits."""
    values = values.contiguous()
    return (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()


@cache
def _loops() -> Any:
    from bagformer_cli.interaction.kernels.avx512 import loops

    return loops
