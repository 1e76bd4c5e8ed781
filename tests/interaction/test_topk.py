"""The best images of each title: scans, filters, rescoring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.interaction.topk import best_columns, score_pairs, topk, topk_rescored


def vectors(lengths: list[int], dim: int = 16, seed: int = 0) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), dim, generator=generator)
    return MultiVectors(F.normalize(values, dim=-1), torch.tensor([0, *lengths]).cumsum(0))


def lengths(n: int, low: int, high: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n,), generator=generator).tolist()


@pytest.mark.parametrize("budget", [1, 4096, 1 << 28])
def test_topk_is_the_sorted_score_matrix(budget: int) -> None:
    texts, images = vectors(lengths(7, 0, 9, 0)), vectors(lengths(50, 0, 12, 1), seed=1)
    whole = maxsim(texts, images)[0]
    scores, positions = topk(texts, images, 5, budget=budget)
    torch.testing.assert_close(scores, whole.sort(dim=1, descending=True).values[:, :5])
    torch.testing.assert_close(whole.gather(1, positions), scores)


def test_equal_scores_come_in_the_order_of_the_images() -> None:
    images = MultiVectors.from_dense(torch.ones(6, 2, 4))
    assert topk(vectors([3], 4), images, 6)[1].tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("budget", [1, 2048, 1 << 28])
def test_fewer_results_are_the_first_of_more(budget: int) -> None:
    # Five images, each of them forty times in a random order: the edge of any k is tied.
    which = torch.randint(5, (200,), generator=torch.Generator().manual_seed(3)).tolist()
    distinct = vectors([3] * 5, seed=1)
    images = MultiVectors.from_list([distinct[n].values for n in which])
    texts = vectors([4, 0, 2])
    every = topk(texts, images, 200, budget=budget)[1]
    rescored = topk_rescored(texts, images, 200)[1]
    for k in (1, 2, 17, 40, 41, 199):
        assert torch.equal(topk(texts, images, k, budget=budget)[1], every[:, :k])
        assert torch.equal(topk_rescored(texts, images, k)[1], rescored[:, :k])


def test_the_best_columns_of_ties_and_of_nan() -> None:
    scores = torch.tensor([[1.0, 3, 1, 1, 2], [5, 5, 5, 5, 5], [1, float("nan"), 2, 2, 2]])
    best = best_columns(scores, 3)
    assert best.sort(dim=1).values.tolist() == [[0, 1, 4], [0, 1, 2], [1, 2, 3]]
    assert best_columns(scores, 9).sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_no_more_results_than_images() -> None:
    scores, positions = topk(vectors([3, 1]), vectors([2, 2, 2], seed=1), 10)
    assert scores.shape == positions.shape == (2, 3)
    assert topk(vectors([3, 1]), vectors([2])[:0], 10)[0].shape == (2, 0)
    with pytest.raises(ValueError, match="at least 1"):
        topk(vectors([3]), vectors([2]), 0)


@pytest.mark.parametrize("budget", [1, 4096, 1 << 28])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_pairs_score_as_in_the_whole_matrix(budget: int, dtype: torch.dtype) -> None:
    texts = vectors(lengths(7, 0, 9, 0)).to(dtype=dtype)
    images = vectors(lengths(20, 0, 12, 1), seed=1).to(dtype=dtype)
    whole = maxsim(texts.to(dtype=torch.float32), images.to(dtype=torch.float32))[0]
    candidates = torch.randint(20, (7, 6), generator=torch.Generator().manual_seed(2))
    found = score_pairs(texts, images, candidates, budget=budget)
    torch.testing.assert_close(found, whole.gather(1, candidates), rtol=1e-5, atol=1e-5)
    assert score_pairs(texts, images, candidates[:, :0]).shape == (7, 0)


def test_an_int8_scan_rescored_is_the_exact_top() -> None:
    # Random data is the hardest: scores lie close together, and int8 alone confuses neighbours.
    texts = vectors(lengths(32, 2, 26, 0), 64)
    images = vectors([17] * 600, 64, seed=1)
    exact_scores, exact = topk(texts, images, 10, dtype=torch.float32)
    _, rough = topk(texts, images, 10, dtype=torch.int8)
    assert not torch.equal(rough, exact)
    scores, found = topk_rescored(texts, images, 10)
    assert torch.equal(found, exact)
    torch.testing.assert_close(scores, exact_scores, rtol=1e-5, atol=1e-5)
    stored = topk_rescored(texts, images, 10, scan=images.quantize())
    assert torch.equal(stored[1], exact)
    with pytest.raises(ValueError, match="same items"):
        topk_rescored(texts, images, 10, scan=images[:5])


@pytest.mark.parametrize("budget", [1, 4096, 1 << 28])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_a_filter_is_the_same_as_leaving_the_others_out(budget: int, share: float) -> None:
    texts, images = vectors(lengths(7, 1, 9, 0)), vectors(lengths(50, 0, 12, 1), seed=1)
    left = (torch.rand(50, generator=torch.Generator().manual_seed(2)) < share).nonzero().flatten()
    expected = topk(texts, images.select(left), 6)
    for found in (
        topk(texts, images, 6, candidates=left, budget=budget),
        topk_rescored(texts, images, 6, candidates=left),
    ):
        torch.testing.assert_close(found[0], expected[0])
        assert torch.equal(found[1], left[expected[1]])


@pytest.mark.parametrize("wrong", [[50], [-1], [[1]], [0.5]])
def test_candidates_must_be_positions_of_images(wrong: list[Any]) -> None:
    texts, images = vectors(lengths(7, 1, 9, 0)), vectors(lengths(50, 0, 12, 1), seed=1)
    for search in (lambda which: topk(texts, images, 6, candidates=which),
                   lambda which: score_texts(texts, images, candidates=which)):  # fmt: skip
        with pytest.raises(ValueError, match="positions must be int64"):
            search(torch.tensor(wrong))


def test_candidates_without_vectors_score_zero() -> None:
    texts = vectors([3, 2])
    empty = MultiVectors(torch.zeros(0, 16), torch.zeros(5, dtype=torch.int64))
    candidates = torch.tensor([1, 3])
    for dtype in (torch.float32, torch.int8):
        found = score_texts(texts, empty, dtype=dtype, candidates=candidates)
        assert found.tolist() == [[0, 0]] * 2
