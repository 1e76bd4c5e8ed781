"""An inverted index over single vectors: which lists have a vector near this one.

The vectors of all lists are grouped around centroids (spherical k-means). A search goes through
the groups nearest to each of its own vectors and adds up, for each product met there, how near the
group's centroid is: the late interaction with every vector rounded to its centroid, where a vector
that no group had counts as the last group looked at (as in XTR and WARP). The best are scored
exactly afterwards. It is a filter: rows that came later are scanned instead.

Shapes: N vectors in all, n products, C centroids, D dimensions, G vectors of a query.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.files import atomic_folder, write_text
from bagformer_cli.interaction._kernels import compile_loop
from bagformer_cli.interaction.vectors import MultiVectors
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

FORMAT = 1
SAMPLE = 48  # vectors a centroid that k-means sees
ROUNDS = 5
BLOCK = 1 << 15
PROBES = 32
NEAR_BEST = 0.4  # share of the best promise from which a product comes along
MOST_SHARE = 0.2  # of all products; beyond it a scan of everything is as quick


@dataclass(frozen=True)
class TokenIndex:
    """Centroids, and for each the products that have a vector there.

    Args:
        centroids: [C, D] unit vectors.
        offsets: [C+1] int64.
        items: [M] int32, products of centroid c at ``offsets[c]:offsets[c+1]``, each once.
        count: n, products that were there when it was made.
    """

    centroids: Tensor
    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    count: int

    @classmethod
    def build(
        cls, parts: Iterable[MultiVectors], vectors: int, progress: Progress = SILENT
    ) -> Self:
        """Group the vectors of all products.

        Args:
            parts: The products' lists, in order; gone through twice.
            vectors: N.
            progress: Where to report.
        """
        parts = list(parts)
        size = int(min(16384, max(16, 2 ** round(np.log2(max(1, 1.6 * vectors**0.5))))))
        with progress.task(tr("Grouping vectors"), vectors) as task:
            centroids = _kmeans(_sample(parts, vectors, size * SAMPLE), size)
            groups: list[NDArray[np.int32]] = []
            owners: list[NDArray[np.int32]] = []
            start = 0
            for part in parts:
                for first in range(0, len(part), 4096):
                    block = part[first : first + 4096]
                    group = _nearest(block.values, centroids).astype(np.int64)
                    owner = np.repeat(np.arange(len(block)), block.lengths.numpy())
                    both = np.unique(owner * size + group)  # each product once a group
                    groups.append((both % size).astype(np.int32))
                    owners.append((both // size + start + first).astype(np.int32))
                    task.advance(len(block.values))
                start += len(part)
        group = np.concatenate([np.zeros(0, np.int32), *groups])
        order = np.argsort(group, kind="stable")
        items = np.concatenate([np.zeros(0, np.int32), *owners])[order]
        offsets = np.searchsorted(group[order], np.arange(size + 1)).astype(np.int64)
        return cls(centroids, offsets, items, start)

    def save(self, folder: Path, made_from: list[str]) -> None:
        """Write it; the folder appears whole.

        Args:
            folder: Where.
            made_from: Names what the products' numbers refer to.
        """
        with atomic_folder(folder) as temporary:
            np.save(temporary / "centroids.npy", self.centroids.numpy())
            np.save(temporary / "offsets.npy", self.offsets)
            np.save(temporary / "items.npy", self.items)
            record = {"format": FORMAT, "count": self.count, "made_from": made_from}
            write_text(temporary / "tokens.json", json.dumps(record))

    @classmethod
    def load(cls, folder: Path, names: list[str]) -> Self | None:
        """Read it; None where there is none, or where it is of other segments than the first."""
        try:
            record = json.loads((folder / "tokens.json").read_text("utf-8"))
            made_from = record["made_from"]
            if record["format"] != FORMAT or names[: len(made_from)] != made_from:
                return None
            return cls(
                torch.from_numpy(np.load(folder / "centroids.npy")),
                np.load(folder / "offsets.npy"),
                np.load(folder / "items.npy", mmap_mode="r"),
                int(record["count"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def candidates(
        self, query: Tensor, least: int, allowed: NDArray[np.bool_], probes: int = PROBES
    ) -> NDArray[np.int32]:
        """The products that promise most for one query, in no order.

        Where many promise about as much as the best they all come along: among products of one
        kind the groups say little, and the exact score must tell.

        Args:
            query: [G, D].
            least: How many at least (if so many were met).
            allowed: [n] bool, or more.
            probes: Groups looked at for each vector of the query.
        """
        near = query.float() @ self.centroids.T
        scores, groups = near.topk(min(probes, len(self.centroids)), dim=1)
        found: NDArray[np.int32]
        found, sums = _add_up(
            groups.numpy().astype(np.int32),
            scores.numpy(),
            self.offsets,
            np.asarray(self.items),
            allowed[: self.count],
        )
        if len(found) <= least:
            return found
        promising = int((sums >= NEAR_BEST * sums.max()).sum())
        count = max(least, min(promising, int(MOST_SHARE * self.count)))
        return found[np.argpartition(-sums, count - 1)[:count]] if count < len(found) else found


@compile_loop
def _add_up(groups, scores, offsets, items, allowed):  # type: ignore[no-untyped-def]
    """Products met, and for each the sum over the query's vectors of its nearest group's gain.

    The gain is over the last group looked at: what is not met there is at most as near.
    """
    count = len(allowed)
    sums = np.zeros(count, np.float32)
    seen = np.full(count, -1, np.int16)
    met = np.empty(count, np.int32)
    number = 0
    for g in range(groups.shape[0]):
        least = scores[g, groups.shape[1] - 1]
        for p in range(groups.shape[1]):
            gain = scores[g, p] - least
            group = groups[g, p]
            for place in range(offsets[group], offsets[group + 1]):
                item = items[place]
                if seen[item] != g:  # groups come nearest first: the first is the largest
                    if seen[item] < 0 and allowed[item]:
                        met[number] = item
                        number += 1
                    seen[item] = g
                    sums[item] += gain
    found = met[:number].copy()
    return found, sums[found]


def _sample(parts: list[MultiVectors], vectors: int, wanted: int) -> Tensor:
    """[at most wanted, D] vectors of all parts alike, by chance but always the same."""
    random = np.random.default_rng(0)
    chosen = []
    for part in parts:
        own = len(part.values)
        take = min(own, -(-wanted * own // max(1, vectors)))
        rows = np.sort(random.choice(own, take, replace=False))
        chosen.append(part.values[torch.from_numpy(rows)].float())
    return F.normalize(torch.cat(chosen), dim=1)


def _kmeans(sample: Tensor, size: int) -> Tensor:
    """[size, D] centroids of unit vectors; one that nobody is near starts anew somewhere."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randperm(len(sample), generator=generator)[:size]
    centroids = sample[start.repeat(-(-size // max(1, len(start))))[:size]].clone()
    for _ in range(ROUNDS):
        nearest = torch.from_numpy(_nearest(sample, centroids))
        sums = torch.zeros_like(centroids).index_add_(0, nearest, sample)
        empty = torch.bincount(nearest, minlength=size) == 0
        if empty.any():
            again = torch.randint(len(sample), (int(empty.sum()),), generator=generator)
            sums[empty] = sample[again]
        centroids = F.normalize(sums, dim=1)
    return centroids


@torch.no_grad()
def _nearest(values: Tensor, centroids: Tensor) -> NDArray[np.int64]:
    """[N] the nearest centroid of each vector; a positive scale of a vector changes nothing."""
    columns = centroids.T.contiguous()
    found = [
        (values[i : i + BLOCK].float() @ columns).max(1).indices.numpy()
        for i in range(0, len(values), BLOCK)
    ]
    return np.concatenate([np.zeros(0, np.int64), *found])
