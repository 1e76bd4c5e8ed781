"""MaxSim against a slow, obvious oracle in float64, on every path of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bagformer_cli.bench.cpu_clock import extra_bytes
from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.avx512 import scores as avx512
from bagformer_cli.interaction.kernels.cpu import products, tiles
from bagformer_cli.interaction.kernels.reference import Packed
from bagformer_cli.interaction.maxsim import DTYPES, maxsim_blocks, score_texts
from tests.support.maxsim_oracle import Lengths, close, oracle, vectors


@pytest.fixture(params=["reference", "tiles", "small tiles", "registers", "small packs"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to compute, however small the input."""
    name: str = request.param
    monkeypatch.setattr(avx512, "usable", lambda *_, **__: name in ("registers", "small packs"))
    if name in ("registers", "small packs") and not all(map(avx512.supported, DTYPES)):
        pytest.skip("this processor does not have all AVX-512 instructions")
    if name == "small packs":
        monkeypatch.setattr(avx512, "_PACK_BYTES", 1)
        monkeypatch.setattr(avx512, "_TASK", 1)
    if name == "reference":
        monkeypatch.setattr(tiles, "kernels", lambda: None)
    else:
        monkeypatch.setattr(tiles, "MIN_PRODUCTS", 0)
    if name == "small tiles":
        monkeypatch.setattr(tiles, "_TILE_BYTES", 64)
        monkeypatch.setattr(tiles, "_TILE_BAGS", 5)
        monkeypatch.setattr(tiles, "_TILE_PATCHES", 8)
    return name


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SHAPES: list[tuple[Lengths, Lengths]] = [
    ([2], [3]),
    ([1, 1, 1], [1, 1]),
    ([3, 1, 7, 2], [5, 5, 5]),
    ([3, 1, 7, 2], [5, 2, 9, 1, 33]),
    ([3, 1, 4], [1, 1, 1, 1, 1]),
    ([2] * 9, [67] * 3),
    ([0, 3, 0], [0, 4, 2, 0]),
    ([0, 0], [0, 1]),
]


def test_a_worked_example() -> None:
    texts = MultiVectors.from_list([torch.tensor([[1.0, 0.0], [0.0, 1.0]])])
    images = MultiVectors.from_list(
        [torch.tensor([[0.5, 0.1], [0.2, 0.3], [-1.0, -2.0]]), torch.tensor([[-1.0, -0.25]])]
    )
    t2i, i2t = maxsim(texts, images)
    # Best patch of bag 0: 0.5, of bag 1: 0.3. Best bag of the patches: 0.5, 0.3, -1.
    torch.testing.assert_close(t2i, torch.tensor([[0.8, -1.25]]))
    torch.testing.assert_close(i2t, torch.tensor([[-0.2], [-0.25]]))


@pytest.mark.parametrize(("texts", "images"), SHAPES)
def test_every_shape_equals_the_oracle(path: str, texts: Lengths, images: Lengths) -> None:
    a, b = vectors(texts), vectors(images, seed=1)
    close(maxsim(a, b), oracle(a, b))
    close((score_texts(a, b),), oracle(a, b)[:1])


@pytest.mark.parametrize(("texts", "images"), SHAPES[:-1])  # the last has nothing to pass on
def test_gradients_equal_those_of_the_oracle(path: str, texts: Lengths, images: Lengths) -> None:
    a, b = vectors(texts), vectors(images, seed=1)
    grads = []
    for score, dtype in ((maxsim, torch.float32), (oracle, torch.float64)):
        bags = a.values.to(dtype, copy=True).requires_grad_()
        patches = b.values.to(dtype, copy=True).requires_grad_()
        t2i, i2t = score(MultiVectors(bags, a.offsets), MultiVectors(patches, b.offsets))
        weights = torch.linspace(-1, 2, t2i.numel(), dtype=dtype)
        ((t2i.flatten() * weights).sum() + (i2t.flatten() * weights).square().sum()).backward()
        grads.append((bags.grad, patches.grad))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_large_case_uses_compiled_loops_and_equals_the_oracle() -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(2, 26, (20,), generator=generator).tolist()
    texts, images = vectors(lengths, 32), vectors([65] * 30, 32, seed=1)
    assert len(texts.values) * len(images.values) >= tiles.MIN_PRODUCTS
    close(maxsim(texts, images), oracle(texts, images))


def test_the_first_of_equal_maxima_gets_the_gradient(path: str) -> None:
    # Small integers: every product is exact, so equal vectors are equal on every path.
    title = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    image = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, -3.0]])
    bags, patches = title.clone().requires_grad_(), image.clone().requires_grad_()
    t2i, i2t = maxsim(MultiVectors.from_list([bags]), MultiVectors.from_list([patches]))
    assert t2i.item() == 4
    assert i2t.item() == 6
    t2i.sum().backward()
    assert bags.grad.tolist() == [[2, 0], [2, 0], [0, 0]]
    assert patches.grad.tolist() == [[0, 1], [2, 0], [0, 0], [0, 0]]
    bags.grad = patches.grad = None
    i2t = maxsim(MultiVectors.from_list([bags]), MultiVectors.from_list([patches]))[1]
    i2t.sum().backward()
    assert bags.grad.tolist() == [[6, -3], [0, 0], [0, 0]]
    assert patches.grad.tolist() == [[1, 0], [1, 0], [1, 0], [1, 0]]


def test_scores_do_not_depend_on_other_items_or_their_order(path: str) -> None:
    texts, images = vectors([3, 1, 7, 2, 5]), vectors([5, 2, 9, 1, 33], seed=1)
    t2i, i2t = maxsim(texts, images)
    alone = maxsim(texts[2], images[4])
    torch.testing.assert_close(alone[0][0, 0], t2i[2, 4], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(alone[1][0, 0], i2t[4, 2], rtol=1e-6, atol=1e-6)
    order, other = [4, 0, 2, 1, 3], [1, 3, 0, 4, 2]
    shuffled = maxsim(texts.select(order), images.select(other))
    torch.testing.assert_close(shuffled[0], t2i[order][:, other], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(shuffled[1], i2t[other][:, order], rtol=1e-6, atol=1e-6)
    swapped = maxsim(images, texts)
    close(swapped, (i2t, t2i), 1e-6)


@pytest.mark.parametrize("budget", [1, 4096, 1 << 30])
def test_the_budget_changes_nothing_but_memory(path: str, budget: int) -> None:
    texts, images = vectors([3, 0, 7, 2]), vectors([5, 2, 9, 0, 33], seed=1)
    close(maxsim(texts, images, budget=budget), oracle(texts, images))
    parts = list(maxsim_blocks(texts, images, budget=budget))
    assert [p[0] for p in parts] == [0, *[p[1] for p in parts[:-1]]]
    assert parts[-1][1] == len(images)
    close((torch.cat([p[2] for p in parts], 1), torch.cat([p[3] for p in parts])),
          oracle(texts, images))  # fmt: skip
    leaf = texts.values.clone().requires_grad_()
    t2i, i2t = maxsim(MultiVectors(leaf, texts.offsets), images, budget=budget)
    (t2i.sum() + i2t.sum()).backward()
    expected = texts.values.double().requires_grad_()
    t2i, i2t = oracle(MultiVectors(expected, texts.offsets), images)
    (t2i.sum() + i2t.sum()).backward()
    torch.testing.assert_close(leaf.grad.double(), expected.grad, rtol=1e-5, atol=1e-5)


def test_negative_scores_are_not_beaten_by_padding(path: str) -> None:
    texts = MultiVectors.from_list([torch.ones(3, 4), torch.ones(1, 4)])
    images = MultiVectors.from_list([-torch.ones(2, 4), -2 * torch.ones(5, 4)])
    t2i, i2t = maxsim(texts, images)
    assert t2i.tolist() == [[-12, -24], [-4, -8]]
    assert i2t.tolist() == [[-8, -8], [-40, -40]]


def test_an_item_without_vectors_scores_zero_and_passes_no_gradient(path: str) -> None:
    leaf = vectors([2]).values.requires_grad_()
    texts = MultiVectors(leaf, torch.tensor([0, 0, 2]))
    t2i, i2t = maxsim(texts, vectors([0, 3], seed=1))
    assert t2i[0].tolist() == [0, 0]
    assert t2i[1, 0] == 0
    assert i2t[0].tolist() == [0, 0]
    (t2i[0].sum() + t2i[1, 0] + i2t[0].sum() + i2t[1, 0]).backward()
    assert not leaf.grad.any()
    nothing = maxsim(texts[:0], vectors([0, 3]))
    assert nothing[0].shape == (0, 2)
    assert nothing[1].shape == (2, 0)


def test_a_nan_affects_the_scores_of_its_own_item_only(path: str) -> None:
    texts, images = vectors([3, 1, 7]), vectors([5, 2, 9], seed=1)
    good = maxsim(texts, images)
    images.values[6, 3] = float("nan")  # in image 1
    for t2i, i2t in (maxsim(texts, images), maxsim_with_gradients(texts, images)):
        assert t2i[:, 1].isnan().all()
        assert i2t[1].isnan().all()
        torch.testing.assert_close(t2i[:, ::2], good[0][:, ::2], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(i2t[::2], good[1][::2], rtol=1e-6, atol=1e-6)


def maxsim_with_gradients(texts: MultiVectors, images: MultiVectors) -> tuple[Tensor, Tensor]:
    leaf = texts.values.clone().requires_grad_()
    t2i, i2t = maxsim(MultiVectors(leaf, texts.offsets), images)
    return t2i.detach(), i2t.detach()


def test_int8_and_bfloat16_agree_on_every_path(path: str) -> None:
    texts, images = vectors([3, 1, 7, 2]), vectors([5, 2, 9, 1, 33], seed=1)
    for dtype in (torch.bfloat16, torch.int8):
        expected = oracle(texts.to(dtype=dtype), images.to(dtype=dtype))
        close(maxsim(texts, images, dtype=dtype), expected, 1e-2)
        close(maxsim(texts.to(dtype=dtype), images.to(dtype=dtype)), expected, 1e-2)


def test_training_is_in_float32_whatever_the_type_and_autocast(path: str) -> None:
    texts, images = vectors([3, 1, 7]), vectors([5, 2, 9], seed=1)
    leaf = texts.values.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        t2i, i2t = maxsim(MultiVectors(leaf, texts.offsets), images)
        close(maxsim(texts, images), oracle(texts, images))
    expected = oracle(MultiVectors(leaf, texts.offsets), images)
    close((t2i, i2t), expected)
    t2i.sum().backward()
    assert leaf.grad.dtype == torch.bfloat16


def test_gradients_in_bfloat16_are_those_of_rounded_vectors_and_stay_float32(path: str) -> None:
    texts, images = vectors([3, 1, 7]), vectors([5, 2, 9], seed=1)
    leaf = texts.values.clone().requires_grad_()
    found = maxsim(MultiVectors(leaf, texts.offsets), images, dtype=torch.bfloat16)
    rounded = texts.values.bfloat16().float().requires_grad_()
    items = images.to(dtype=torch.bfloat16).to(dtype=torch.float32)
    expected = oracle(MultiVectors(rounded, texts.offsets), items)
    close(found, expected)
    (found[0].sum() + found[1].square().sum()).backward()
    (expected[0].sum() + expected[1].square().sum()).backward()
    assert leaf.grad is not None
    assert rounded.grad is not None
    assert leaf.grad.dtype == torch.float32
    torch.testing.assert_close(leaf.grad, rounded.grad, rtol=1e-4, atol=1e-4)


def test_only_the_side_that_requires_it_gets_a_gradient(path: str) -> None:
    texts, images = vectors([3, 1]), vectors([5, 2], seed=1)
    leaf = images.values.requires_grad_()
    maxsim(texts, MultiVectors(leaf, images.offsets))[0].sum().backward()
    assert leaf.grad.any()
    assert texts.values.grad is None


def test_inference_mode_works(path: str) -> None:
    with torch.inference_mode():
        texts, images = vectors([3, 1, 7]), vectors([5, 2, 9], seed=1)
        close(maxsim(texts, images), oracle(texts, images))
        images.values[0, 0] = float("nan")
        assert maxsim(texts, images)[0][:, 0].isnan().all()


@pytest.mark.usefixtures("threads")
def test_threads_change_neither_scores_nor_torchs_own_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(tiles, "_TILE_BYTES", 256)
    monkeypatch.setattr(tiles, "_TILE_BAGS", 8)
    texts, images = vectors([3, 1, 7, 2]), vectors([5, 2, 9, 1, 33] * 4, seed=1)
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        close(maxsim(texts, images[:1]), oracle(texts, images[:1]))
        close(maxsim_with_gradients(texts, images[:1]), oracle(texts, images[:1]))
        found.append(maxsim(texts, images))
        assert torch.get_num_threads() == count
    close(found[0], found[1], 1e-6)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]
    leaf = texts.values.clone().requires_grad_()
    maxsim(MultiVectors(leaf, texts.offsets), images)[1].sum().backward()
    expected = texts.values.double().requires_grad_()
    oracle(MultiVectors(expected, texts.offsets), images)[1].sum().backward()
    torch.testing.assert_close(leaf.grad.double(), expected.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("threads")
def test_an_error_on_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bags: Tensor, patches: Tensor, out: Tensor) -> Tensor:
        raise RuntimeError("no memory")

    broken = products.Product("broken", torch.float32, torch.float32, fails)
    monkeypatch.setattr(tiles, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(tiles, "product_for", lambda dtype: broken)
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="no memory"):
        maxsim(vectors([3, 1]), vectors([5, 2]))


def test_dimensions_devices_and_types_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same dimension"):
        maxsim(vectors([2], 8), vectors([2], 16))
    with pytest.raises(ValueError, match="same device"):
        maxsim(vectors([2]), vectors([2]).to("meta"))
    with pytest.raises(ValueError, match="float32, bfloat16 or int8"):
        maxsim(vectors([2]), vectors([2]), dtype=torch.float16)


def test_no_gradient_is_recorded_where_none_is_required() -> None:
    t2i, i2t = maxsim(vectors([2]), vectors([2]))
    assert not t2i.requires_grad
    leaf = vectors([2]).values.requires_grad_()
    with torch.no_grad():
        assert not maxsim(MultiVectors(leaf, torch.tensor([0, 2])), vectors([2]))[0].requires_grad
    assert not i2t.requires_grad


def test_tiles_and_reference_find_the_same_argmax() -> None:
    texts, images = vectors([3, 0, 7, 2]), vectors([5, 2, 0, 33], seed=1)
    packed = Packed(texts.values, images.values, texts.offsets, images.offsets)
    torch.testing.assert_close(
        tiles.forward(packed, budget=1 << 20), reference.forward(packed, budget=1 << 20)
    )


@pytest.mark.parametrize("compiled", [True, False])
def test_memory_does_not_grow_with_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    if not compiled:
        monkeypatch.setattr(tiles, "kernels", lambda: None)
    texts = vectors([10] * 40)
    images = vectors([16] * 10_000, seed=1).to(dtype=torch.bfloat16)
    results = 2 * 4 * len(texts) * len(images)  # 3 MiB
    all_products = 4 * len(texts.values) * len(images.values)  # 244 MiB
    budget = 8 << 20
    extra = extra_bytes(lambda: maxsim(texts, images, dtype=torch.float32, budget=budget))
    if extra is not None:  # known on Linux
        assert extra < results + 2 * budget < all_products / 10
