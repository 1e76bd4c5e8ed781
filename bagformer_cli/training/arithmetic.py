"""Arithmetic of a training: products of float32, and the order of sums on a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""With buffers of a fixed size, cuBLAS adds in the same order each time (NVIDIA's documentation of
cuBLAS, "Results Reproducibility"). Read when a process multiplies matrices first."""


@contextmanager
def training_arithmetic(*, deterministic: bool) -> Iterator[None]:
    """Compute as a training does, until the block ends.

    float32 matrices are multiplied by TF32 where the GPU has it.

    Args:
        deterministic: Use torch's deterministic algorithms; where an operation has none, torch
            warns.
    """
    precision = torch.get_float32_matmul_precision()
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_float32_matmul_precision("high")
    if deterministic and not before:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(before, warn_only=warned)
