"""A count-min sketch: counts of hashes in a fixed amount of memory.

Each of the ROWS tables has 2^BITS counters. A hash adds one to one counter of each table, and its
count is the smallest of its counters (Cormode and Muthukrishnan, 2005). Hashes that share a counter
make a count too large, never too small; that all counters of a hash are shared is rare.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

ROWS, BITS = 2, 22
"""2 x 2^22 counters of 4 bytes are 32 MiB."""

_SPREAD = np.uint64(0xFF51AFD7ED558CCD)
_ROW_SEED = 0xD6E8FEB86659FD93


def top_bits(hashes: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.uint64]:
    """Return ``bits`` well-mixed bits of each hash."""
    return (hashes * _SPREAD) >> np.uint64(64 - bits)


class CountMinSketch:
    """Counts of hashes that are never too small and rarely too large."""

    def __init__(self) -> None:
        self.counts = np.zeros((ROWS, 1 << BITS), np.uint32)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Add one to the count of every hash, as often as it occurs."""
        for row, counters in enumerate(self._counters(hashes)):
            counter, times = np.unique(counters, return_counts=True)
            self.counts[row, counter] += times.astype(np.uint32)

    def __getitem__(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        found = [self.counts[row, own] for row, own in enumerate(self._counters(hashes))]
        least: npt.NDArray[np.uint32] = np.minimum.reduce(found)
        return least

    @staticmethod
    def _counters(hashes: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.uint64]]:
        for row in range(ROWS):
            yield top_bits(hashes ^ np.uint64(_ROW_SEED * (row + 1) % (1 << 64)), BITS)
