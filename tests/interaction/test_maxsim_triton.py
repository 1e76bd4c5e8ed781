"""The CUDA kernels: in Triton's interpreter everywhere, and with marker ``gpu`` on a device."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bagformer_cli.interaction import MultiVectors, maxsim


@pytest.mark.slow
def test_the_kernels_pass_their_tests_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(Path(__file__).parents[1] / "support" / "interpreted_triton.py")],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}
"""Most shared memory of a block in bytes, by compute capability (CUDA programming guide)."""

KINDS = {
    "*i64": "titles patch_starts arg_starts chosen",
    "*i32": "group_starts counts slot nth owners",
    "*i16": "arg_patch",
    "*u8": "arg_bag codes",
    "*fp16": "even_bags odd_bags even_centroids odd_centroids",
    "*fp32": "title_scale image_scale t2i i2t tops grad_t2i grad_i2t out parts query_scale "
    "product_scale weights",
    "i32": "groups groups_each N Q P R D arg_columns blocks slots images_each count steps HALF "
    "CENTROIDS",
}
"""Types of the kernels' arguments; ``bags`` and ``patches`` have the type of the case."""

SCORE = {"IMAGES": 1, "UNIFORM": 257, "EVEN": True, "BOTH": True, "SEVERAL": False}
SCAN = {"IMAGES": 2, "LENGTH": 32, "UNIFORM": 32, "EVEN": True, "CHOSEN": False}


def default_sizes(kernel: str, capability: int, stored: str) -> tuple[dict[str, Any], int]:
    """Return a kernel's constants for 257 patches (scan: 32) of 256 dimensions, and its warps.

    Args:
        kernel: Its name.
        capability: The compute capability.
        stored: Type of the vectors; ``argmax``: with it; ``small``: 16 dimensions; ``wide``: scans
            of 128 bags; ``by bf16``: multiplied as three products of bfloat16.
    """
    from bagformer_cli.interaction.kernels.cuda import settings

    name = {"fp32": "float32", "bf16": "bfloat16", "i8": "int8"}.get(stored.split()[0], "")
    generation, products = capability // 10, "bf16x3" if "by bf16" in stored else "tf32x3"
    if kernel == "score_tiles":
        argmax = "argmax" in stored
        suffix = " with argmax" if argmax else ""
        tile = settings.SCORES[generation, name + suffix][0]
        dimension = 16 if stored.endswith("small") else 256, getattr(torch, name)
        constants = SCORE | {
            "TITLES": 64, "LENGTH": tile.columns, "EXTRA": 16,
            "DEPTH": tile.depth or settings.least_depth(*dimension),
            "KEEP": not tile.depth, "ARGMAX": argmax, "INTEGER": name == "int8",
        }  # fmt: skip
        return constants | {"STAGES": tile.stages, "FLOAT32": products}, tile.warps
    if kernel.endswith("gradients"):
        tile = settings.GRADIENTS[generation, name][0]
        constants = {"ROWS": tile.rows, "INNER": tile.inner, "DEPTH": tile.depth, "EVEN": True}
        constants |= {"UNIFORM": 257, "STAGES": tile.stages, "FLOAT32": products}
        return constants, tile.warps
    columns, queries = (128, 16) if stored.endswith("wide") else (16, 1)
    kind = "wide" if columns == 128 else "narrow" if kernel == "scan_tiles" else "codes"
    tile = settings.SCANS[kind][0]
    constants = SCAN | {"COLUMNS": columns, "QUERIES": queries, "STAGES": tile.stages}
    if kernel == "scan_tiles":
        return constants | {"DEPTH": 256, "KEEP": True, "SCALED": name == "int8"}, tile.warps
    return constants | {"DEPTH": 128, "UNIT": True}, tile.warps


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("file", "name", "stored"),
    [
        ("score_tiles", "score_tiles", "bf16"),
        ("score_tiles", "score_tiles", "i8"),
        ("score_tiles", "score_tiles", "fp32"),
        ("score_tiles", "score_tiles", "bf16 argmax"),
        ("score_tiles", "score_tiles", "fp32 argmax"),
        ("score_tiles", "score_tiles", "fp32 argmax by bf16"),
        ("score_tiles", "score_tiles", "i8 small"),
        ("gradient_tiles", "patch_gradients", "bf16"),
        ("gradient_tiles", "patch_gradients", "fp32"),
        ("gradient_tiles", "patch_gradients", "fp32 by bf16"),
        ("gradient_tiles", "bag_gradients", "bf16"),
        ("gradient_tiles", "bag_gradients", "fp32"),
        ("gradient_tiles", "bag_gradients", "fp32 by bf16"),
        ("scan_tiles", "scan_tiles", "bf16"),
        ("scan_tiles", "scan_tiles", "i8"),
        ("scan_tiles", "scan_tiles", "bf16 wide"),
        ("scan_tiles", "scan_codes", "u8"),
    ],
)
def test_the_default_tiles_compile_to_tensor_core_instructions_without_a_device(
    capability: int, file: str, name: str, stored: str
) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(
        importlib.import_module(f"bagformer_cli.interaction.kernels.cuda.{file}"), name
    )
    constants, warps = default_sizes(name, capability, stored)
    kinds = {arg: kind for kind, args in KINDS.items() for arg in args.split()}
    kinds |= dict.fromkeys(("bags", "patches"), f"*{stored.split()[0]}")
    kinds |= dict.fromkeys(constants, "constexpr")
    # As at run time: pointers and the dimension are multiples of 16, so that loads are wide.
    wide = [
        n for n, arg in enumerate(kernel.arg_names) if kinds[arg][0] == "*" or arg in "D HALF R"
    ]
    source = ASTSource(
        fn=kernel,
        signature={arg: kinds[arg] for arg in kernel.arg_names},
        constexprs={(kernel.arg_names.index(arg),): value for arg, value in constants.items()},
        attrs={(n,): [["tt.divisibility", 16]] for n in wide},
    )
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in compiled.asm["ptx"]
    assert compiled.metadata.shared <= SHARED_MEMORY[capability]


def test_large_work_gets_the_fastest_tile_and_gradients_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another tile adds in another order: a resumed training would not get the same bits."""
    pytest.importorskip("triton")
    from bagformer_cli.interaction.kernels.cuda import settings

    default, fast, broken = (settings.ScanTile(rows, 4, 2) for rows in (16, 32, 64))
    duration = {default: 2.0, fast: 1.0}
    ran = []

    class Event:
        def record(self) -> None:
            pass

        synchronize = record

        def elapsed_time(self, _: object) -> float:
            return 1000 * duration[ran[-1]]

    def run(tile: settings.ScanTile) -> None:
        if tile == broken:
            raise RuntimeError("out of shared memory")
        ran.append(tile)

    monkeypatch.setattr(settings, "_event", Event)
    monkeypatch.setattr(settings, "_chosen", {})
    monkeypatch.setattr(settings, "TIMES", {})
    tiles = [default, fast, broken]
    assert settings.fastest("small", tiles, 1e9, run) == default
    assert settings.fastest("gradients", tiles, 1e15, run, gradients=True) == default
    assert ran == []
    assert settings.fastest("large", tiles, 1e12, run) == fast
    assert settings.fastest("large", tiles, 1e12, run) == fast
    assert {"large": {default: 2.0, fast: 1.0, broken: float("inf")}} == settings.TIMES
    with settings.all_timed(1e9):
        assert settings.fastest("gradients", tiles, 1e9, run, gradients=True) == fast
    assert settings.fastest("others", tiles, 1e15, run, gradients=True) == default


def test_float32_is_multiplied_by_bfloat16_only_where_torch_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")
    from triton.backends.nvidia.compiler import CUDAOptions

    from bagformer_cli.interaction.kernels.cuda import settings
    from bagformer_cli.training.arithmetic import training_arithmetic

    monkeypatch.setattr(settings, "INTERPRETED", False)
    assert settings.float32_products() == "tf32x3"
    with training_arithmetic(deterministic=False):
        assert settings.float32_products() == "bf16x3"
        monkeypatch.setattr(CUDAOptions, "allowed_dot_input_precisions", ("tf32", "tf32x3"))
        assert settings.float32_products() == "tf32x3"  # Triton before 3.5
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_vectors_of_checks_have_exact_products_and_equal_maxima() -> None:
    """So float64 and a kernel find the same argmax; those of random vectors may be too near."""
    pytest.importorskip("triton")
    from bagformer_cli.bench.gpu_checks import coarse_vectors

    device = torch.device("cpu")
    texts, images = (coarse_vectors([3, 40], 256, n, device).values for n in (0, 1))
    exact = texts.double() @ images.double().T
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(texts.to(dtype).float(), texts)
        assert torch.equal((texts @ images.T).double(), exact)
    assert len(exact.unique()) < exact.numel() / 2
    assert 0.8 < float(texts.norm(dim=1).mean()) < 1.2


def vectors(lengths: list[int], seed: int, dim: int = 256) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.gpu
def test_on_a_device_scores_and_gradients_equal_the_cpu() -> None:
    from bagformer_cli.bench.gpu_checks import coarse_vectors
    from bagformer_cli.interaction.kernels import cuda

    device_0 = torch.device("cuda", torch.cuda.current_device())
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        assert cuda.works(device_0, dtype)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 26, (64,), generator=generator).tolist()
    # Products that are exact have the same argmax everywhere. Of 1.1 million maxima of random
    # vectors, about five are nearer to the second than 1e-7.
    texts = coarse_vectors(lengths, 256, 0, torch.device("cpu"))
    images = coarse_vectors([257] * 64, 256, 1, torch.device("cpu"))
    results = []
    for device in ("cpu", "cuda"):
        bags = texts.values.to(device).requires_grad_()
        patches = images.values.to(device).requires_grad_()
        t2i, i2t = maxsim(MultiVectors(bags, texts.offsets), MultiVectors(patches, images.offsets))
        (t2i.sigmoid().sum() + i2t.sigmoid().sum()).backward()
        results.append([x.cpu() for x in (t2i.detach(), i2t.detach(), bags.grad, patches.grad)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    texts, images = vectors(lengths, 0), vectors([257] * 64, 1)
    for dtype, tolerance in ((torch.bfloat16, 1e-2), (torch.int8, 1e-4)):
        there = maxsim(texts.to("cuda"), images.to("cuda"), dtype=dtype)
        for a, b in zip(there, maxsim(texts, images, dtype=dtype), strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("titles", "pictures", "dim"),
    [
        ([3, 1, 40, 17] * 40, [257, 1, 300, 0, 33] * 8, 256),
        ([5], [257] * 3, 256),
        ([2, 0, 300], [577], 100),
        ([4] * 3, [1] * 100_000, 64),
    ],
)
def test_on_a_device_gradients_equal_float64_in_every_run(
    dtype: torch.dtype, titles: list[int], pictures: list[int], dim: int
) -> None:
    from bagformer_cli.bench.gpu_checks import coarse_vectors
    from bagformer_cli.interaction.kernels import cuda, reference
    from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads

    device = torch.device("cuda")
    texts = coarse_vectors(titles, dim, 0, device).to(dtype=dtype)
    images = coarse_vectors(pictures, dim, 1, device).to(dtype=dtype)
    items = Packed(texts.values, images.values, texts.offsets, images.offsets)
    exact = Packed(items.bags.double(), items.patches.double(), *items[2:])
    t2i, i2t, argmax = cuda.forward(items, budget=1 << 30)
    true_t2i, true_i2t, true_argmax = reference.forward(exact, budget=1 << 30)
    torch.testing.assert_close(t2i, true_t2i.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(i2t, true_i2t.float(), rtol=1e-5, atol=1e-4)
    grads = ScoreGrads(torch.randn_like(t2i), torch.randn_like(i2t))
    doubled = ScoreGrads(grads.t2i.double(), grads.i2t.double())
    true = reference.backward(exact, true_argmax, doubled, budget=1 << 30)
    ours = cuda.backward(items, argmax, grads, budget=1 << 30)
    again = cuda.backward(items, argmax, grads, budget=1 << 30)
    for a, b, c in zip(ours, true, again, strict=True):
        error = (a.double() - b).norm() / b.norm().clamp_min(1e-9)
        assert error < (1e-4 if dtype == torch.float32 else 1e-2)
        assert torch.equal(a, c)
