"""The centroid first stage: a cheap score for every product, to select candidates.

Each stored vector is replaced by the id of its nearest centroid (PLAID's centroid interaction,
Santhanam et al. 2022). For a query, the scores of its vectors against all centroids are computed
once; the late interaction of a product then needs table rows in place of dot products::

    centroid ids         product 0: [7, 2, 7]     product 1: [2, 5]
    query vectors q0 q1, table of their dot products with the centroids:
                         c2: 0.9 0.1     c5: 0.2 0.8     c7: 0.3 0.4
    product 0            max over its ids: q0 0.9, q1 0.4     approximate score 1.3
    product 1                              q0 0.9, q1 0.8     approximate score 1.7

This costs about a thirtieth of the exact score, so every product gets one and none is missed for
lying in a partition that was not probed. The approximate score separates the kinds of products;
among those of the right kind the exact score decides. The centroid index is not updated: rows
added later are scanned instead.

In memory the table is [H, C, 16] uint16: 16 query vectors side by side, so that one register pair
(AVX2, NEON) holds the scores of 16 query vectors for one centroid.

Shapes: N vectors in all, n products, C centroids, D dimensions, G query vectors in H slots of 16
(H = ⌈G / 16⌉).
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

from bagformer_cli.config.scoring import MAXSIM, ScoreRule
from bagformer_cli.errors import InputError
from bagformer_cli.files import atomic_folder, write_text
from bagformer_cli.interaction.kernels.avx512.scores import LANES, pack, supported
from bagformer_cli.interaction.kernels.cpu.tiles import kernels
from bagformer_cli.interaction.kernels.threads import split_evenly
from bagformer_cli.messages import tr
from bagformer_cli.opening import load_array
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.runtime.vectors import blocks
from bagformer_cli.vectors.kmeans import CentroidTree
from bagformer_cli.vectors.multi_vectors import MultiVectors

FORMAT, RECORD = 3, "tokens.json"
MAX_CENTROIDS = 1 << 15
VECTORS_PER_CENTROID = 24
SAMPLE_PER_CENTROID = 24  # vectors that train each centroid
BLOCK = 1 << 16  # vectors assigned at once
NEAR_BEST = 0.8
"""Products that score above median + 0.8 × (best − median) all become candidates."""
MIN_SHARE = 0.02  # of all products become candidates, whatever their scores
MAX_SHARE = 0.25  # beyond this share, an exact scan of everything is as fast
STEPS = 1 << 20  # of approximate scores that are no MaxSim
BIN_BITS = 13  # approximate scores are sorted into about 2^13 bins


@dataclass(frozen=True)
class CentroidIndex:
    """Centroids, and for each vector of each product the id of its nearest one.

    Args:
        centroids: [C, D] int8 with one common scale. C is a multiple of 16; the last rows may be
            zero and unused.
        ids: [N] uint16, the centroid of each vector, product after product.
        offsets: [n+1] int64: where the ids of each product begin and end.
    """

    centroids: Tensor
    ids: NDArray[np.uint16]
    offsets: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of products when the index was built: n."""
        return len(self.offsets) - 1

    @classmethod
    def build(cls, parts: Sequence[MultiVectors], progress: Progress = SILENT) -> Self:
        """Train centroids on a sample and assign all vectors.

        Args:
            parts: The vectors of the products, in order.
            progress: Where to report.
        """
        vectors = sum(len(part.values) for part in parts)
        wanted = 2 ** round(np.log2(max(1, vectors / VECTORS_PER_CENTROID)))
        size = int(min(MAX_CENTROIDS, max(16, wanted)))
        with progress.task(tr("Computing centroids"), vectors, tr("{n} vectors", n="{n}")) as task:
            tree = CentroidTree.train(_sample(parts, vectors, size * SAMPLE_PER_CENTROID), size)
            ids = [np.zeros(0, np.uint16)]
            for part in parts:
                for first in range(0, len(part.values), BLOCK):
                    rows = torch.arange(first, min(first + BLOCK, len(part.values)))
                    ids.append(tree.nearest(part.rows(rows)).numpy().astype(np.uint16))
                    task.advance(len(rows))
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        padded = torch.zeros(-(-len(tree.leaves) // LANES) * LANES, tree.leaves.shape[1])
        padded[: len(tree.leaves)] = tree.leaves
        centroids = MultiVectors.from_list([padded]).quantize().values
        return cls(centroids, np.concatenate(ids), lengths.cumsum())

    def save(self, folder: Path, segments: list[str]) -> None:
        """Write the index to a folder, which appears whole.

        Args:
            folder: The folder.
            segments: The names of the vector cache's segments that it was built from.
        """
        with atomic_folder(folder) as temporary:
            np.save(temporary / "centroids.npy", self.centroids.numpy())
            np.save(temporary / "numbers.npy", self.ids)
            np.save(temporary / "offsets.npy", self.offsets)
            record = {"format": FORMAT, "made_from": segments, "id": uuid.uuid4().hex}
            write_text(temporary / RECORD, json.dumps(record | {"shape": self._shape}))

    @classmethod
    def load(cls, folder: Path, segments: list[str], count: int) -> Self | None:
        """Read an index; return None if it is missing or does not fit.

        Args:
            folder: The folder.
            segments: The names of the current segments. The index must cover the first of them.
            count: The number of products in these segments.
        """
        if kernels() is None:
            return None
        try:
            text = (folder / RECORD).read_text("utf-8")
            record = json.loads(text)
            covered = record["made_from"]
            if record["format"] != FORMAT or segments[: len(covered)] != covered:
                return None
            found = cls(
                torch.from_numpy(load_array(folder / "centroids.npy")),
                load_array(folder / "numbers.npy", mapped=True),
                load_array(folder / "offsets.npy"),
            )
            if (folder / RECORD).read_text("utf-8") != text:  # replaced while it was read
                return cls.load(folder, segments, count)
            fits = record["shape"] == found._shape and found.count <= count
            return found if fits and found._is_sound() else None
        except (InputError, OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
            return None

    @property
    def _shape(self) -> list[int]:
        """Centroids, vectors, products, and the last offset; a damaged file differs in one."""
        return [len(self.centroids), len(self.ids), self.count, int(self.offsets[-1])]

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return self.centroids.shape[1]

    def _is_sound(self) -> bool:
        """Check all indices once: the compiled loops read without checks."""
        types = [str(array.dtype) for array in (self.centroids, self.ids, self.offsets)]
        if types != ["torch.int8", "uint16", "int64"] or len(self.centroids) % LANES:
            return False
        rising = bool((self.offsets[1:] >= self.offsets[:-1]).all())
        whole = self.offsets[0] == 0 and self.offsets[-1] == len(self.ids)
        return rising and whole and int(self.ids.max(initial=0)) < len(self.centroids)

    def candidates(
        self,
        query: Tensor,
        minimum: int,
        eligible: NDArray[np.bool_],
        min_share: float = MIN_SHARE,
        max_share: float = MAX_SHARE,
        rule: ScoreRule = MAXSIM,
    ) -> NDArray[np.int64]:
        """Select the products with the best approximate scores for one query.

        If many products score nearly as high as the best, all of them become candidates: among
        products of one kind the centroids hardly differ, and the exact score must decide.

        Args:
            query: [G, D] the query's vectors.
            minimum: At least this many, if as many are eligible.
            eligible: [≥ n] bool, the products that may be found.
            min_share: At least this share of the eligible products.
            max_share: At most this share of them, unless ``minimum`` is larger.
            rule: The score that is approximated.

        Returns:
            [m] positions of products, rising.
        """
        eligible = eligible[: self.count]
        count = int(np.count_nonzero(eligible))
        minimum = max(minimum, int(min_share * count))
        if count <= minimum or not len(query):
            return np.flatnonzero(eligible)[:minimum]
        if rule.is_maxsim:
            scores = self.scores(query, eligible)
            limit = -(-len(query) // LANES) * LANES << 16  # all scores are below
        else:
            scores, limit = self.scores_by_rule(query, eligible, rule), STEPS
        # A histogram of the scores finds the threshold without sorting n of them.
        loops = _loops()
        shift = max(0, limit.bit_length() - BIN_BITS)
        histogram = np.zeros((limit >> shift) + 1, np.int64)
        loops.histogram(scores, shift, histogram)
        at_least = histogram[::-1].cumsum()  # [bin, from the top]: products in it or above
        best, median = np.searchsorted(at_least, (1, count // 2))
        near = int(best + (1 - NEAR_BEST) * (median - best))
        wanted = max(minimum, min(int(at_least[near]), int(max_share * count)))
        last = len(histogram) - 1 - int(np.searchsorted(at_least, wanted))
        found = np.empty(self.count, np.int64)
        found = found[: loops.positions_from(scores, last << shift, found)]
        # The last bin may hold more than wanted: keep its highest, and of equals the first.
        own = scores[found]
        threshold = np.partition(own, len(own) - wanted)[len(own) - wanted]
        above, equal = found[own > threshold], found[own == threshold]
        return np.sort(np.concatenate([above, equal[: wanted - len(above)]]))

    def scores(self, query: Tensor, eligible: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return approximate scores [n]: whole numbers, −1 for products that are not eligible."""
        table = self.table(query)
        scores = np.full(self.count, -1, np.int32)
        ids, loops = np.asarray(self.ids), _loops()

        def work(first: int, end: int) -> None:
            loops.score_by_lookup(ids, self.offsets, eligible, table, first, end, scores)

        split_evenly(work, self.count, 4096)
        return scores

    def scores_by_rule(
        self, query: Tensor, eligible: NDArray[np.bool_], rule: ScoreRule
    ) -> NDArray[np.int32]:
        """Return approximate scores by a rule [n]: from 0 to :data:`STEPS`, −1 if not eligible.

        A sum over a product's vectors needs one number per centroid, its best dot product with the
        query: one lookup for each of the product's vectors.
        """
        table = self.table(query)
        products = table.transpose(1, 0, 2).reshape(len(self.centroids), -1)[:, : len(query)]
        cosines = products.astype(np.float32) - 32768  # [C, G], not scaled
        lengths = np.maximum(np.diff(self.offsets), 1)
        if rule.is_mean:
            scores = self._sums(cosines.mean(1)) / lengths
        else:
            by_query = None
            if rule.over_query:  # without what the unused columns add
                by_query = self.scores(query, eligible) - (table.shape[0] * LANES << 15)
            scores = rule.combine(by_query, self._sums(cosines.max(1)), len(query), lengths)
        own = scores[eligible]
        low, width = own.min(), max(np.ptp(own), 1e-9)
        found = np.full(self.count, -1, np.int32)
        found[eligible] = ((own - low) * (STEPS / width)).astype(np.int32)
        return found

    def _sums(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Add the values [C] of the centroids of each product's vectors: [n]."""
        sums = np.zeros(self.count)
        for first, end in blocks(self.offsets, BLOCK):
            begin = self.offsets[first]
            chosen = values[self.ids[begin : self.offsets[end]]]
            running = np.concatenate([np.zeros(1), np.cumsum(chosen, dtype=np.float64)])
            ends = self.offsets[first : end + 1] - begin
            sums[first:end] = np.diff(running[ends])
        return sums

    def table(self, query: Tensor) -> NDArray[np.uint16]:
        """Return the scores of a query's vectors against all centroids: [H, C, 16].

        Whole numbers that rise with the dot product. A dot product of 0 becomes 32,768, as in the
        unused columns of the last slot.
        """
        slots, count = -(-len(query) // LANES), len(self.centroids)
        table = np.empty((slots, count, LANES), np.uint16)
        if supported(torch.int8) and self.centroids.shape[1] % 4 == 0:
            quantized = MultiVectors.from_list([query]).quantize()
            lanes, rows, starts = pack(quantized), self.centroids.numpy(), self._starts
            # |q · c| ≤ |q| |c| (Cauchy-Schwarz): shifted by this many bits, it fits into 16.
            largest = int(_longest(quantized.values) * self._longest) + 1
            shift, make_table = max(0, largest.bit_length() - 15), _make_table()
            split_evenly(
                lambda first, end: make_table(rows, starts, lanes, shift, first, end, table),
                count,
                8192,
            )
            return table
        padded = torch.zeros(slots * LANES, query.shape[1])
        padded[: len(query)] = query
        products = padded @ self.centroids.float().T
        products *= 32767 / max(_longest(query) * self._longest, 1e-12)
        products += 32768
        table[:] = products.view(slots, LANES, count).transpose(1, 2).numpy()
        return table

    @cached_property
    def _starts(self) -> NDArray[np.int32]:
        """[C] −128 × the sum of each centroid.

        The kernel multiplies unsigned numbers, the query's plus 128; its sums start from these
        values to make up for that.
        """
        return -128 * self.centroids.sum(1, dtype=torch.int32).numpy()

    @cached_property
    def _longest(self) -> float:
        return _longest(self.centroids)


def _loops() -> Any:
    """Import the compiled loops; :meth:`CentroidIndex.load` made sure that they work."""
    from bagformer_cli.interaction.kernels.cpu import centroids as loops

    return loops


def _make_table() -> Any:
    """Import the compiled loop for processors that multiply int8 by AVX-512."""
    from bagformer_cli.interaction.kernels.avx512.centroids import make_table

    return make_table


def _longest(vectors: Tensor) -> float:
    """Return the largest norm."""
    return float(vectors.double().norm(dim=1).max())


def _sample(parts: Sequence[MultiVectors], vectors: int, wanted: int) -> Tensor:
    """Draw up to ``wanted`` vectors evenly from all parts; always the same ones."""
    random = np.random.default_rng(0)
    drawn = []
    for part in parts:
        count = len(part.values)
        share = min(count, -(-wanted * count // max(1, vectors)))
        rows = torch.from_numpy(np.sort(random.choice(count, share, replace=False)))
        # Centroids ignore a positive scale, so int8 stays int8: a quarter of the memory.
        drawn.append(part.values[rows] if part.codebook is None else part.rows(rows).half())
    return torch.cat(drawn)
