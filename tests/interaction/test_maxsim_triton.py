"""The CUDA kernels: in Triton's interpreter everywhere, and with marker ``gpu`` on a device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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

POINTERS = {
    "*fp32": "title_scale image_scale t2i i2t grad_t2i grad_i2t grad_patches parts",
    "*i64": "bag_offsets patch_offsets titles",
    "*i32": "arg_patch arg_bag",
    "i32": "n_titles groups blocks per_part N Q P D G",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("name", "stored", "flags"),
    [
        ("_forward_kernel", "fp32", {"INTEGER": False, "ARGMAX": True}),
        ("_forward_kernel", "bf16", {"INTEGER": False, "ARGMAX": False}),
        ("_forward_kernel", "i8", {"INTEGER": True, "ARGMAX": False}),
        ("_grad_patches_kernel", "fp32", {}),
        ("_grad_bags_kernel", "fp32", {}),
    ],
)
def test_the_kernels_compile_to_tensor_core_instructions_without_a_device(
    capability: int, name: str, stored: str, flags: dict[str, bool]
) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bagformer_cli.interaction.kernels import cuda

    kernel = getattr(cuda, name)
    constants = {"LENGTH": 16, "TITLES": 4, "ROWS": 64, "DEPTH": 64} | flags
    kinds = {arg: kind for kind, args in POINTERS.items() for arg in args.split()}
    kinds |= {"bags": f"*{stored}", "patches": f"*{stored}"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={arg: kinds[arg] for arg in kernel.arg_names},
        constexprs={(kernel.arg_names.index(arg),): value for arg, value in constants.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in compiled.asm["ptx"]
    assert compiled.metadata.shared <= SHARED_MEMORY[capability]


def vectors(lengths: list[int], seed: int, dim: int = 256) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.gpu
def test_on_a_device_scores_and_gradients_equal_the_cpu() -> None:
    from bagformer_cli.interaction.kernels import cuda

    device_0 = torch.device("cuda", torch.cuda.current_device())
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        assert cuda.works(device_0, dtype)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 26, (64,), generator=generator).tolist()
    texts, images = vectors(lengths, 0), vectors([257] * 64, 1)
    results = []
    for device in ("cpu", "cuda"):
        bags = texts.values.to(device).requires_grad_()
        patches = images.values.to(device).requires_grad_()
        t2i, i2t = maxsim(MultiVectors(bags, texts.offsets), MultiVectors(patches, images.offsets))
        (t2i.sigmoid().sum() + i2t.sigmoid().sum()).backward()
        results.append([x.cpu() for x in (t2i.detach(), i2t.detach(), bags.grad, patches.grad)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for dtype, tolerance in ((torch.bfloat16, 1e-2), (torch.int8, 1e-4)):
        there = maxsim(texts.to("cuda"), images.to("cuda"), dtype=dtype)
        for a, b in zip(there, maxsim(texts, images, dtype=dtype), strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=tolerance, atol=tolerance)
