"""The CUDA path on a stand-in for a GPU: no call mixes devices or makes the host wait."""

from __future__ import annotations

import pytest
import torch

from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.vectors.residual_codes import Codebook
from tests.support.second_device import second_device

pytest.importorskip("triton")
META = torch.device("meta")


def vectors(lengths: list[int], dim: int = 16, dtype: torch.dtype = torch.float32) -> MultiVectors:
    values = torch.empty(sum(lengths), dim, device=META, dtype=dtype)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.parametrize("images", [[5, 70, 0, 1], [17] * 4])
def test_scores_and_gradients_do_not_wait(
    monkeypatch: pytest.MonkeyPatch, images: list[int]
) -> None:
    texts, items = vectors([3, 0, 2]), vectors(images)
    leaves = [side.values.requires_grad_() for side in (texts, items)]
    with second_device(monkeypatch) as found:
        for dtype in (torch.float32, torch.bfloat16):
            t2i, i2t = maxsim(texts, items, dtype=dtype)
            (t2i.sum() + i2t.sum()).backward()
        with torch.no_grad():
            maxsim(texts, items, dtype=torch.float32)
    assert found.places == []
    assert found.kernels == ["score_tiles", "patch_gradients", "bag_gradients"] * 2 + [
        "score_tiles"
    ]
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves)


def test_int8_scores_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, items = vectors([3, 0, 2]), vectors([5, 7])
    with second_device(monkeypatch) as found:
        maxsim(texts, items, dtype=torch.int8)
        MultiVectors.to(texts.quantize(), dtype=torch.float32)
    assert found.places == []
    assert found.kernels == ["score_tiles"]


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.uint8])
def test_a_scan_does_not_wait(monkeypatch: pytest.MonkeyPatch, stored: torch.dtype) -> None:
    from bagformer_cli.interaction.kernels.cuda.scan import DeviceBlock, scan

    queries = MultiVectors(torch.randn(3, 16), torch.tensor([0, 2, 3]))
    products = vectors([4, 0, 7], dtype=torch.bfloat16)
    if stored == torch.uint8:
        book = Codebook(torch.zeros(4, 16), torch.zeros(15), torch.zeros(16))
        codes = torch.empty(11, 10, dtype=torch.uint8, device=META)
        products = MultiVectors(codes, products.offsets, None, book)
    chosen = torch.zeros(2, dtype=torch.int64, device=META)
    with second_device(monkeypatch) as found:
        block = DeviceBlock.of(products)
        found.places.clear()  # opening may wait
        assert scan(queries, block).shape == (2, 3)
        assert scan(queries, block, chosen).shape == (2, 2)
    assert found.places == []
    assert found.kernels == ["scan_tiles" if stored == torch.bfloat16 else "scan_codes"] * 2


def test_what_a_gpu_would_refuse_or_wait_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from bagformer_cli.interaction.kernels.cuda import planes

    texts, items = vectors([3, 2]), vectors([5])
    with second_device(monkeypatch) as found:
        monkeypatch.setattr(planes, "to_device", lambda tensor, device: tensor.to(device))
        maxsim(texts, items)
        assert [place.partition(" ")[2] for place in found.places] == ["_to_copy from the host"] * 2
        monkeypatch.setattr(planes, "to_device", lambda tensor, device: tensor)
        found.places.clear()
        with pytest.raises(RuntimeError, match="same device"):
            maxsim(texts, items)
        assert any("index_select of both" in place for place in found.places)
