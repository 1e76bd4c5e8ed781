"""Search on a GPU: the vectors of a catalogue stay on it; those that do not fit stream through it.

::

    products   0 ─────────────────────── m ──────────────────────────────── N
               │ on the device, in the   │ read from memory (or a memory-mapped file)
               │ stored type             │ for every search
               ▼                         ▼
               scan kernels              pinned buffer A ─▶ device buffer A ─▶ scan kernels
                                         pinned buffer B ─▶ device buffer B ─▶ scan kernels
                                         (the host fills one while the device copies the other)

Scores of a block of products are reduced to its best ``k`` at once, so no [Q, N] matrix exists.
int8 and residual codes are decoded by the kernels. Without Triton, plain torch computes the same.

Shapes: Q queries, N products.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.interaction.kernels.blocks import cut
from bagformer_cli.interaction.maxsim import cuda_kernels
from bagformer_cli.interaction.rules import rule_scores
from bagformer_cli.interaction.topk import best_columns, merge_best
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors

BLOCK = 1 << 20
"""Products whose scores are in memory at once: 64 MB for sixteen queries."""

STREAMED_BYTES = 256 << 20
"""Size of a buffer of streamed vectors; there are two pairs of them."""

FREE_SHARE = 0.8
"""Share of the device's free memory that vectors may take."""

MAX_SCANS = 4
"""Scans that all queries may take; more queries are scored by one matrix product."""

FLOAT16_MAX = 6e4


class DeviceImages:
    """Products whose vectors are on a GPU, as many as fit.

    Args:
        images: N products, for example memory-mapped. float32 is kept on the device as float16.
        device: The GPU.
        max_bytes: Bytes of vectors that the device may hold; None: most of its free memory. A
            smaller number leaves more products to be streamed by every search.

    Example:
        >>> images = MultiVectors.from_dense(torch.eye(4)[:, None])
        >>> device = DeviceImages(images, torch.device("cpu"))
        >>> scores, positions = device.topk(images[2], 2)
        >>> positions[0, 0]
        tensor(2)
    """

    def __init__(
        self, images: MultiVectors, device: torch.device, max_bytes: int | None = None
    ) -> None:
        self.images, self.device = images, device
        self.dtype = _device_type(images)
        per_vector = images.values.shape[1] * self.dtype.itemsize
        if max_bytes is None:
            max_bytes = images.values.nbytes
            if device.type == "cuda":
                free = int(torch.cuda.mem_get_info(device)[0] * FREE_SHARE)
                max_bytes = max(0, free - 4 * STREAMED_BYTES)
        self._vectors_at_once = max(1, STREAMED_BYTES // max(1, per_vector))
        limit = max_bytes // max(1, per_vector)
        self.resident = int(torch.searchsorted(images.offsets, limit, right=True)) - 1
        self._blocks = []
        for first in range(0, self.resident, BLOCK):
            end = min(first + BLOCK, self.resident)
            self._blocks.append((first, _Block(self._copied(first, end))))

    def topk(
        self,
        texts: MultiVectors,
        k: int,
        candidates: Tensor | None = None,
        rule: ScoreRule = MAXSIM,
    ) -> tuple[Tensor, Tensor]:
        """Return the ``k`` products with the highest score for each query.

        Args:
            texts: Q queries.
            k: Number of results, at least 1. Fewer are returned if there are fewer products.
            candidates: [n] int64, rising: positions of the products that may be returned, the same
                for all queries; None: all.
            rule: The score. Default: ``t2i``, for which there are scan kernels.

        Returns:
            Scores [Q, k] float32, highest first, and positions [Q, k] int64, on the CPU; equal
            scores as in :func:`~bagformer_cli.interaction.topk.topk`. Vectors are multiplied in
            the type of the device: score the best in full precision afterwards.
        """
        if candidates is not None:
            candidates = self.images.check_positions(candidates)
        best = torch.empty(len(texts), 0, device=self.device)
        positions = torch.empty(len(texts), 0, dtype=torch.int64, device=self.device)
        for first, block in self._all_blocks(candidates):
            chosen = None
            if candidates is not None:
                begin, stop = torch.searchsorted(
                    candidates, torch.tensor([first, first + len(block.vectors)])
                ).tolist()
                if begin == stop:
                    continue
                chosen = (candidates[begin:stop] - first).to(self.device)
            scores = block.scores(texts, chosen, rule)
            index = best_columns(scores, k)
            found = scores.gather(1, index)
            index = index if chosen is None else chosen[index]
            best, positions = merge_best(best, positions, found, index + first, k)
        return best.cpu(), positions.cpu()

    def _all_blocks(self, candidates: Tensor | None) -> Iterator[tuple[int, _Block]]:
        """Yield resident and streamed blocks; the latter only if they hold candidates."""
        yield from self._blocks
        beyond = self.images.offsets[self.resident :]
        ranges = [
            (self.resident + a, self.resident + b)
            for a, b in cut(beyond - beyond[0], self._vectors_at_once)
        ]
        if candidates is not None:
            ends = torch.tensor(ranges).view(-1, 2)
            counts = torch.searchsorted(candidates, ends).diff(dim=1).flatten()
            ranges = [one for one, count in zip(ranges, counts.tolist(), strict=True) if count]
        if self.device.type != "cuda":
            for first, end in ranges:
                yield first, _Block(self._copied(first, end))
            return
        yield from self._streamed(ranges)

    def _streamed(self, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, _Block]]:
        """Copy ranges of products through two pinned buffers while the device computes."""
        copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        slots = [_Slot(copies), _Slot(copies)]
        # The caller reads the best of a block, which waits for the device, before it takes the next
        # block. So the copy of the next range begins before a block is yielded.
        under_way: tuple[int, _Slot, MultiVectors] | None = None
        for number, (first, end) in enumerate(ranges):
            part, slot = self.images[first:end], slots[number % 2]
            values = slot.copy(part.values, self.dtype)
            scales = None if part.scales is None else to_device(part.scales, self.device)
            vectors = MultiVectors(values, part.offsets, scales, part.codebook)
            if under_way is not None:
                yield from _yielded(*under_way)
            under_way = first, slot, vectors
        if under_way is not None:
            yield from _yielded(*under_way)

    def _copied(self, first: int, end: int) -> MultiVectors:
        part = self.images[first:end]
        values = part.values.to(self.device, self.dtype).contiguous()
        scales = None if part.scales is None else part.scales.to(self.device)
        return MultiVectors(values, part.offsets, scales, part.codebook)


def _yielded(first: int, slot: _Slot, vectors: MultiVectors) -> Iterator[tuple[int, _Block]]:
    """Yield a streamed block when it has arrived; afterwards its buffer is free."""
    slot.wait()
    yield first, _Block(vectors)
    slot.release()


class _Block:
    """Products on the device, ready for the kernels."""

    def __init__(self, vectors: MultiVectors) -> None:
        self.vectors = vectors
        kernels = _scan_kernels(vectors)
        self._described = kernels.DeviceBlock.of(vectors) if kernels else None
        self._kernels = kernels

    def scores(self, texts: MultiVectors, chosen: Tensor | None, rule: ScoreRule) -> Tensor:
        """Score queries against all products or the ``chosen`` ones: [Q, n] on the device."""
        groups = None
        if self._kernels is not None and rule.is_maxsim and not rule.means:
            groups = _groups(texts, self._kernels.MAX_BAGS, self._kernels.MAX_QUERIES)
        if self._kernels is None or groups is None:
            dtype = torch.int8 if self.vectors.dtype == torch.int8 else torch.float32
            queries = texts.to(self.vectors.device)
            chosen = None if chosen is None else chosen.cpu()
            return rule_scores(queries, self.vectors, rule, dtype=dtype, candidates=chosen)
        parts = [self._kernels.scan(texts[a:b], self._described, chosen) for a, b in groups]
        return torch.cat(parts)


def _scan_kernels(vectors: MultiVectors):  # type: ignore[no-untyped-def]
    """Return the module of the scan kernels; None where they do not run, or not for these."""
    if cuda_kernels() is None:
        return None
    from bagformer_cli.interaction.kernels.cuda import scan, settings

    device = vectors.device
    if device.type != ("cpu" if settings.INTERPRETED else "cuda"):
        return None
    return scan if scan.takes(vectors) and scan.works(device) else None


def _groups(texts: MultiVectors, bags: int, queries: int) -> list[tuple[int, int]] | None:
    """Cut queries into ranges that one scan takes; None if a product of all is better."""
    if not len(texts) or int(texts.lengths.max()) > bags:
        return None
    ranges: list[tuple[int, int]] = []
    for first, end in cut(texts.offsets, bags):
        ranges += [(a, min(a + queries, end)) for a in range(first, end, queries)]
    return ranges if len(ranges) <= MAX_SCANS else None


def _device_type(images: MultiVectors) -> torch.dtype:
    """Return the type in which the device keeps vectors: the stored one, float32 as float16."""
    if images.dtype not in (torch.float32, torch.float64):
        return images.dtype
    for first in range(0, len(images.values), 1 << 20):
        block = images.values[first : first + (1 << 20)]
        if block.abs().amax() > FLOAT16_MAX:  # float16 would make infinity of it
            return torch.bfloat16
    return torch.float16


class _Slot:
    """A pinned buffer and a device buffer of streamed vectors.

    ``_copied`` is when the device has read the pinned buffer, ``_used`` when it no longer needs the
    device buffer.
    """

    def __init__(self, copies: torch.cuda.Stream) -> None:
        self._copies = copies
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._used = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def copy(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Begin to copy ``values`` [n, D] to the device, as ``dtype``; see :meth:`wait`."""
        size = values.numel() * dtype.itemsize
        if size > len(self._pinned):
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._buffer = torch.empty(size, dtype=torch.uint8, device=self._copies.device)
            # The memory may be that of a tensor that queued work still reads.
            self._copies.wait_stream(torch.cuda.current_stream(self._copies.device))
        self._copied.synchronize()
        staged = self._pinned[:size].view(dtype).view(values.shape)
        staged.copy_(values)
        arrived = self._buffer[:size].view(dtype).view(values.shape)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._used)
            arrived.copy_(staged, non_blocking=True)
            self._copied.record(self._copies)
        return arrived

    def wait(self) -> None:
        """Let the current stream wait until the last copy has arrived."""
        torch.cuda.current_stream(self._copies.device).wait_event(self._copied)

    def release(self) -> None:
        """Mark the device buffer as free after the work that is queued so far."""
        self._used.record(torch.cuda.current_stream(self._copies.device))
