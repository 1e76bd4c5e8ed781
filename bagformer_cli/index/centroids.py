"""A cheap look at every list: each vector rounded to the nearest of many centroids.

What a query's vectors make of the centroids is computed once; after that a list costs one row of a
table for each of its vectors and no dot product. The sum of the largest, over the query's vectors,
is the late interaction of the rounded lists (PLAID's centroid interaction, Santhanam et al. 2022).
It says of what kind a product is, and the exact score decides among all that are of the right one.
Nothing is missed for not having been probed: every list is looked at, at a thirtieth of what its
exact score costs. It is a filter: rows that came later are scanned instead.

Shapes: N vectors in all, n lists, C centroids, D dimensions, G vectors of a query in H slots of 16.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.files import atomic_folder, write_text
from bagformer_cli.interaction.kernels.avx512.scores import LANES, pack, supported
from bagformer_cli.interaction.kernels.cpu.tiles import kernels
from bagformer_cli.interaction.kernels.threads import split_evenly
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.kmeans import CentroidTree
from bagformer_cli.vectors.multi_vectors import MultiVectors

FORMAT, RECORD = 3, "tokens.json"
MOST = 1 << 15  # centroids
EACH = 24  # vectors of all lists for each centroid
SAMPLE = 24  # vectors a centroid that k-means sees
BLOCK = 1 << 16  # vectors rounded at once
NEAR_BEST = 0.8  # of the way from the middle list to the best, from which a list comes along
LEAST_SHARE = 0.02  # of all lists that come along, whatever they promise
MOST_SHARE = 0.25  # beyond it a scan of everything is as quick
BIN_BITS = 13  # the promises are sorted into about so many bins, as a power of two


@dataclass(frozen=True)
class TokenIndex:
    """Centroids, and for each vector of each list the nearest.

    Args:
        centroids: [C, D] int8, all of one scale; C a multiple of 16, the last ones perhaps zero.
        numbers: [N] uint16, the centroid of each vector, list after list.
        offsets: [n+1] int64: which vectors are whose.
    """

    centroids: Tensor
    numbers: NDArray[np.uint16]
    offsets: NDArray[np.int64]

    @property
    def count(self) -> int:
        """n, lists that were there when it was made."""
        return len(self.offsets) - 1

    @classmethod
    def build(cls, parts: Sequence[MultiVectors], progress: Progress = SILENT) -> Self:
        """Round the vectors of all lists.

        Args:
            parts: The lists, in order.
            progress: Where to report.
        """
        vectors = sum(len(part.values) for part in parts)
        size = int(min(MOST, max(16, 2 ** round(np.log2(max(1, vectors / EACH))))))
        with progress.task(tr("Grouping vectors"), vectors) as task:
            tree = CentroidTree.train(_sample(parts, vectors, size * SAMPLE), size)
            numbers = [np.zeros(0, np.uint16)]
            for part in parts:
                for first in range(0, len(part.values), BLOCK):
                    rows = torch.arange(first, min(first + BLOCK, len(part.values)))
                    numbers.append(tree.nearest(part.rows(rows)).numpy().astype(np.uint16))
                    task.advance(len(rows))
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        whole = torch.zeros(-(-len(tree.leaves) // LANES) * LANES, tree.leaves.shape[1])
        whole[: len(tree.leaves)] = tree.leaves
        centroids = MultiVectors.from_list([whole]).quantize().values
        return cls(centroids, np.concatenate(numbers), lengths.cumsum())

    def save(self, folder: Path, made_from: list[str]) -> None:
        """Write it; the folder appears whole.

        Args:
            folder: Where.
            made_from: Names what the lists' numbers refer to.
        """
        with atomic_folder(folder) as temporary:
            np.save(temporary / "centroids.npy", self.centroids.numpy())
            np.save(temporary / "numbers.npy", self.numbers)
            np.save(temporary / "offsets.npy", self.offsets)
            record = {"format": FORMAT, "made_from": made_from, "id": uuid.uuid4().hex}
            write_text(temporary / RECORD, json.dumps(record | {"shape": self._shape}))

    @classmethod
    def load(cls, folder: Path, names: list[str], lists: int) -> Self | None:
        """Read it; None where there is none that fits.

        Args:
            folder: Where.
            names: Of the segments that are there: it must be of the first of them.
            lists: In these segments.
        """
        if kernels() is None:
            return None
        try:
            text = (folder / RECORD).read_text("utf-8")
            record = json.loads(text)
            made_from = record["made_from"]
            if record["format"] != FORMAT or names[: len(made_from)] != made_from:
                return None
            found = cls(
                torch.from_numpy(np.load(folder / "centroids.npy")),
                np.load(folder / "numbers.npy", mmap_mode="r"),
                np.load(folder / "offsets.npy"),
            )
            if (folder / RECORD).read_text("utf-8") != text:  # what was read may be of two
                return cls.load(folder, names, lists)
            fits = record["shape"] == found._shape and found.count <= lists
            return found if fits else None
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
            return None

    @property
    def _shape(self) -> list[int]:
        """Centroids, vectors, lists, and the vectors that the lists end with."""
        return [len(self.centroids), len(self.numbers), self.count, int(self.offsets[-1])]

    def candidates(
        self,
        query: Tensor,
        least: int,
        allowed: NDArray[np.bool_],
        least_share: float = LEAST_SHARE,
        most_share: float = MOST_SHARE,
    ) -> NDArray[np.int64]:
        """[m] the lists that promise most for one query, in their order.

        Where many promise about as much as the best they all come along: among products of one
        kind the centroids say little, and the exact score must tell.

        Args:
            query: [G, D].
            least: How many at least (if so many are allowed).
            allowed: [n] bool, or more.
            least_share: As ``least``, of those that are allowed.
            most_share: How many at most beyond those, however promising.
        """
        allowed = allowed[: self.count]
        there = int(np.count_nonzero(allowed))
        least = max(least, int(least_share * there))
        if there <= least or not len(query):
            return np.flatnonzero(allowed)[:least]
        sums = self.promises(query, allowed)
        end = -(-len(query) // LANES) * LANES << 16  # all promises are below
        _rounded = _loops()
        shift = max(0, end.bit_length() - BIN_BITS)
        counts = np.zeros((end >> shift) + 1, np.int64)
        _rounded.histogram(sums, shift, counts)
        so_far = counts[::-1].cumsum()  # [bin from the last]: how many are in it or beyond
        best, middle = np.searchsorted(so_far, (1, there // 2))
        near = int(best + (1 - NEAR_BEST) * (middle - best))
        wanted = max(least, min(int(so_far[near]), int(most_share * there)))
        edge = len(counts) - 1 - int(np.searchsorted(so_far, wanted))
        found = np.empty(self.count, np.int64)
        found = found[: _rounded.positions_from(sums, edge << shift, found)]
        some = sums[found]
        least_sum = np.partition(some, len(some) - wanted)[len(some) - wanted]
        above, level = found[some > least_sum], found[some == least_sum]
        return np.sort(np.concatenate([above, level[: wanted - len(above)]]))

    def promises(self, query: Tensor, allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        """[n] the late interaction of the rounded lists, whole numbers that rise with it.

        Lists that are not allowed have −1.
        """
        table = self.table(query)
        sums = np.full(self.count, -1, np.int32)
        numbers, _rounded = np.asarray(self.numbers), _loops()

        def work(first: int, end: int) -> None:
            _rounded.score_by_lookup(numbers, self.offsets, allowed, table, first, end, sums)

        split_evenly(work, self.count, 4096)
        return sums

    def table(self, query: Tensor) -> NDArray[np.uint16]:
        """[H, C, 16] what each of a query's vectors makes of each centroid.

        Lanes of whole numbers that rise with the dot product; 0 becomes 32,768, as in spare lanes.
        """
        slots, count = -(-len(query) // LANES), len(self.centroids)
        table = np.empty((slots, count, LANES), np.uint16)
        if supported(torch.int8) and self.centroids.shape[1] % 4 == 0:
            whole = MultiVectors.from_list([query]).quantize()
            bags, rows, begins = pack(whole), self.centroids.numpy(), self.begins
            # No product is larger than that of the longest on either side (Cauchy, Schwarz).
            most = int(_longest(whole.values) * self.longest) + 1
            shift, make_table = max(0, most.bit_length() - 15), _make_table()
            split_evenly(
                lambda first, end: make_table(rows, begins, bags, shift, first, end, table),
                count, 8192,
            )  # fmt: skip
            return table
        wide = torch.zeros(slots * LANES, query.shape[1])
        wide[: len(query)] = query
        products = wide @ self.centroids.float().T
        products *= 32767 / max(_longest(query) * self.longest, 1e-12)
        products += 32768
        table[:] = products.view(slots, LANES, count).transpose(1, 2).numpy()
        return table

    @cached_property
    def begins(self) -> NDArray[np.int32]:
        """[C] what sums of products with unsigned numbers, 128 larger, begin with."""
        return -128 * self.centroids.sum(1, dtype=torch.int32).numpy()

    @cached_property
    def longest(self) -> float:
        """The largest norm of a centroid."""
        return _longest(self.centroids)


def _loops() -> Any:
    """The compiled loops: nobody comes here where numba cannot be used."""
    from bagformer_cli.interaction.kernels.cpu import centroids as _rounded

    return _rounded


def _make_table() -> Any:
    from bagformer_cli.interaction.kernels.avx512.centroids import make_table

    return make_table


def _longest(vectors: Tensor) -> float:
    """The largest norm."""
    return float(vectors.double().norm(dim=1).max())


def _sample(parts: Sequence[MultiVectors], vectors: int, wanted: int) -> Tensor:
    """[at most wanted, D] vectors of all parts alike, by chance but always the same."""
    random = np.random.default_rng(0)
    chosen = []
    for part in parts:
        own = len(part.values)
        take = min(own, -(-wanted * own // max(1, vectors)))
        rows = torch.from_numpy(np.sort(random.choice(own, take, replace=False)))
        # A positive scale changes nothing, so int8 stays int8: it is a quarter of the memory.
        chosen.append(part.values[rows] if part.codebook is None else part.rows(rows).half())
    return torch.cat(chosen)
