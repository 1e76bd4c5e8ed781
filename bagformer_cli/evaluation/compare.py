"""Compare models: recall, size of the vectors, query time, and a test of the difference.

Shapes: Q queries, S seeds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from bagformer_cli.config import EvaluationConfig
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.answers import require_answers, warn_without_answers
from bagformer_cli.evaluation.metrics import KS, NO_POSITIVE, Positives, Recall, best_ranks, recall
from bagformer_cli.evaluation.open_source import open_source
from bagformer_cli.evaluation.sources import VectorSource, as_source
from bagformer_cli.interaction.topk import topk
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

FLOAT_BYTES = 4
TIMED_QUERIES = 30


@dataclass(frozen=True)
class Measured:
    """The figures of one model on one split.

    Attributes:
        text_to_image: Recall of titles.
        image_to_text: Recall of images.
        ranks: [Q] rank of each title's best image.
        title_vectors: Mean number of vectors per title.
        image_vectors: Mean number of vectors per image.
        image_bytes: Mean size of an image's float32 vectors, in bytes.
        query_ms: Median time to find the ten best images of an encoded title in the whole split,
            in milliseconds.
    """

    text_to_image: Recall
    image_to_text: Recall
    ranks: NDArray[np.int64]
    title_vectors: float
    image_vectors: float
    image_bytes: float
    query_ms: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures that ``xmr compare --json`` prints, recalls in percent."""
        return {
            "text_to_image": self.text_to_image.percent(),
            "image_to_text": self.image_to_text.percent(),
            "vectors": {"title": self.title_vectors, "image": self.image_vectors},
            "image_bytes": self.image_bytes,
            "query_ms": self.query_ms,
        }


def compare_folders(
    compared: Sequence[str | Path], folder: MugeFolder, split: str, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Measure several models on one split, and compare each with the first.

    Args:
        compared: Model folders, models of other libraries, folders of vector files; see
            ``open_source.py``.
        folder: The dataset. Its store is made or updated first.
        split: ``train``, ``valid`` or ``test``.
        progress: Where progress is reported.

    Raises:
        InputError: The answers of the split are hidden.

    Returns:
        :meth:`Measured.to_json` of each model; from the second on with ``difference``: mean,
        lower and upper bound of the 95 % interval in points of mean recall.
    """
    rows: list[dict[str, Any]] = []
    first: NDArray[np.int64] | None = None
    for one in compared:
        source = open_source(str(one), "cpu")
        part = source.open(folder, split, progress)
        if first is None:
            require_answers(part, folder.queries_path(split))
            warn_without_answers(part, folder.queries_path(split), progress)
        found = measure(source, part, progress)
        row = found.to_json()
        if first is None:
            first = found.ranks
        else:
            gap = paired_bootstrap([found.ranks], [first])
            row["difference"] = {"mean": gap.mean, "lower": gap.lower, "upper": gap.upper}
        rows.append(row)
    return rows


def measure(
    model: RetrievalModel | VectorSource, split: Split, progress: Progress = SILENT
) -> Measured:
    """Measure recall of the fast scorer, size of the vectors, and query time."""
    source = as_source(model)
    settings = EvaluationConfig() if source.model is None else source.model.config.evaluation
    encoded = source.encode(split, settings.batch_size, progress=progress)
    images, texts = encoded
    t2i, i2t = source.score(encoded)
    positives = Positives(split.item_offsets, split.items, len(split.image_ids))
    ranks = best_ranks(t2i, positives)
    image_vectors = len(images.vectors.values) / max(1, len(images))
    return Measured(
        recall(ranks),
        recall(best_ranks(i2t, positives.transposed())),
        ranks,
        len(texts.vectors.values) / max(1, len(texts)),
        image_vectors,
        image_vectors * images.vectors.dim * FLOAT_BYTES,
        query_milliseconds(texts.vectors, images.vectors),
    )


def query_milliseconds(texts: MultiVectors, images: MultiVectors, k: int = 10) -> float:
    """Time a search over all images: the median over some titles, each the best of three."""
    times = []
    with torch.inference_mode():
        for query in range(min(TIMED_QUERIES, len(texts))):
            one = texts[query]
            times.append(min(_time_search(one, images, k) for _ in range(3)))
    return 1000 * statistics.median(times)


def _time_search(query: MultiVectors, images: MultiVectors, k: int) -> float:
    start = time.perf_counter()
    topk(query, images, min(k, len(images)))
    return time.perf_counter() - start


def hits_per_query(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the share of k = 1, 5, 10 for which a query's answer is among the first k: [Q'].

    Its mean over queries is the mean recall. Queries without an answer are left out.

    >>> hits_per_query(np.array([0, 7, NO_POSITIVE])).round(2).tolist()
    [1.0, 0.33]
    """
    answered = ranks[ranks != NO_POSITIVE]
    hits: NDArray[np.float64] = np.mean([answered < k for k in KS], axis=0)
    return hits


@dataclass(frozen=True)
class Difference:
    """Difference of mean recall between two methods, in points (percent).

    Attributes:
        mean: A − B.
        lower: Lower bound of the 95 % interval.
        upper: Upper bound.
    """

    mean: float
    lower: float
    upper: float

    @property
    def supported(self) -> bool:
        """True if the whole interval is above 0: A is better."""
        return self.lower > 0


def paired_bootstrap(
    a: Sequence[NDArray[np.int64]],
    b: Sequence[NDArray[np.int64]],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare the ranks of two methods by a paired bootstrap over seeds and queries.

    Seeds are drawn with replacement, and for each drawn seed the same queries of both methods.

    Args:
        a: [S] ranks [Q] of method A.
        b: The same of method B, seed by seed.
        draws: Number of bootstrap samples.
        seed: Random seed of the samples.

    Returns:
        The difference of mean recall with its two-sided 95 % interval.
    """
    gaps = np.stack([hits_per_query(x) - hits_per_query(y) for x, y in zip(a, b, strict=True)])
    random = np.random.default_rng(seed)
    seeds, queries = gaps.shape
    means = np.empty(draws)
    for draw in range(draws):
        rows = random.integers(0, seeds, seeds)
        counts = np.bincount(random.integers(0, queries, queries), minlength=queries)
        means[draw] = (gaps[rows] @ counts).mean() / queries
    lower, upper = np.percentile(means, [2.5, 97.5])
    return Difference(100 * float(gaps.mean()), 100 * float(lower), 100 * float(upper))


def t_interval(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare two methods by a paired t-interval over seeds.

    The bootstrap of :func:`paired_bootstrap` draws queries as well, and with few seeds it draws too
    little of their spread. This interval is of what another seed would give on these queries.

    Args:
        a: [S] a figure of method A for each seed, in percent; 2 seeds or more.
        b: The same of method B, seed by seed.

    Returns:
        The mean difference with its two-sided 95 % interval.

    >>> found = t_interval([60.0, 62.0, 64.0], [58.0, 59.0, 60.0])
    >>> round(found.mean, 2), round(found.lower, 2), round(found.upper, 2)
    (3.0, 0.52, 5.48)
    """
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    if len(gaps) < 2:
        raise ValueError(f"{len(gaps)} seeds, expected 2 or more")
    mean = statistics.mean(gaps)
    quantile = float(special.stdtrit(len(gaps) - 1, 0.975))
    half = quantile * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Difference(mean, mean - half, mean + half)
