"""The choice of beta, recall on subsets, and the comparison of two models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.config import load_config
from bagformer_cli.datasets import ensure_store
from bagformer_cli.evaluation.candidates import top_k
from bagformer_cli.evaluation.compare import paired_bootstrap, t_interval
from bagformer_cli.evaluation.merge import Reranked, choose_beta
from bagformer_cli.evaluation.metrics import Positives
from bagformer_cli.evaluation.subsets import Subset, read_subsets
from bagformer_cli.text.from_config import build_titles
from tests.support.datasets import write_split


def test_beta_is_the_one_with_the_best_recall() -> None:
    fast = np.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    wanted = Positives.from_lists([[1], [1]], 3)
    candidates = top_k(fast, 3)
    right = np.array([[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]], np.float32)
    slow = np.take_along_axis(right, candidates.positions, axis=1)
    beta, means = choose_beta([Reranked(candidates, slow, wanted)])
    assert means[beta] == max(means.values()) == 1.0
    beta, means = choose_beta([Reranked(candidates, -slow, Positives.from_lists([[0], [1]], 3))])
    assert means[beta] == 1.0  # the cross-encoder is wrong: the fast scorer must outweigh it
    assert beta > 1


def test_a_subset_holds_its_images_and_their_queries(tmp_path: Path) -> None:
    queries = [(n, f"第{n}款连衣裙", (10 + n,)) for n in range(8)]
    folder = write_split(tmp_path / "set", "valid", queries)
    titles = build_titles(load_config("demo"))
    split = ensure_store(folder, titles, workers=1).split("valid")
    path = tmp_path / "keys.txt"
    path.write_text("12\tone\n10\tone\n13\ttwo\n")
    subsets = read_subsets(path, split)
    assert list(subsets) == ["one", "two"]
    one: Subset = subsets["one"]
    assert split.image_ids[one.images].tolist() == [10, 12]
    assert split.query_ids[one.queries].tolist() == [0, 2]
    assert one.positives(split).columns.tolist() == [0, 1]


def test_a_real_difference_is_supported_and_a_random_one_is_not() -> None:
    random = np.random.default_rng(0)
    ranks = random.integers(0, 40, (3, 200))
    better = np.maximum(ranks - 6, 0)
    assert paired_bootstrap(list(better), list(ranks), draws=300).supported
    shuffled = [random.permutation(row) for row in ranks]
    assert not paired_bootstrap(shuffled, list(ranks), draws=300).supported


def test_the_t_interval_by_hand() -> None:
    """Differences 2, 3, 4: mean 3, deviation 1; t of 2 degrees of freedom is 4.303."""
    found = t_interval([60.0, 62.0, 64.0], [58.0, 59.0, 60.0])
    assert found.mean == 3
    assert found.upper - found.mean == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert found.mean - found.lower == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert found.supported
    assert not t_interval([1.0, 5.0], [0.0, 0.0]).supported


def test_the_t_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        found = t_interval(random.normal(1.0, 2.0, 5).tolist(), [0.0] * 5)
        inside += found.lower <= 1.0 <= found.upper
    assert 0.935 < inside / 2000 < 0.965


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_t_interval_needs_two_seeds(seeds: int) -> None:
    with pytest.raises(ValueError, match="seeds"):
        t_interval([1.0] * seeds, [0.0] * seeds)
