"""Counting hashes in a fixed space."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

ROWS, BITS = 2, 22
"""Rows x 2^bits counters of 4 bytes (32 MiB)."""

_SPREAD = np.uint64(0xFF51AFD7ED558CCD)
_ROW_SEED = 0xD6E8FEB86659FD93


def top_bits(hashes: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.uint64]:
    """So many well-mixed bits of each hash."""
    return (hashes * _SPREAD) >> np.uint64(64 - bits)


class Sketch:
    """A count-min sketch: never counts too little, rarely too much."""

    def __init__(self) -> None:
        self.counts = np.zeros((ROWS, 1 << BITS), np.uint32)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Count every hash once."""
        for row, cells in enumerate(self._cells(hashes)):
            where, times = np.unique(cells, return_counts=True)
            self.counts[row, where] += times.astype(np.uint32)

    def __getitem__(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        found = [self.counts[row, cells] for row, cells in enumerate(self._cells(hashes))]
        least: npt.NDArray[np.uint32] = np.minimum.reduce(found)
        return least

    @staticmethod
    def _cells(hashes: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.uint64]]:
        for row in range(ROWS):
            yield top_bits(hashes ^ np.uint64(_ROW_SEED * (row + 1) % (1 << 64)), BITS)
