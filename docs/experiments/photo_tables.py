"""Write the tables of ``photographs.py``: recall of each arm, and differences of two arms.

A difference has two intervals, because two things are samples. The t-interval over seeds holds for
other seeds on the same photographs; the bootstrap over photographs holds for other photographs of
the same kind, with the mean of these seeds.

Shapes: Q queries, which are titles or photographs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.evaluation.compare import Difference, hits_per_query, t_interval
from photo_sets import Photographs
from trials import Result, markdown_table, mean_and_deviation

DRAWS = 10_000
ArmResults = Mapping[str, Mapping[int, Result]]  # by arm and seed


@dataclass(frozen=True)
class Column:
    """A column of recall in the tables.

    Attributes:
        protocol: ``folds`` or ``transfer``.
        queries: ``titles`` (photographs are found) or ``photos`` (titles are found).
        products: True: of product photographs; False: of stamps.
    """

    protocol: str
    queries: str
    products: bool

    def hits(self, result: Result, whole: Photographs) -> NDArray[np.float64]:
        """Return the share of k = 1, 5, 10 for which the answer is among the first k: [Q]."""
        ranks = np.array(result["ranks"][self.protocol][self.queries])
        return hits_per_query(ranks[self._rows(whole)])

    def groups(self, whole: Photographs) -> NDArray[np.int64]:
        """Return the group of each query: photographs linked by shared titles are one, [Q]."""
        photos, titles = whole.groups()
        return (titles if self.queries == "titles" else photos)[self._rows(whole)]

    def _rows(self, whole: Photographs) -> NDArray[np.bool_]:
        products = whole.products
        if self.queries == "titles":
            products = products[whole.items[whole.offsets[:-1]]]
        return np.equal(products, self.products)


COLUMNS = {
    "product titles": Column("folds", "titles", True),
    "product photographs": Column("folds", "photos", True),
    "captions": Column("folds", "titles", False),
    "stamps": Column("folds", "photos", False),
    "transfer, titles": Column("transfer", "titles", True),
    "transfer, photographs": Column("transfer", "photos", True),
}


def recall_table(found: ArmResults, whole: Photographs) -> list[str]:
    """Return a Markdown table with a row for each arm."""
    last = ("vectors (title / image)", "bytes per image", "ms per query", "steps", "CPU s")
    rows = []
    for arm, by_seed in found.items():
        results = list(by_seed.values())
        recalls = [
            mean_and_deviation([100 * float(one.hits(r, whole).mean()) for r in results])
            for one in COLUMNS.values()
        ]
        vectors = " / ".join(
            f"{_mean(results, f'{side}_vectors'):.1f}" for side in ("title", "image")
        )
        figures = [
            vectors,
            f"{_mean(results, 'image_bytes'):,.0f}",
            f"{statistics.median(one['query_ms'] for one in results):.2f}",
            f"{_mean(results, 'steps'):.0f}",
            f"{_mean(results, 'cpu'):.1f}",
        ]
        rows.append([arm, str(len(results)), *recalls, *figures])
    return markdown_table(["arm", "seeds", *COLUMNS, *last], rows)


def differences_table(
    found: ArmResults,
    whole: Photographs,
    compared: Iterable[tuple[str, str]],
) -> list[str]:
    """Return a Markdown table of A − B with both intervals, over the seeds that both arms have."""
    rows = []
    for a, b in compared:
        seeds = sorted(found.get(a, {}).keys() & found.get(b, {}).keys())
        if len(seeds) < 2:
            continue
        first, second = ([found[arm][seed] for seed in seeds] for arm in (a, b))
        cells = [_cell(first, second, one, whole) for one in COLUMNS.values()]
        rows.append([a, b, str(len(seeds)), *cells])
    return markdown_table(["A", "B", "seeds", *COLUMNS], rows)


def _cell(a: Sequence[Result], b: Sequence[Result], column: Column, whole: Photographs) -> str:
    hits = [np.stack([column.hits(one, whole) for one in side]) for side in (a, b)]
    seeds = t_interval(*((100 * side.mean(axis=1)).tolist() for side in hits))
    photos = group_bootstrap((hits[0] - hits[1]).mean(axis=0), column.groups(whole))
    intervals = [f"{one.lower:+.1f} … {one.upper:+.1f}" for one in (seeds, photos)]
    return f"{seeds.mean:+.1f} ({'; '.join(intervals)})"


def group_bootstrap(
    gaps: NDArray[np.float64], groups: NDArray[np.int64], draws: int = DRAWS
) -> Difference:
    """Compute the interval of a mean difference by a bootstrap over groups.

    Args:
        gaps: [Q] difference of two methods for each query, in [-1, 1].
        groups: [Q] group of each query; a group is drawn whole.
        draws: Number of bootstrap samples.

    Returns:
        The mean and its two-sided 95 % interval, in percentage points.
    """
    _, number = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(number, gaps), np.bincount(number)
    random = np.random.default_rng(0)
    counts = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    lower, upper = np.percentile((counts @ sums) / (counts @ sizes), [2.5, 97.5])
    return Difference(100 * float(gaps.mean()), 100 * float(lower), 100 * float(upper))


def _mean(results: Sequence[Result], key: str) -> float:
    return statistics.mean(float(one[key]) for one in results)
