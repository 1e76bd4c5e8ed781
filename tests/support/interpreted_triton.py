"""The CUDA kernels on the CPU, in Triton's interpreter: `test_maxsim_triton.py` runs this file.

The interpreter must be asked for before Triton is first imported, hence a process of its own.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bagformer_cli.interaction import MultiVectors
from bagformer_cli.interaction.device_images import DeviceImages
from bagformer_cli.interaction.kernels import cuda as kernels
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.cuda import launch, scan, settings
from bagformer_cli.interaction.kernels.cuda.scan import DeviceBlock
from bagformer_cli.interaction.kernels.cuda.settings import ScoreTile
from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads
from bagformer_cli.interaction.topk import topk
from bagformer_cli.vectors.residual_codes import Codebook

BUDGET = 1 << 24
CPU = torch.device("cpu")


def vectors(lengths: list[int], dim: int = 16, seed: int = 0) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


def packed(texts: MultiVectors, images: MultiVectors) -> Packed:
    return Packed(texts.values, images.values, texts.offsets, images.offsets)


def score(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype, both: bool = True):
    return kernels.scores(texts, images, dtype=dtype, both=both, budget=BUDGET)


def expected(texts: MultiVectors, images: MultiVectors, dtype: torch.dtype, both: bool = True):
    return reference.scores(texts, images, dtype=dtype, both=both, budget=BUDGET)


CASES = {
    "several blocks and a rest": ([3, 1, 4], [5, 70, 1], 16),
    "empty items": ([2, 0, 5], [0, 3, 34, 0], 16),
    "one vector each": ([1, 1], [1, 1, 1], 16),
    "dimension not a multiple of 16": ([3, 2], [5, 33], 23),
    "one title, one image": ([4], [20], 7),
    "one title without bags": ([0], [3], 16),
    "only empty images": ([2], [0, 0], 16),
    "more titles than slots": ([2] * 17, [3], 16),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_and_gradients_equal_float64(case: str) -> None:
    titles, pictures, dim = CASES[case]
    texts, images = vectors(titles, dim), vectors(pictures, dim, seed=1)
    items = packed(texts, images)
    exact = Packed(items.bags.double(), items.patches.double(), *items[2:])
    t2i, i2t, argmax = kernels.forward(items, budget=BUDGET)
    true_t2i, true_i2t, true_argmax = reference.forward(exact, budget=BUDGET)
    torch.testing.assert_close(t2i, true_t2i.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(i2t, true_i2t.float(), rtol=1e-5, atol=1e-5)
    grads = ScoreGrads(torch.randn_like(t2i), torch.randn_like(i2t))
    true_grads = ScoreGrads(grads.t2i.double(), grads.i2t.double())
    true = reference.backward(exact, true_argmax, true_grads, budget=BUDGET)
    found = kernels.backward(items, argmax, grads, budget=BUDGET)
    again = kernels.backward(items, argmax, grads, budget=BUDGET)
    for ours, theirs, twice in zip(found, true, again, strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)
        assert torch.equal(ours, twice)
    # One part of the images at a time gives other sums of the same numbers.
    apart = kernels.backward(items, argmax, grads, budget=1)
    torch.testing.assert_close(apart, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
@pytest.mark.parametrize("both", [True, False])
def test_other_types_in_one_and_in_both_directions(dtype: torch.dtype, both: bool) -> None:
    texts, images = vectors([3, 1, 7]), vectors([5, 40, 1], seed=1)
    found, true = score(texts, images, dtype, both), expected(texts, images, dtype, both)
    torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-5)


def test_parts_of_the_images_when_they_are_converted() -> None:
    texts, images = vectors([2, 1]), vectors([5, 3, 1], seed=1)
    found = kernels.scores(texts, images, dtype=torch.int8, both=True, budget=1)
    torch.testing.assert_close(found, expected(texts, images, torch.int8), rtol=1e-5, atol=1e-5)


def test_short_images_share_a_tile() -> None:
    columns = settings.Columns.best(torch.full((9,), 8), 32, join=True)
    assert columns.images == 2
    texts, images = vectors([3, 1]), vectors([8] * 3, seed=1)
    found = score(texts, images, torch.float32)
    torch.testing.assert_close(found, expected(texts, images, torch.float32), rtol=1e-5, atol=1e-5)


def test_dimensions_in_parts_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, images = vectors([3, 1], 40), vectors([20, 1], 40, seed=1)
    true = expected(texts, images, torch.float32)
    torch.testing.assert_close(score(texts, images, torch.float32), true, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(settings, "SMALL_SCORES", (ScoreTile(32, 0, 4, 2),))
    monkeypatch.setattr(launch, "INTERPRETED", False)  # it limits the depth
    torch.testing.assert_close(score(texts, images, torch.float32), true, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, not ours
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_affects_the_scores_of_its_own_item_only(value: float) -> None:
    texts, images = vectors([3, 1]), vectors([5, 2, 33], seed=1)
    true = expected(texts, images, torch.float32)
    images.values[1, 0] = value
    spoilt = torch.tensor([True, False, False])
    for ours, theirs, where in zip(
        score(texts, images, torch.float32), true, (spoilt, spoilt[:, None]), strict=True
    ):
        wanted = theirs.masked_fill(where, float("nan"))
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5, equal_nan=True)
    found = scan.scan(texts, DeviceBlock.of(images))
    torch.testing.assert_close(
        found, true[0].masked_fill(spoilt, float("nan")), rtol=1e-5, atol=1e-5, equal_nan=True
    )
    texts.values[3, 2] = value
    found = scan.scan(texts, DeviceBlock.of(images[1:]))
    assert found.isnan().tolist() == [[False, False], [True, True]]
    t2i, i2t = score(texts, images[1:], torch.float32)
    assert t2i.isnan().tolist() == i2t.T.isnan().tolist() == [[False, False], [True, True]]


def test_the_first_of_equals_wins() -> None:
    texts = MultiVectors.from_list([torch.ones(5, 4)])
    images = MultiVectors.from_list([torch.ones(70, 4)])
    argmax = kernels.forward(packed(texts, images), budget=BUDGET)[2]
    assert not argmax.patch.any()
    assert not argmax.bag.any()


def test_titles_of_more_than_255_bags_have_a_wider_argmax() -> None:
    texts, images = vectors([260]), vectors([3], seed=1)
    items = packed(texts, images)
    argmax = kernels.forward(items, budget=BUDGET)[2]
    assert argmax.bag.dtype == torch.int32
    _, _, true = reference.forward(items, budget=BUDGET)
    assert argmax.bag[0, :3].tolist() == true.bag[0].tolist()


@pytest.mark.parametrize("broken", ["kernel", "dimension"])
def test_a_search_goes_on_where_the_scan_does_not_run(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    texts, images = vectors([3, 1]), vectors([2] * 9, seed=1)
    stored = images.code(Codebook.train(images.values))
    monkeypatch.setattr(scan, "works", scan.works.__wrapped__)
    if broken == "kernel":
        monkeypatch.setattr(scan, "scan_tiles", None)  # as where nothing compiles
        stored = images
    else:
        monkeypatch.setattr(scan, "MAX_CODED_DIM", 8)
        monkeypatch.setattr(scan, "scan_codes", None)
    found, _ = DeviceImages(stored, CPU).topk(texts, 3)
    torch.testing.assert_close(found, topk(texts, stored, 3)[0], rtol=1e-2, atol=1e-2)


def test_the_self_check_does_not_depend_on_where_it_runs_first() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert launch.works.__wrapped__(CPU, torch.float32)
        assert scan.works.__wrapped__(CPU)


def test_each_kernel_agrees_with_plain_torch_in_the_self_check() -> None:
    for dtype in (torch.float32, torch.int8, torch.bfloat16):
        assert kernels.works(CPU, dtype)


# --------------------------------------------------------------------------------------- the scan


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "int8", "residual4"])
def test_a_scan_equals_plain_torch(stored: str) -> None:
    texts, images = vectors([3, 1, 0, 4], 24), vectors([5, 0, 17, 1, 20], 24, seed=1)
    if stored == "residual4":
        kept, queries = images.code(Codebook.train(images.values)), texts
    else:
        dtype = getattr(torch, stored)
        kept, queries = images.to(dtype=dtype), texts.to(dtype=dtype)
    exact = (queries.to(dtype=torch.float32), kept.to(dtype=torch.float32))
    true = expected(*exact, torch.float32, both=False)[0]
    tolerance = 3e-3 if stored == "residual4" else 1e-5  # decoded to float16
    for chosen in (None, torch.tensor([0, 4, 2])):
        found = scan.scan(texts, DeviceBlock.of(kept), chosen)
        wanted = true if chosen is None else true[:, chosen]
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("lengths", "dim"), [([4] * 9, 16), ([1] * 20, 7), ([3], 300)])
def test_a_scan_of_equal_lengths_and_odd_dimensions(lengths: list[int], dim: int) -> None:
    texts, images = vectors([5], dim), vectors(lengths, dim, seed=1)
    true = expected(texts, images, torch.float32, both=False)[0]
    found = scan.scan(texts, DeviceBlock.of(images))
    torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-5)


def test_a_scan_of_nothing() -> None:
    texts, images = vectors([2, 1]), vectors([0, 0, 0])
    assert scan.scan(texts, DeviceBlock.of(images)).tolist() == [[0.0] * 3] * 2
    none = scan.scan(texts, DeviceBlock.of(vectors([2])), torch.zeros(0, dtype=torch.int64))
    assert none.shape == (2, 0)


@pytest.mark.parametrize("max_bytes", [None, 150])
def test_a_search_on_the_device_uses_the_scan(
    max_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scan.works(CPU)  # asked before every search, once
    calls = []
    monkeypatch.setattr(scan, "scan", lambda *args, own=scan.scan: calls.append(1) or own(*args))
    texts, images = vectors([3, 1]), vectors([5, 2, 7, 1], seed=1).to(dtype=torch.int8)
    found = DeviceImages(images, CPU, max_bytes).topk(texts, 2, torch.tensor([0, 2, 3]))
    wanted = topk(texts, images, 2, dtype=torch.int8, candidates=torch.tensor([0, 2, 3]))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(calls) == (1 if max_bytes is None else 2)
