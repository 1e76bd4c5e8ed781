"""Scan and read the rows of several segments as if they were one array.

A row is named by its position in all segments, one after the other::

    segment     segment-a1     segment-b2
    position    0   1   2      3   4          rows 1 and 4: row 1 of segment-a1, row 1 of segment-b2

Three implementations give the same results: numpy for small scans, torch's kernels on the CPU, and
a GPU, which keeps the vectors.

Shapes: Q queries, n rows of all segments, m of them scored, k results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.index.segments import Segment
from bagformer_cli.runtime.scan import scan as scan_in_numpy

if TYPE_CHECKING:
    import torch

    from bagformer_cli.index.engine import Queries
    from bagformer_cli.interaction.device_images import DeviceImages
    from bagformer_cli.vectors.multi_vectors import MultiVectors

Best = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores [Q, k], falling, and positions [Q, k]."""

OVERSAMPLE = 4
"""Rows of a scan that are scored again in float32, per result."""

NUMPY_PRODUCTS = 1 << 32
"""Multiplications up to which a scan in numpy takes less time than importing torch."""

NUMPY_RULE_PRODUCTS = 1 << 26
"""Multiplications up to which numpy scores by a rule that is no MaxSim: 8 ms, where loading the
kernels of both sums takes the first search of a process 600 ms of CPU time."""


class SegmentScanner:
    """Scores rows of segments exactly.

    Attributes:
        device: The GPU that scans and keeps the vectors of the segments; None: the CPU scans.
    """

    def __init__(self) -> None:
        self.device: torch.device | None = None
        self._on_device: dict[str, DeviceImages] = {}  # by the name of the segment

    def scan(
        self,
        segments: Sequence[Segment],
        queries: Queries,
        k: int,
        rows: NDArray[np.int64] | None = None,
    ) -> Best:
        """Find the best ``k`` rows for each query by its rule.

        Args:
            segments: The segments.
            queries: Q queries.
            k: Results per query; fewer are returned if there are fewer rows.
            rows: [m] the positions to score, rising; None: all rows.

        Returns:
            Scores [Q, k], falling, and positions [Q, k].
        """
        scores = np.zeros((len(queries.vectors), 0), np.float32)
        positions = np.zeros((len(queries.vectors), 0), np.int64)
        in_numpy = self._in_numpy(segments, queries)
        if self.device is not None:
            self._forget_all_but(segments)
        for segment, start, end in _ranges(segments):
            inside = None
            if rows is not None:
                own = rows[slice(*np.searchsorted(rows, (start, end)))]
                inside = None if len(own) == end - start else own - start
            if end == start or (inside is not None and not len(inside)):
                continue
            if in_numpy:
                items = segment.arrays.plain
                assert items is not None
                found, at = scan_in_numpy(queries.vectors, items, k, inside, queries.rule)
            else:
                found, at = self._in_torch(segment, queries, k, inside)
            scores = np.concatenate([scores, found], 1)
            positions = np.concatenate([positions, at + start], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # equal scores stay in order
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)

    def _in_numpy(self, segments: Sequence[Segment], queries: Queries) -> bool:
        """Tell whether numpy scans: without torch, or where loading it or kernels takes longer."""
        if any(segment.arrays.plain is None for segment in segments):
            return False
        if not torch_is_installed():
            return True
        products = len(queries.vectors.values) * sum(s.arrays.values.size for s in segments)
        if "torch" not in sys.modules:
            return products <= NUMPY_PRODUCTS
        kernels = queries.rule.is_maxsim or self.device is not None
        return not kernels and products <= NUMPY_RULE_PRODUCTS

    def _in_torch(
        self, segment: Segment, queries: Queries, k: int, rows: NDArray[np.int64] | None
    ) -> Best:
        """Find the best ``k`` rows of a segment, among all or ``rows``: on the device, if any."""
        import torch

        from bagformer_cli.interaction.topk import rescored, topk

        vectors, texts, rule = segment.vectors, queries.tensors, queries.rule
        candidates = None if rows is None else torch.from_numpy(rows)
        wanted = k * OVERSAMPLE
        if self.device is None:
            # The type of the first pass; the best are then scored again in float32.
            dtype = torch.int8 if vectors.dtype == torch.int8 else torch.float32
            best = topk(texts, vectors, wanted, dtype=dtype, candidates=candidates, rule=rule)[1]
        else:
            best = self._loaded(segment, self.device).topk(texts, wanted, candidates, rule)[1]
        scores, at = rescored(texts, vectors, k, best, rule)
        return scores.numpy(), at.numpy()

    def _loaded(self, segment: Segment, device: torch.device) -> DeviceImages:
        """Return a segment's vectors on the device; they are copied there once."""
        from bagformer_cli.interaction.device_images import DeviceImages

        if segment.name not in self._on_device:
            self._on_device[segment.name] = DeviceImages(segment.vectors, device)
        return self._on_device[segment.name]

    def _forget_all_but(self, segments: Sequence[Segment]) -> None:
        """Free the device's copies of segments that were replaced."""
        for name in set(self._on_device) - {segment.name for segment in segments}:
            self._on_device.pop(name, None)


def select_rows(segments: Sequence[Segment], positions: NDArray[np.int64]) -> MultiVectors:
    """Copy the vectors of rows, in the order of ``positions``."""
    import torch

    from bagformer_cli.vectors.multi_vectors import MultiVectors

    if len(segments) == 1:
        return segments[0].vectors.select(torch.from_numpy(positions))
    parts, order = [], []
    for segment, start, end in _ranges(segments):
        own = np.flatnonzero((positions >= start) & (positions < end))
        if len(own):
            parts.append(segment.vectors.select(torch.from_numpy(positions[own] - start)))
            order.append(own)
    inverse = np.argsort(np.concatenate(order))
    return MultiVectors.concatenate(parts).select(torch.from_numpy(inverse))


def _ranges(segments: Sequence[Segment]) -> Iterator[tuple[Segment, int, int]]:
    """Yield each segment with the position of its first row and the one past its last."""
    start = 0
    for segment in segments:
        yield segment, start, start + len(segment.keys)
        start += len(segment.keys)


@cache
def torch_is_installed() -> bool:
    """Tell whether torch can be imported; a service of an exported model does without it."""
    return find_spec("torch") is not None
