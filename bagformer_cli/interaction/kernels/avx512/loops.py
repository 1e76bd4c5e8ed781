"""Compiled loop: scores of titles and images, 16 bags × 8 or 16 patches at a time.

The loop goes through the images; for each image through the slots of bags, two at a time; for each
pair of slots through the image's patches, eight at a time. ``best`` has the maximum of each bag
over the patches so far; after the last patch ``t2i`` is the sum over a title's bags. For both
directions ``over`` has the maximum of each patch over the bags so far of the title in each lane.

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
        positions: [G] int64, slot · 16 + lane of each bag.
        starts: [H] uint16, bit mask of the lanes in which a title starts; for both directions.
        offsets: [Q+1] int64: title ``q`` owns the bags from ``offsets[q]`` to ``offsets[q+1]``.
        scales: [Q] float32.
    """

    bags: Any
    positions: Any
    starts: Any
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
        over: [longest image, 16] like ``best``, for both directions: maxima of each patch.
        i2t: [16·H] float32, for both directions: sums of ``over`` after each slot.
    """

    best: Any
    begins: Any
    over: Any
    i2t: Any


_sum_of_bytes_4 = sum_of_bytes(4)
_sum_of_bytes_16 = sum_of_bytes(16)
_t2i_2x8 = block_of_maxima(2, 8, False)
_t2i_2x1 = block_of_maxima(2, 1, False)
_t2i_1x16 = block_of_maxima(1, 16, False)
_t2i_1x1 = block_of_maxima(1, 1, False)
_both_2x8 = block_of_maxima(2, 8, True)
_both_2x1 = block_of_maxima(2, 1, True)
_both_1x16 = block_of_maxima(1, 16, True)
_both_1x1 = block_of_maxima(1, 1, True)


def _score(images: ImageArrays, titles: TitleArrays, scratch: Scratch, t2i: Any, i2t: Any) -> None:
    """Write ``t2i`` [Q, n] and, if it has rows, ``i2t`` [n, Q] of the candidates or all images."""
    patches, offsets, candidates = images.patches, images.offsets, images.candidates
    best, begins = scratch.best, scratch.begins
    both = i2t.shape[0] > 0
    slots, words = np.int64(titles.bags.shape[0]), np.int64(titles.bags.shape[1])
    stride = np.int64(4) * words
    slot_bytes = np.int64(16) * stride
    patches_at, begins_at = np.int64(patches.ctypes.data), np.int64(begins.ctypes.data)
    bags_at, best_at = np.int64(titles.bags.ctypes.data), np.int64(best.ctypes.data)
    over_at, i2t_at = np.int64(scratch.over.ctypes.data), np.int64(scratch.i2t.ctypes.data)
    starts_at = np.int64(titles.starts.ctypes.data)
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
            if both:
                i2t[n] = 0
            continue
        best[:] = _LOWEST if integers else -np.inf
        if both:
            scratch.i2t[:] = 0
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
            two = slots - s > 1
            rows = np.int64(8 if two else 16)
            bags, bst = bags_at + s * slot_bytes, best_at + s * 64
            start, sums = starts_at + s * 2, i2t_at + s * 64
            p = np.int64(0)
            while p < length:
                row, beg, ovr = first + p * stride, begins_at + p * 4, over_at + p * 64
                if p + rows <= length:
                    if both and two:
                        _both_2x8(patches, bags, words, beg, row, stride, ahead, bst, ovr, start,
                                  sums)  # fmt: skip
                    elif both:
                        _both_1x16(patches, bags, words, beg, row, stride, ahead, bst, ovr, start,
                                   sums)  # fmt: skip
                    elif two:
                        _t2i_2x8(patches, bags, words, beg, row, stride, ahead, bst)
                    else:
                        _t2i_1x16(patches, bags, words, beg, row, stride, ahead, bst)
                    p += rows
                else:  # the last few patches, one at a time
                    if both and two:
                        _both_2x1(patches, bags, words, beg, row, stride, ahead, bst, ovr, start,
                                  sums)  # fmt: skip
                    elif both:
                        _both_1x1(patches, bags, words, beg, row, stride, ahead, bst, ovr, start,
                                  sums)  # fmt: skip
                    elif two:
                        _t2i_2x1(patches, bags, words, beg, row, stride, ahead, bst)
                    else:
                        _t2i_1x1(patches, bags, words, beg, row, stride, ahead, bst)
                    p += np.int64(1)
            s += np.int64(2 if two else 1)
        for q in range(len(titles.offsets) - 1):
            scale = titles.scales[q] * images.scales[i]
            total = np.float32(0)
            for g in range(titles.offsets[q], titles.offsets[q + 1]):
                total += np.float32(best[titles.positions[g]])
            t2i[q, n] = total * scale
            if both:
                last = titles.offsets[q + 1] - 1
                filled = last >= titles.offsets[q]
                i2t[n, q] = scratch.i2t[titles.positions[last]] * scale if filled else np.float32(0)


def _arrange(offsets: Any, order: Any, load: Any, positions: Any, starts: Any) -> None:
    """Put each title into one lane, one bag per slot; the next title into the shortest lane.

    Args:
        offsets: [Q+1] int64 of the titles.
        order: [Q] int64, titles by length, longest first: the lanes then end about equal.
        load: [16] int64 zeros; gets the number of bags in each lane.
        positions: [G] int64; gets slot · 16 + lane of each bag.
        starts: [G or more] uint16 zeros; see :class:`TitleArrays`.
    """
    for q in order:
        lane = np.int64(0)
        for other in range(1, 16):
            if load[other] < load[lane]:
                lane = np.int64(other)
        if offsets[q + 1] > offsets[q]:
            starts[load[lane]] |= np.uint16(1 << lane)
        for g in range(offsets[q], offsets[q + 1]):
            positions[g] = load[lane] * 16 + lane
            load[lane] += 1


score = compile_loop(_score)
arrange = compile_loop(_arrange)
