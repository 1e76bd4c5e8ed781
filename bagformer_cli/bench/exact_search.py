"""Measure search over a catalogue on disk against reading its bytes once.

Shapes: Q queries, N products × L vectors, D dimensions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.index.cache_recall import CANDIDATES_PER_RESULT, MIN_CANDIDATES
from bagformer_cli.index.centroids import CentroidIndex
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.topk import topk, topk_rescored
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.storage import open_vectors, write_vectors

K = 10
QUERIES = 16
CLUSTERS = 1000
NOISE = 0.7  # length of the random part of a vector; that of its cluster has length 1
_BLOCK = 2048  # products generated at once


@dataclass(frozen=True, slots=True)
class Searched:
    """One line of the table.

    Attributes:
        name: Search, or the reading.
        seconds: Median wall time, with the file in the page cache.
        cpu_seconds: Median processor time of all threads, which other work disturbs less.
        times_reading: ``seconds`` divided by the time to read the bytes once with all threads.
        gigabytes: 10⁹ bytes of stored vectors per second, counted once.
        gflops: Useful 10⁹ operations per second (reading: 0); None if not all products are scored.
        recall: Share of the ten best that are found, mean over queries; None for exact searches.
    """

    name: str
    seconds: float
    cpu_seconds: float
    times_reading: float
    gigabytes: float
    gflops: float | None
    recall: float | None = None


def clustered(
    items: int, length: int, dim: int, seed: int = 0, progress: Progress = SILENT
) -> Iterator[MultiVectors]:
    """Generate products that cluster into kinds, as in a catalogue, one block at a time.

    A product's vector is the vector of its kind at the same position plus noise, normalised to
    length 1, float32. The kinds have very different sizes (the largest is 500 times the median).
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = F.normalize(torch.randn(CLUSTERS, length, dim, generator=generator), dim=-1)
    noise = F.normalize(torch.randn(1 << 16, dim, generator=generator), dim=-1) * NOISE
    weights = 1 / torch.arange(1, CLUSTERS + 1).float()
    with progress.task(tr("Writing"), total=items) as task:
        for first in range(0, items, _BLOCK):
            n = min(_BLOCK, items - first)
            kind = torch.multinomial(weights, n, replacement=True, generator=generator)
            own = torch.randint(len(noise), (n, length), generator=generator)
            vectors = F.normalize(kinds[kind] + noise[own], dim=-1)
            yield MultiVectors.from_dense(vectors)
            task.advance(n)


def catalogue(
    folder: Path, items: int, length: int, dim: int, seed: int = 0, progress: Progress = SILENT
) -> MultiVectors:
    """Open the generated catalogue in ``folder`` (int8); write it first if it does not exist."""
    path = folder / f"clustered-{items}x{length}x{dim}-{seed}"
    if not path.exists():
        blocks = clustered(items, length, dim, seed, progress)
        write_vectors(path, (block.quantize() for block in blocks))
    return open_vectors(path)


def queries_for(items: MultiVectors, lengths: list[int], seed: int = 0) -> MultiVectors:
    """Generate queries, each similar to one product: some of its vectors plus as much noise."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for count, item in zip(
        lengths, torch.randint(len(items), (len(lengths),), generator=generator), strict=True
    ):
        vectors = items[int(item)].to(dtype=torch.float32).values
        some = vectors[torch.randint(len(vectors), (count,), generator=generator)]
        other = F.normalize(torch.randn(count, items.dim, generator=generator), dim=-1)
        found.append(F.normalize(some + other, dim=-1))
    return MultiVectors.from_list(found)


def query_lengths(queries: int, seed: int = 0) -> list[int]:
    """Draw query lengths: 2–25 bags, 10 on average (exactly 10 for 16 queries)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.poisson(torch.full((queries,), 10.0), generator).clamp(2, 25).long()
    lengths[0] += 10 * queries - int(lengths.sum())
    return [int(length) for length in lengths.clamp(2, 25)]


def run(
    folder: Path,
    *,
    items: int = 1_000_000,
    length: int = 32,
    dim: int = 256,
    rounds: int = 5,
    first_stage: bool = False,
    progress: Progress = SILENT,
) -> list[Searched]:
    """Time one query, sixteen queries together, and one reading of all bytes.

    Args:
        folder: Folder of the catalogue; it is written first if it does not exist (N·L·D bytes).
        items: N.
        length: L of every product.
        dim: D.
        rounds: Runs of each row; they take turns.
        first_stage: Also time one query through the first stage of an index, which assigns all
            vectors to centroids once (minutes for 32 million).
        progress: Receives the progress of writing and timing.
    """
    stored = catalogue(folder, items, length, dim, progress=progress)
    words = stored.values.view(-1).view(torch.int64)
    some = queries_for(stored, query_lengths(QUERIES), seed=1)
    ten = queries_for(stored, [10], seed=2)
    works: dict[str, tuple[MultiVectors | None, Callable[[], object]]] = {
        tr("reading the bytes once"): (None, words.sum),
        tr("16 queries together, 10 bags on average"): (some, lambda: topk(some, stored, K)),
        tr("one query of 10 bags"): (ten, lambda: topk(ten, stored, K)),
    }
    found_by: dict[str, float] = {}
    if first_stage:
        tokens = _tokens(folder, stored, progress)
        name = tr("one query of 10 bags, candidates by centroids")
        works[name] = ten, lambda: _staged(tokens, ten, stored)
        shares = []
        for n in range(QUERIES):
            best = topk_rescored(some[n], stored, K)[1]
            shares.append(len(np.intersect1d(_staged(tokens, some[n], stored), best)) / K)
        found_by[name] = statistics.mean(shares)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    spent: dict[str, list[float]] = {name: [] for name in works}
    with progress.task(tr("Timing"), total=len(works) * (rounds + 1)) as task:
        for round_ in range(rounds + 1):  # the first warms the page cache and compiles
            for name, (_, work) in works.items():
                start, begun = time.perf_counter(), time.process_time()
                work()
                if round_:
                    seconds[name].append(time.perf_counter() - start)
                    spent[name].append(time.process_time() - begun)
                task.advance()
    reading = statistics.median(seconds[tr("reading the bytes once")])
    size = stored.values.numel()
    rows = []
    for name, (queries, _) in works.items():
        median = statistics.median(seconds[name])
        bags = 0 if queries is None else len(queries.values)
        gflops = None if name in found_by else 2e-9 * bags * size / median
        busy, found = statistics.median(spent[name]), found_by.get(name)
        rows.append(
            Searched(name, median, busy, median / reading, size / median / 1e9, gflops, found)
        )
    return rows


def _tokens(folder: Path, stored: MultiVectors, progress: Progress) -> CentroidIndex:
    """Open the first stage of a catalogue; build it first if it does not exist."""
    path = folder / f"tokens-{len(stored)}x{len(stored.values) // len(stored)}x{stored.dim}"
    names = [str(folder)]
    found = CentroidIndex.load(path, names, len(stored))
    if found is None or found.count != len(stored):
        CentroidIndex.build([stored], progress).save(path, names)
        found = CentroidIndex.load(path, names, len(stored))
        assert found is not None
    return found


def _staged(tokens: CentroidIndex, query: MultiVectors, stored: MultiVectors) -> NDArray[np.int64]:
    """Return the ten best of the first stage's candidates, as an index does."""
    everyone = np.ones(len(stored), np.bool_)
    wanted = max(MIN_CANDIDATES, CANDIDATES_PER_RESULT * K)
    candidates = tokens.candidates(query.values, wanted, everyone)
    found = topk_rescored(query, stored, K, candidates=torch.from_numpy(candidates))[1][0]
    positions: NDArray[np.int64] = found.numpy()
    return positions


def is_exact(queries: MultiVectors, stored: MultiVectors, found: tuple[Tensor, Tensor]) -> bool:
    """Return whether ``found`` are the best by the stored int8, computed with plain torch."""
    small: dict[str, Any] = {"dtype": torch.int8, "both": False, "budget": 1 << 28}
    scores = reference.scores(queries, stored, **small)[0]
    best = scores.topk(found[0].shape[1], dim=1).values
    return bool(
        torch.allclose(best, found[0], rtol=1e-5)
        and torch.allclose(scores.gather(1, found[1]), found[0], rtol=1e-5)
    )
