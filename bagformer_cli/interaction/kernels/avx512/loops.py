"""Compiled loop: scores of titles for images, 16 bags × 8 or 16 patches at a time.

The loop goes through the images; for each image through the slots of bags, two at a time; for each
pair of slots through the image's patches, eight at a time. ``best`` has the maximum of each bag
over the patches so far. After the last patch a title's score is the sum over its bags.

Shapes: H slots of 16 bags, Q titles of G bags, N images of R patches, W words of 4 bytes per
vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bagformer_cli.compiled import compile_loop
from bagformer_cli.interaction.kernels.avx512.registers import block_of_maxima, sum_of_bytes

_PREFETCH = 64  # patches between the one that is multiplied and the one that is prefetched
_LOWEST = -(1 << 31)


class TitleArrays(NamedTuple):
    """Titles, packed into slots.

    Attributes:
        bags: [H, W, 16] uint32; int8 bytes are stored as unsigned, 128 larger.
        offsets: [Q+1] int64: title ``q`` owns the bags from ``offsets[q]`` to ``offsets[q+1]``; bag
            ``g`` is in slot ``g // 16``, lane ``g % 16``.
        scales: [Q] float32.
    """

    bags: Any
    offsets: Any
    scales: Any


class ImageArrays(NamedTuple):
    """Images, where they are stored.

    Attributes:
        patches: [R, D] float32, int8 or uint16 (the bits of bfloat16).
        offsets: [N+1] int64.
        scales: [N] float32.
        candidates: [n] int64, positions of the images to score; empty: all N.
    """

    patches: Any
    offsets: Any
    scales: Any
    candidates: Any


class Scratch(NamedTuple):
    """Memory of one thread.

    Attributes:
        best: [16·H] int32 or float32, the maximum of each bag.
        begins: [longest image] int32 for int8, else empty: first value of each patch's sums.
    """

    best: Any
    begins: Any


_sum_of_bytes_4 = sum_of_bytes(4)
_sum_of_bytes_16 = sum_of_bytes(16)
_two_slots_8 = block_of_maxima(2, 8)
_two_slots_1 = block_of_maxima(2, 1)
_one_slot_16 = block_of_maxima(1, 16)
_one_slot_1 = block_of_maxima(1, 1)


def _score(images: ImageArrays, titles: TitleArrays, scratch: Scratch, t2i: Any) -> None:
    """Write ``t2i`` [Q, n] of the candidates, or of all images."""
    patches, offsets, candidates = images.patches, images.offsets, images.candidates
    best, begins = scratch.best, scratch.begins
    slots, words = np.int64(titles.bags.shape[0]), np.int64(titles.bags.shape[1])
    stride = np.int64(4) * words
    slot_bytes = np.int64(16) * stride
    patches_at, begins_at = np.int64(patches.ctypes.data), np.int64(begins.ctypes.data)
    bags_at, best_at = np.int64(titles.bags.ctypes.data), np.int64(best.ctypes.data)
    integers = len(begins) > 0
    ahead = np.int64(_PREFETCH) * stride
    listed = len(candidates) > 0
    for n in range(len(candidates) if listed else len(offsets) - 1):
        i = np.int64(candidates[n]) if listed else np.int64(n)
        if listed:  # the next candidate may be anywhere: prefetch there
            following = np.int64(candidates[min(n + 1, len(candidates) - 1)])
            ahead = np.int64(offsets[following] - offsets[i]) * stride
        length = np.int64(offsets[i + 1] - offsets[i])
        if length == 0:
            t2i[:, n] = 0
            continue
        best[:] = _LOWEST if integers else -np.inf
        first = patches_at + np.int64(offsets[i]) * stride
        if integers:
            # Bags are 128 larger than they should be: (b + 128) · p = b · p + 128 · p. Beginning
            # the sum with -128 times the sum of the patch's bytes takes the excess away.
            for r in range(length):
                if words % 16 == 0:
                    begins[r] = -_sum_of_bytes_16(first + r * stride, words)
                else:
                    begins[r] = -_sum_of_bytes_4(first + r * stride, words)
        s = np.int64(0)
        while s < slots:
            bags, maxima = bags_at + s * slot_bytes, best_at + s * 64
            two = slots - s > 1
            rows = np.int64(8 if two else 16)
            p = np.int64(0)
            while p + rows <= length:
                row, begin = first + p * stride, begins_at + p * 4
                if two:
                    _two_slots_8(patches, bags, words, begin, row, stride, ahead, maxima)
                else:
                    _one_slot_16(patches, bags, words, begin, row, stride, ahead, maxima)
                p += rows
            while p < length:
                row, begin = first + p * stride, begins_at + p * 4
                if two:
                    _two_slots_1(patches, bags, words, begin, row, stride, ahead, maxima)
                else:
                    _one_slot_1(patches, bags, words, begin, row, stride, ahead, maxima)
                p += np.int64(1)
            s += np.int64(2 if two else 1)
        for q in range(len(titles.offsets) - 1):
            total = np.float32(0)
            for g in range(titles.offsets[q], titles.offsets[q + 1]):
                total += np.float32(best[g])
            t2i[q, n] = total * (titles.scales[q] * images.scales[i])


score = compile_loop(_score)
