"""The centroid first stage, and the k-means behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bagformer_cli.index import centroids
from bagformer_cli.index.centroids import CentroidIndex
from bagformer_cli.interaction.topk import topk
from bagformer_cli.vectors.kmeans import CentroidTree, kmeans, nearest
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook


def around(count: int, dim: int = 16, noise: float = 0.1, seed: int = 0) -> torch.Tensor:
    """Unit vectors around forty centres, which are the same for every seed."""
    centres = torch.randn(40, dim, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    some = torch.randint(40, (count,), generator=generator)
    values = centres[some] + noise * torch.randn(count, dim, generator=generator)
    return torch.nn.functional.normalize(values, dim=1)


@pytest.fixture
def items() -> MultiVectors:
    return MultiVectors(around(3000), torch.arange(0, 3001, 3))


def obvious_scores(index: CentroidIndex, query: torch.Tensor) -> NDArray[np.int64]:
    """Add up the table rows, product by product: the slow, obvious scores."""
    table = index.table(query).transpose(0, 2, 1).astype(np.int64)
    lanes = table.reshape(-1, table.shape[2])
    ends = index.offsets
    sums = [
        lanes[:, index.ids[ends[i] : ends[i + 1]]].max(1).sum()
        if ends[i] < ends[i + 1]
        else len(lanes) << 15  # nothing scores 0 with everything
        for i in range(index.count)
    ]
    return np.array(sums)


@pytest.mark.parametrize("bags", [1, 3, 16, 21])
def test_a_score_is_the_late_interaction_with_the_nearest_centroids(
    items: MultiVectors, bags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = torch.tensor([0, 3, 0, 6, 1] * 40)
    some = MultiVectors(
        items.values[: int(lengths.sum())], torch.cat([lengths[:1], lengths.cumsum(0)])
    )
    index = CentroidIndex.build([some[:70], some[70:]])
    query = around(bags, seed=3)
    everyone = np.ones(len(some), bool)
    assert np.array_equal(index.scores(query, everyone), obvious_scores(index, query))
    rounded = MultiVectors(index.centroids.float()[index.ids.astype(np.int64)], some.offsets)
    exact = topk(MultiVectors.from_list([query]), rounded, 200)
    scores = np.empty(200)
    scores[exact[1][0]] = exact[0][0]
    there = some.lengths.numpy() > 0
    ours = index.scores(query, everyone)
    assert np.corrcoef(ours[there], scores[there])[0, 1] > 0.999
    monkeypatch.setattr(centroids, "supported", lambda _: False)  # without AVX-512
    plain = index.scores(query, everyone)
    assert np.corrcoef(ours[there], plain[there])[0, 1] > 0.999


def test_near_products_are_among_the_candidates(items: MultiVectors) -> None:
    index = CentroidIndex.build([items[:400].quantize(), items[400:].quantize()])
    assert index.count == 1000
    everyone = np.ones(1000, bool)
    for item in (0, 399, 400, 999):
        mine = items[item].values
        chosen = index.candidates(mine, 20, everyone)
        assert item in chosen
        assert (np.diff(chosen) > 0).all()
        assert 20 <= len(chosen) <= 260
        without = everyone.copy()
        without[item] = False
        assert item not in index.candidates(mine, 20, without)
        assert len(index.candidates(mine, 20, without)) >= 20
    few = np.arange(1000) < 7
    assert index.candidates(items[3].values, 20, few).tolist() == list(range(7))


def test_of_equal_products_no_more_are_selected_than_asked_for(items: MultiVectors) -> None:
    same = items.select(torch.zeros(500, dtype=torch.int64))
    index = CentroidIndex.build([same])
    chosen = index.candidates(items[3].values, 20, np.ones(500, bool), 0.0, 0.0)
    assert len(chosen) == 20
    assert len(index.candidates(items[3].values[:0], 20, np.ones(500, bool))) == 20
    nothing = CentroidIndex(index.centroids, index.ids[:0], np.zeros(1, np.int64))
    assert len(nothing.scores(items[3].values, np.ones(0, bool))) == 0


def test_candidates_contain_the_ten_best(items: MultiVectors) -> None:
    index = CentroidIndex.build([items])
    query = around(6, seed=5)
    best = topk(MultiVectors.from_list([query]), items, 10)[1][0]
    assert np.isin(best, index.candidates(query, 50, np.ones(1000, bool))).mean() >= 0.9


def test_residual_codes_are_assigned_by_their_decoded_vectors(items: MultiVectors) -> None:
    coded = items.code(Codebook.train(items.values))
    plain, ours = CentroidIndex.build([coded.to(dtype=torch.float32)]), CentroidIndex.build([coded])
    query = around(6, seed=5)
    everyone = np.ones(1000, bool)
    both = [index.scores(query, everyone) for index in (plain, ours)]
    assert np.corrcoef(*both)[0, 1] > 0.98


def test_a_saved_index_is_loaded_only_for_its_segments(items: MultiVectors, tmp_path: Path) -> None:
    index = CentroidIndex.build([items])
    index.save(tmp_path / "t", ["a"])
    again = CentroidIndex.load(tmp_path / "t", ["a", "b"], 1000)
    assert again is not None
    query, everyone = around(6, seed=5), np.ones(1000, bool)
    assert np.array_equal(again.scores(query, everyone), index.scores(query, everyone))
    assert CentroidIndex.load(tmp_path / "t", ["b"], 1000) is None
    assert CentroidIndex.load(tmp_path / "t", ["a"], 999) is None
    assert CentroidIndex.load(tmp_path / "u", ["a"], 1000) is None
    for name, damage in (("numbers", 0), ("offsets", 7)):
        good = np.load(tmp_path / "t" / f"{name}.npy")
        wrong = good.copy()
        wrong[damage] = 2 ** (15 if name == "numbers" else 40)
        np.save(tmp_path / "t" / f"{name}.npy", wrong)
        assert CentroidIndex.load(tmp_path / "t", ["a"], 1000) is None
        np.save(tmp_path / "t" / f"{name}.npy", good)
    assert CentroidIndex.load(tmp_path / "t", ["a"], 1000) is not None
    np.save(tmp_path / "t" / "centroids.npy", index.centroids[:16].numpy())  # of another
    assert CentroidIndex.load(tmp_path / "t", ["a"], 1000) is None


def test_a_centroid_tree_finds_nearly_the_nearest() -> None:
    values = around(4000, noise=0.5)
    tree = CentroidTree.train(values, 64)
    assert abs(len(tree.leaves) - 64) <= 8
    assert int(tree.offsets[-1]) == len(tree.leaves)
    found = tree.nearest(values)
    assert torch.equal(tree.nearest(values * 3), found)
    own = (values * tree.leaves[found]).sum(1)
    best = (values @ tree.leaves.T).max(1).values
    assert float((best - own).mean()) < 0.03
    flat = kmeans(values, len(tree.leaves), spherical=True)
    reached = (values * flat[nearest(values, flat, spherical=True)]).sum(1).mean()
    assert float(own.mean()) > float(reached) - 0.03


def test_a_centroid_tree_of_few_and_of_equal_vectors() -> None:
    for values in (around(1), around(2), torch.ones(50, 4), around(30)):
        tree = CentroidTree.train(values, 16)
        found = tree.nearest(values)
        assert int(found.max()) < len(tree.leaves)
        assert bool(tree.leaves.isfinite().all())
