"""Search with vectors on a device: the same results as from memory, whatever fits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bagformer_cli.interaction import MultiVectors, device_images
from bagformer_cli.interaction.device_images import DeviceImages
from bagformer_cli.interaction.topk import topk
from bagformer_cli.vectors.residual_codes import Codebook

CPU = torch.device("cpu")


def vectors(lengths: list[int], seed: int, dim: int = 16) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_images, "BLOCK", 7)
    monkeypatch.setattr(device_images, "STREAMED_BYTES", 16 * 10 * 2)


@pytest.mark.parametrize("max_bytes", [None, 0, 1000])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8", "residual4"])
def test_the_best_are_those_of_a_search_in_memory(max_bytes: int | None, stored: str) -> None:
    texts, images = vectors([3, 1, 0, 5], 0), vectors([1, 2, 0, 5, 3] * 6, 1)
    if stored == "residual4":
        kept = images.code(Codebook.train(images.values))
    else:
        kept = images.to(dtype=getattr(torch, stored))
    device = DeviceImages(kept, CPU, max_bytes)
    if max_bytes != 1000:
        assert device.resident == (30 if max_bytes is None else 0)
    for candidates in (None, torch.tensor([0, 3, 4, 8, 29]), torch.tensor([], dtype=torch.int64)):
        scores, positions = device.topk(texts, 3, candidates)
        wanted = topk(texts, kept, 3, dtype=torch.int8 if stored == "int8" else torch.float32,
                      candidates=candidates)  # fmt: skip
        torch.testing.assert_close(scores, wanted[0], rtol=5e-3, atol=5e-3)
        if stored != "residual4" and len(scores[0]):
            assert torch.equal(positions[[0, 1, 3], 0], wanted[1][[0, 1, 3], 0])


@pytest.mark.parametrize("max_bytes", [None, 0])
def test_of_equal_scores_the_lower_position_is_kept(max_bytes: int | None) -> None:
    # Blocks of seven products; the edge of every k is tied, within a block and between blocks.
    images = MultiVectors.from_dense(torch.ones(20, 2, 16))
    device = DeviceImages(images, CPU, max_bytes)
    some = torch.arange(1, 20, 2)
    for k in (1, 3, 8, 10):
        assert device.topk(images[:2], k)[1].tolist() == [list(range(k))] * 2
        assert device.topk(images[:2], k, some)[1].tolist() == [some[:k].tolist()] * 2


def test_values_too_large_for_float16_are_kept_as_bfloat16() -> None:
    images = MultiVectors.from_list([torch.full((1, 4), 1e5), torch.ones(1, 4)])
    device = DeviceImages(images, CPU)
    assert device.dtype == torch.bfloat16
    scores, positions = device.topk(images, 1)
    assert positions.flatten().tolist() == [0, 0]
    assert scores.isfinite().all()


def test_many_queries_are_one_product() -> None:
    assert device_images._groups(vectors([3] * 6, 0), 9, 16) == [(0, 3), (3, 6)]
    assert device_images._groups(vectors([1] * 40, 0), 128, 16) == [(0, 16), (16, 32), (32, 40)]
    assert device_images._groups(vectors([1] * 100, 0), 128, 16) is None
    assert device_images._groups(vectors([129], 0), 128, 16) is None
    texts, images = vectors([1] * 100, 0), vectors([2] * 9, 1)
    torch.testing.assert_close(
        DeviceImages(images, CPU).topk(texts, 2)[0], topk(texts, images, 2)[0], rtol=2e-3, atol=2e-3
    )


def test_the_next_range_is_copied_before_a_block_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring waits for the device: a copy that began only then would never be hidden."""
    images, done = vectors([2] * 12, 1), []

    class Slot:
        def __init__(self, copies: object) -> None:
            self.number = len(made)
            made.append(self)

        def copy(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            done.append(f"copy {self.number}")
            return values.to(dtype)

        def wait(self) -> None:
            done.append(f"wait {self.number}")

        def release(self) -> None:
            done.append(f"release {self.number}")

    made: list[Slot] = []
    monkeypatch.setattr(device_images, "_Slot", Slot)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    device = DeviceImages(images, CPU, 0)
    for first, block in device._streamed([(0, 4), (4, 8), (8, 12)]):
        done.append(f"score {first}")
        torch.testing.assert_close(
            block.vectors.to(dtype=torch.float32).values,
            images[first : first + 4].values, rtol=1e-3, atol=1e-3,
        )  # fmt: skip
    assert done == [
        "copy 0", "copy 1", "wait 0", "score 0", "release 0",
        "copy 0", "wait 1", "score 4", "release 1", "wait 0", "score 8", "release 0",
    ]  # fmt: skip
    assert list(device._streamed([])) == []


@pytest.mark.gpu
def test_streamed_vectors_on_a_gpu_equal_those_that_fit() -> None:
    texts, images = vectors([3, 5], 0, 64), vectors([4] * 500, 1, 64)
    fits = DeviceImages(images, torch.device("cuda")).topk(texts, 10)
    for limit in (0, 20_000):
        streamed = DeviceImages(images, torch.device("cuda"), limit).topk(texts, 10)
        torch.testing.assert_close(streamed, fits)
