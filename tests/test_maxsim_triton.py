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


def test_the_kernels_pass_their_tests_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(Path(__file__).with_name("interpreted_triton.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def vectors(lengths: list[int], seed: int, dim: int = 256) -> MultiVectors:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=-1)
    return MultiVectors(values, torch.tensor([0, *lengths]).cumsum(0))


@pytest.mark.gpu
def test_on_a_device_scores_and_gradients_equal_the_cpu() -> None:
    from bagformer_cli.interaction import _triton

    assert _triton.works(torch.device("cuda", torch.cuda.current_device()))
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
