"""The CUDA kernels on the CPU, in Triton's interpreter: `test_maxsim_triton.py` runs this file.

The interpreter must be asked for before Triton is first imported, hence a process of its own.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.interaction import MultiVectors
from bagformer_cli.interaction.kernels import cuda as kernels
from bagformer_cli.interaction.kernels import reference as _plain

BUDGET = 1 << 24

# Small tiles: the interpreter is slow, and more of them meet their edges.
kernels._ROWS, kernels._COLUMNS, kernels._DEPTH = 32, 16, 16


def vectors(lengths: list[int], dim: int = 24, seed: int = 0) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


def parts(texts: MultiVectors, images: MultiVectors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return texts.values, images.values, texts.offsets, images.offsets


CASES = [
    ([3, 1, 4, 17], [5, 70, 1]),
    ([2, 0, 5], [0, 3, 66]),
    ([1, 1, 1], [1, 1]),
]


@pytest.mark.parametrize(("titles", "pictures"), CASES)
def test_forward_and_backward_equal_plain_torch(titles: list[int], pictures: list[int]) -> None:
    texts, images = vectors(titles), vectors(pictures, seed=1)
    expected = _plain.forward(*parts(texts, images), budget=BUDGET)
    found = kernels.forward(*parts(texts, images), budget=BUDGET)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    grads = [torch.randn_like(scores) for scores in expected[:2]]
    rest = (*parts(texts, images), *expected[2:], *grads)
    for budget in (1, BUDGET) if len(titles) == 4 else (BUDGET,):
        for a, b in zip(
            kernels.backward(*rest, budget=budget),
            _plain.backward(*rest, budget=BUDGET),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_int8_and_mixed_storage() -> None:
    # The interpreter multiplies the bits of bfloat16; that type is left to the device.
    dtype = torch.int8
    texts, images = vectors([3, 1, 7]), vectors([5, 70, 1], seed=1)
    expected = _plain.scores(texts, images, dtype=dtype, both=True, budget=BUDGET)
    for budget in (1, BUDGET):
        found = kernels.scores(texts, images, dtype=dtype, both=True, budget=budget)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    one, other = kernels.scores(texts, images, dtype=dtype, both=False, budget=BUDGET)
    torch.testing.assert_close(one, expected[0], rtol=1e-5, atol=1e-5)
    assert other.shape == (0, 0)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # numpy's, not ours
def test_a_nan_spoils_its_own_scores_alone() -> None:
    texts, images = vectors([3, 1]), vectors([5, 2], seed=1)
    images.values[5, 0] = float("nan")
    found = kernels.scores(texts, images, dtype=torch.float32, both=True, budget=BUDGET)
    expected = _plain.scores(texts, images, dtype=torch.float32, both=True, budget=BUDGET)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_the_first_of_equals_wins() -> None:
    texts = MultiVectors.from_list([torch.ones(5, 4)])
    images = MultiVectors.from_list([torch.ones(70, 4)])
    _, _, arg_patch, arg_bag = kernels.forward(*parts(texts, images), budget=BUDGET)
    assert not arg_patch.any()
    assert not arg_bag.any()


def test_the_self_check_passes_and_long_titles_are_left_to_others() -> None:
    assert kernels.works(torch.device("cpu"), torch.float32)
    assert kernels.works(torch.device("cpu"), torch.int8)
    # The interpreter's bfloat16 is wrong, and is found out.
    assert not kernels.works(torch.device("cpu"), torch.bfloat16)
    assert kernels.fits(torch.tensor([0, 3, 128]))
    assert not kernels.fits(torch.tensor([0, 3, 140]))
