"""The CUDA kernels on the CPU, in Triton's interpreter: `test_maxsim_triton.py` runs this file.

The interpreter must be asked for before Triton is first imported, hence a process of its own.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bagformer_cli.interaction import MultiVectors
from bagformer_cli.interaction.kernels import cuda as kernels
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads

BUDGET = 1 << 24

# Small tiles: the interpreter is slow, and more of them meet their edges.
kernels._ROWS, kernels._COLUMNS, kernels._DEPTH = 32, 16, 16


def vectors(lengths: list[int], dim: int = 24, seed: int = 0) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


def packed(texts: MultiVectors, images: MultiVectors) -> Packed:
    return Packed(texts.values, images.values, texts.offsets, images.offsets)


CASES = [
    ([3, 1, 4, 17], [5, 70, 1]),
    ([2, 0, 5], [0, 3, 66]),
    ([1, 1, 1], [1, 1]),
]


@pytest.mark.parametrize(("titles", "pictures"), CASES)
def test_forward_and_backward_equal_plain_torch(titles: list[int], pictures: list[int]) -> None:
    texts, images = vectors(titles), vectors(pictures, seed=1)
    items = packed(texts, images)
    t2i, i2t, argmax = expected = reference.forward(items, budget=BUDGET)
    found = kernels.forward(items, budget=BUDGET)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    grads = ScoreGrads(torch.randn_like(t2i), torch.randn_like(i2t))
    for budget in (1, BUDGET) if len(titles) == 4 else (BUDGET,):
        torch.testing.assert_close(
            kernels.backward(items, argmax, grads, budget=budget),
            reference.backward(items, argmax, grads, budget=BUDGET),
            rtol=1e-5,
            atol=1e-5,
        )


def test_int8_and_mixed_storage() -> None:
    # The interpreter multiplies the bits of bfloat16; that type is left to the device.
    dtype = torch.int8
    texts, images = vectors([3, 1, 7]), vectors([5, 70, 1], seed=1)
    expected = reference.scores(texts, images, dtype=dtype, both=True, budget=BUDGET)
    for budget in (1, BUDGET):
        found = kernels.scores(texts, images, dtype=dtype, both=True, budget=budget)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    one, other = kernels.scores(texts, images, dtype=dtype, both=False, budget=BUDGET)
    torch.testing.assert_close(one, expected[0], rtol=1e-5, atol=1e-5)
    assert other.shape == (0, 0)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # numpy's, not ours
def test_a_nan_affects_the_scores_of_its_own_item_only() -> None:
    texts, images = vectors([3, 1]), vectors([5, 2], seed=1)
    images.values[5, 0] = float("nan")
    found = kernels.scores(texts, images, dtype=torch.float32, both=True, budget=BUDGET)
    expected = reference.scores(texts, images, dtype=torch.float32, both=True, budget=BUDGET)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_the_first_of_equals_wins() -> None:
    texts = MultiVectors.from_list([torch.ones(5, 4)])
    images = MultiVectors.from_list([torch.ones(70, 4)])
    argmax = kernels.forward(packed(texts, images), budget=BUDGET)[2]
    assert not argmax.patch.any()
    assert not argmax.bag.any()


def test_the_self_check_passes_and_long_titles_do_not_fit() -> None:
    assert kernels.works(torch.device("cpu"), torch.float32)
    assert kernels.works(torch.device("cpu"), torch.int8)
    # The interpreter's bfloat16 is wrong; the self-check finds it.
    assert not kernels.works(torch.device("cpu"), torch.bfloat16)
    assert kernels.fits(torch.tensor([0, 3, 128]))
    assert not kernels.fits(torch.tensor([0, 3, 140]))
