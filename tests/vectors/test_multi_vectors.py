"""Packed vectors: slicing, selecting, joining and converting them."""

from __future__ import annotations

import pytest
import torch

from bagformer_cli.interaction import MultiVectors


def vectors(*lengths: int, dim: int = 4, seed: int = 0) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    return MultiVectors.from_list(
        [torch.randn(length, dim, generator=generator) for length in lengths]
    )


def same(a: MultiVectors, b: MultiVectors) -> bool:
    return torch.equal(a.values, b.values) and torch.equal(a.offsets, b.offsets)


def test_a_list_goes_in_and_comes_out() -> None:
    items = [torch.randn(3, 4), torch.randn(0, 4), torch.randn(1, 4)]
    packed = MultiVectors.from_list(items)
    assert len(packed) == 3
    assert packed.offsets.tolist() == [0, 3, 3, 4]
    assert packed.lengths.tolist() == [3, 0, 1]
    assert all(torch.equal(a, b) for a, b in zip(packed.to_list(), items, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(packed, items, strict=True))


def test_a_dense_block_is_a_list_of_equal_lengths_without_a_copy() -> None:
    dense = torch.randn(3, 5, 4)
    packed = MultiVectors.from_dense(dense)
    assert packed.lengths.tolist() == [5, 5, 5]
    assert packed.uniform_length == 5
    assert packed.values.data_ptr() == dense.data_ptr()
    assert vectors(2, 3).uniform_length is None


def test_slices_are_views_of_the_right_items() -> None:
    packed = vectors(3, 0, 2, 5)
    part = packed[1:3]
    assert part.lengths.tolist() == [0, 2]
    assert part.values.data_ptr() == packed.values[3:].data_ptr()
    assert torch.equal(packed[-1].values, packed.to_list()[-1])
    assert len(packed[2:1]) == 0
    assert same(packed[::-1], packed.select([3, 2, 1, 0]))
    with pytest.raises(IndexError):
        packed[4]


def test_select_reorders_and_repeats() -> None:
    packed = vectors(3, 0, 2)
    chosen = packed.select(torch.tensor([2, 0, 2, 1]))
    expected = [packed.to_list()[i] for i in (2, 0, 2, 1)]
    assert same(chosen, MultiVectors.from_list(expected))
    assert len(packed.select([])) == 0


def test_concatenate_puts_parts_back_together() -> None:
    packed = vectors(3, 0, 2, 5)
    assert same(MultiVectors.concatenate([packed[:1], packed[1:1], packed[1:]]), packed)
    small = packed.quantize()
    again = MultiVectors.concatenate([small[:2], small[2:]])
    assert same(again, small)
    assert again.scales is not None
    assert torch.equal(again.scales, small.scales)


def test_gradients_flow_through_packing_and_choosing() -> None:
    item = torch.randn(2, 4, requires_grad=True)
    MultiVectors.from_list([item, torch.randn(1, 4)]).select([0, 0]).values.sum().backward()
    assert torch.equal(item.grad, torch.full((2, 4), 2.0))


def test_int8_is_within_half_a_step_of_each_items_own_scale() -> None:
    packed = MultiVectors.from_list([torch.randn(3, 8), 100 * torch.randn(2, 8)])
    small = packed.to(dtype=torch.int8)
    assert small.dtype == torch.int8
    assert small.scales is not None
    for item, back, scale in zip(packed, small.to(dtype=torch.float32), small.scales, strict=True):
        assert float(scale) == pytest.approx(float(item.abs().max()) / 127)
        assert float((item - back).abs().max()) <= float(scale) * 0.5001
    assert same(small.to(dtype=torch.int8), small)


def test_int8_of_zeros_and_of_nothing_is_zero() -> None:
    small = MultiVectors.from_list([torch.zeros(2, 4), torch.zeros(0, 4)]).quantize()
    assert small.scales is not None
    assert small.scales.tolist() == [0, 0]
    assert not small.to(dtype=torch.float32).values.any()


def test_an_items_int8_does_not_depend_on_its_neighbours() -> None:
    packed = vectors(3, 2, 4)
    alone = packed[1].quantize()
    assert same(packed.quantize()[1], alone)


def test_types_change_and_offsets_stay_where_they_are() -> None:
    packed = vectors(3, 2)
    half = packed.to(dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.offsets.device.type == "cpu"
    assert packed.to("cpu", torch.float32).values is packed.values


@pytest.mark.parametrize(
    ("values", "offsets", "scales", "message"),
    [
        (torch.zeros(3), [0, 3], None, "must be a matrix"),
        (torch.zeros(3, 2), [0, 2], None, "found 0 … 2"),
        (torch.zeros(3, 2), [1, 3], None, "found 1 … 3"),
        (torch.zeros(3, 2), [0, 2, 1, 3], None, "must not decrease"),
        (torch.zeros(3, 2), [], None, r"must be \[n \+ 1\]"),
        (torch.zeros(3, 2, dtype=torch.int8), [0, 3], None, "without scales"),
        (torch.zeros(3, 2), [0, 3], torch.ones(1), "with scales"),
        (torch.zeros(3, 2, dtype=torch.int8), [0, 3], torch.ones(2), "one per item"),
        (torch.zeros(3, 2, dtype=torch.int64), [0, 3], None, "floating point or int8"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(
    values: torch.Tensor, offsets: list[int], scales: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MultiVectors(values, torch.tensor(offsets), scales)


def test_a_list_without_a_known_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        MultiVectors.from_list([])
    with pytest.raises(ValueError, match="same D"):
        MultiVectors.from_list([torch.zeros(1, 2), torch.zeros(1, 3)])
    with pytest.raises(ValueError, match="at least one part"):
        MultiVectors.concatenate([])


def test_the_mean_of_an_item_is_that_of_its_vectors_and_differentiable() -> None:
    item = torch.randn(3, 4, requires_grad=True)
    mean = MultiVectors.from_list([item, torch.zeros(0, 4), item[:1]]).mean()
    torch.testing.assert_close(mean[0], item.mean(0))
    assert mean[1].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(mean[2], item[0])
    mean[0].sum().backward()
    torch.testing.assert_close(item.grad, torch.full((3, 4), 1 / 3))


def test_repr_shows_sizes_not_numbers() -> None:
    assert (
        repr(vectors(3, 2)) == "MultiVectors(items=2, vectors=5, dim=4, dtype=float32, device=cpu)"
    )
