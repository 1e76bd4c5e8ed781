"""MaxSim in bfloat16 and int8, and from registers, against the oracle in float64."""

from __future__ import annotations

import pytest
import torch

from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.interaction.kernels.avx512 import scores as avx512
from bagformer_cli.interaction.kernels.cpu import products, tiles
from bagformer_cli.interaction.maxsim import score_texts
from tests.support.maxsim_oracle import close, oracle, vectors


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("product", [products.BF16, products.FP32])
def test_bfloat16_rounds_its_input_and_at_most_each_product(
    monkeypatch: pytest.MonkeyPatch, product: products.Product, single: bool
) -> None:
    monkeypatch.setattr(tiles, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(tiles, "product_for", lambda dtype: product)
    texts = vectors([3, 1, 0, 7]).to(dtype=torch.bfloat16)
    images = vectors([1] * 6 if single else [5, 2, 33], seed=1).to(dtype=torch.bfloat16)
    t2i, i2t = oracle(texts, images)
    found = maxsim(texts, images)
    widened = product.tile == torch.float32
    close(found, (t2i, i2t), 1e-5 if widened else 2.0**-8 * 2)
    close(found, maxsim(texts.to(dtype=torch.float32), images, dtype=torch.bfloat16), 0)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("product", [products.INT8, products.FP32])
def test_int8_is_exact_in_the_integers(
    monkeypatch: pytest.MonkeyPatch, product: products.Product, single: bool
) -> None:
    monkeypatch.setattr(tiles, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(tiles, "product_for", lambda dtype: product)
    texts = vectors([3, 1, 0, 7]).quantize()
    images = vectors([1] * 6 if single else [5, 2, 33], seed=1).quantize()
    close(maxsim(texts, images), oracle(texts, images), 1e-6)
    close((score_texts(texts, images),), oracle(texts, images)[:1], 1e-6)


@pytest.mark.parametrize("product", [products.FP32, products.INT8, products.BF16])
def test_every_product_multiplies_a_tile(product: products.Product) -> None:
    bags = torch.randint(-9, 10, (7, 12)).to(product.operand)
    patches = torch.randint(-9, 10, (5, 12)).to(product.operand)
    tile = product.multiply(bags, patches, torch.empty(7, 5, dtype=product.tile))
    expected = bags.float() @ patches.float().T
    torch.testing.assert_close(tile.float(), expected.to(product.tile).float(), rtol=0, atol=0)


@pytest.fixture(params=["float32", "bfloat16", "int8"])
def register_type(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """A type that is scored in AVX-512 registers, however small the input."""
    dtype: torch.dtype = getattr(torch, request.param)
    if not avx512.supported(dtype):
        pytest.skip("this processor has no AVX-512 instructions for the type")
    monkeypatch.setattr(tiles, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(avx512, "usable", lambda *_, **__: True)
    return dtype


@pytest.mark.parametrize("dim", [16, 48, 64])
def test_scores_from_registers_equal_the_oracle(register_type: torch.dtype, dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 26, (2, 40), generator=generator).tolist()
    for few in (counts[0], [5], [20], [17, 0, 16], [25, 25], [16] * 5):  # 1 to 5 slots, and many
        texts = vectors(few, dim).to(dtype=register_type)
        images = vectors([37, *counts[1], 16, 8], dim, seed=1).to(dtype=register_type)
        close(maxsim(texts, images), oracle(texts, images), 1e-5)
        close((score_texts(texts, images),), oracle(texts, images)[:1], 1e-5)


@pytest.mark.parametrize("register_type", ["int8"], indirect=True)
def test_the_largest_integers_do_not_overflow(register_type: torch.dtype) -> None:
    ends = torch.tensor([127, -127], dtype=register_type)
    texts = MultiVectors(ends.repeat_interleave(256)[None].expand(20, 512).contiguous(),
                         torch.tensor([0, 20]), torch.ones(1))  # fmt: skip
    images = MultiVectors(torch.cat([texts.values[:9], -texts.values[:8]]),
                          torch.tensor([0, 9, 17]), torch.ones(2))  # fmt: skip
    highest = 127.0 * 127 * 512
    assert score_texts(texts, images).tolist() == [[20 * highest, -20 * highest]]


def test_candidates_score_as_among_all_images(register_type: torch.dtype) -> None:
    texts = vectors([3, 1, 7]).to(dtype=register_type)
    images = vectors([9, 0, 33, 8, 5], seed=1)
    candidates = torch.tensor([3, 0, 1, 3])
    for stored in (images, images.to(dtype=register_type)):
        expected = score_texts(texts, stored, dtype=register_type)[:, candidates]
        found = score_texts(texts, stored, dtype=register_type, candidates=candidates)
        torch.testing.assert_close(found, expected)
        none = score_texts(texts, stored, dtype=register_type, candidates=candidates[:0])
        assert none.shape == (3, 0)
    if register_type != torch.int8:
        images.values[4] = float("nan")  # of the first image
        found = score_texts(texts, images, dtype=register_type, candidates=candidates)
        assert found[:, 1].isnan().all()
        assert not found[:, [0, 2, 3]].isnan().any()


def test_registers_are_used_where_width_and_images_allow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(avx512, "supported", lambda dtype: True)
    monkeypatch.setattr(avx512, "_processor_has_amx", lambda dtype: False)
    texts, images = vectors([5] * 2), vectors([8] * 3)

    def usable(texts: MultiVectors, images: MultiVectors, both: bool = False) -> bool:
        return avx512.usable(texts, images, torch.bfloat16, both=both)

    assert usable(texts, images)
    assert not usable(texts, images, both=True)  # two of sixteen lanes
    assert usable(vectors([5] * 8), images, both=True)
    assert not usable(texts, vectors([1] * 9))  # one vector per image
    assert not usable(vectors([5], 9), vectors([8], 9))  # 18 bytes per vector
    assert not usable(vectors([0]), images)
    monkeypatch.setattr(avx512, "_processor_has_amx", lambda dtype: True)
    assert usable(texts, images)
    assert not usable(vectors([5] * 7), images)  # 35 bags
    monkeypatch.setattr(avx512, "supported", lambda dtype: False)
    assert not usable(texts, images)


def test_the_environment_switches_registers_off(
    register_type: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    texts, images = vectors([10]).to(dtype=register_type), vectors([40] * 900, seed=1)
    images, calls = images.to(dtype=register_type), []
    in_registers = avx512.scores
    monkeypatch.setattr(avx512, "scores", lambda *a, **k: calls.append(1) or in_registers(*a, **k))
    expected = score_texts(texts, images)
    assert calls == [1]
    monkeypatch.setenv("XMR_AVX512", "0")
    assert not avx512.supported(register_type)
    torch.testing.assert_close(score_texts(texts, images), expected, rtol=2e-2, atol=2e-2)
    assert calls == [1]


@pytest.mark.parametrize(
    ("dtype", "features", "expected"),
    [
        (torch.float32, ["avx512bf16", "avx512vnni"], products.FP32),
        (torch.bfloat16, ["avx512bf16"], products.BF16),
        (torch.bfloat16, ["amx-bf16"], products.BF16),
        (torch.bfloat16, ["avx512f"], products.FP32),
        (torch.int8, ["avx512vnni"], products.INT8),
        (torch.int8, ["avx2"], products.FP32),
    ],
)
def test_a_type_without_instructions_is_multiplied_as_float32(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    features: list[str],
    expected: products.Product,
) -> None:
    monkeypatch.setattr(
        "llvmlite.binding.get_host_cpu_features", lambda: dict.fromkeys(features, True)
    )
    assert products.product_for.__wrapped__(dtype) is expected
