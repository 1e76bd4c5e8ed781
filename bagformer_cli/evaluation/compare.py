"""Models side by side: recall, what an item costs to keep, how long a query takes, who is better.

Shapes: Q queries, S seeds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.evaluate import encode_split, score_matrices
from bagformer_cli.evaluation.metrics import KS, NO_POSITIVE, Positives, Recall, best_ranks, recall
from bagformer_cli.interaction.topk import topk
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

FLOAT_BYTES = 4
TIMED_QUERIES = 30


@dataclass(frozen=True)
class Measured:
    """What one model does on one split.

    Attributes:
        text_to_image: Recall of titles.
        image_to_text: Recall of images.
        ranks: [Q] rank of each title's best image.
        title_vectors: Vectors of a title, mean.
        image_vectors: Vectors of an image, mean.
        image_bytes: float32 bytes of an image's vectors, mean.
        query_ms: The ten best images of one encoded title out of the whole split, median.
    """

    text_to_image: Recall
    image_to_text: Recall
    ranks: NDArray[np.int64]
    title_vectors: float
    image_vectors: float
    image_bytes: float
    query_ms: float


def measure(model: RetrievalModel, split: Split, progress: Progress = SILENT) -> Measured:
    """Evaluate a model's fast scorer, and weigh it."""
    images, texts = encode_split(
        model, split, model.config.evaluation.batch_size, states=False, progress=progress
    )
    t2i, i2t = score_matrices(texts, images, model.config)
    wanted = Positives(split.item_offsets, split.items, len(split.image_ids))
    ranks = best_ranks(t2i, wanted)
    each = len(images.vectors.values) / max(1, len(images))
    return Measured(
        recall(ranks),
        recall(best_ranks(i2t, wanted.transposed())),
        ranks,
        len(texts.vectors.values) / max(1, len(texts)),
        each,
        each * images.vectors.dim * FLOAT_BYTES,
        query_milliseconds(texts.vectors, images.vectors),
    )


def query_milliseconds(texts: MultiVectors, images: MultiVectors, k: int = 10) -> float:
    """Time of one search over all images, the median over some titles, each the best of three."""
    times = []
    with torch.inference_mode():
        for query in range(min(TIMED_QUERIES, len(texts))):
            one = texts[query]
            best = min(_timed(one, images, k) for _ in range(3))
            times.append(best)
    return 1000 * statistics.median(times)


def _timed(query: MultiVectors, images: MultiVectors, k: int) -> float:
    start = time.perf_counter()
    topk(query, images, min(k, len(images)))
    return time.perf_counter() - start


def hits_per_query(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """[Q'] the mean over k = 1, 5, 10 of whether the answer is among the first k.

    Its mean over queries is the mean recall; queries without an answer are left out.
    """
    some = ranks[ranks != NO_POSITIVE]
    hits: NDArray[np.float64] = np.mean([some < k for k in KS], axis=0)
    return hits


@dataclass(frozen=True)
class Difference:
    """How much better one is than another, in points of mean recall (percent).

    Attributes:
        mean: The difference.
        lower: Lower 95 % bound.
        upper: Upper 95 % bound.
    """

    mean: float
    lower: float
    upper: float

    @property
    def holds(self) -> bool:
        """Whether the first is better for certain."""
        return self.lower > 0


def paired_bootstrap(
    better: Sequence[NDArray[np.int64]],
    worse: Sequence[NDArray[np.int64]],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Is the first way better than the second, whatever the queries and seeds?

    Seeds are drawn with replacement, and within each drawn seed the same queries of both ways.

    Args:
        better: [S] ranks [Q] of one way.
        worse: The same of the other, seed by seed.
        draws: How often.
        seed: Of the draws.

    Returns:
        The difference of mean recall with its two-sided 95 % interval.
    """
    gaps = np.stack(
        [hits_per_query(a) - hits_per_query(b) for a, b in zip(better, worse, strict=True)]
    )
    random = np.random.default_rng(seed)
    seeds, queries = gaps.shape
    means = np.empty(draws)
    for draw in range(draws):
        rows = random.integers(0, seeds, seeds)
        counts = np.bincount(random.integers(0, queries, queries), minlength=queries)
        means[draw] = (gaps[rows] @ counts).mean() / queries
    lower, upper = np.percentile(means, [2.5, 97.5])
    return Difference(100 * float(gaps.mean()), 100 * float(lower), 100 * float(upper))
