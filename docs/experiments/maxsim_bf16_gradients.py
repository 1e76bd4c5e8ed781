"""Measure the error of the contrastive loss's gradients in float32 and bfloat16, against float64.

Prints the relative error of the gradients of all vectors, for 64 random pairs: in float32, from
vectors rounded to bfloat16, and from the bfloat16 kernels. The kernels are computed on the CPU.
Products of bfloat16 numbers are exact in float32, so it computes what the CUDA kernels do; their
backward pass also rounds the gradients of the scores.

    python docs/experiments/maxsim_bf16_gradients.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads
from bagformer_cli.losses.contrastive import contrastive_loss

BUDGET = 1 << 28  # bytes of intermediate scores
PAIRS, PATCHES, DIM = 64, 257, 256
TEMPERATURE = 1.0


def gradients(bags: Tensor, patches: Tensor, load: Workload, *, rounded: bool) -> Tensor:
    """Compute the gradients of the loss of all pairs.

    Args:
        bags: [G, D] vectors of all titles.
        patches: [P, D] vectors of all images.
        load: Offsets of titles and images.
        rounded: Round the gradients of the scores to bfloat16, as the kernels do.

    Returns:
        [G + P, D] gradients of the vectors.
    """
    vectors = Packed(bags, patches, load.texts.offsets, load.images.offsets)
    t2i, i2t, argmax = reference.forward(vectors, budget=BUDGET)
    leaves = t2i.to(bags.dtype).requires_grad_(), i2t.to(bags.dtype).requires_grad_()
    positives = torch.eye(PAIRS, dtype=torch.bool)
    loss = contrastive_loss(*leaves, positives, TEMPERATURE)
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    if rounded:
        grads = [grad.bfloat16().to(grad.dtype) for grad in grads]
    return torch.cat(reference.backward(vectors, argmax, ScoreGrads(*grads), budget=BUDGET))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the relative error of each type."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    load = Workload.make(PAIRS, PAIRS, PATCHES, DIM)
    noise = 0.35 * torch.randn(len(load.texts.values), DIM, generator=torch.Generator())
    # A title's bags resemble patches of its own image, as in a model that has learned something.
    owner = reference.owners(load.texts.offsets, torch.device("cpu"))
    own = load.images.values[load.images.offsets[owner] + torch.arange(len(owner)) % PATCHES]
    bags = torch.nn.functional.normalize(own + noise / 16, dim=1)
    patches = load.images.values
    exact = gradients(bags.double(), patches.double(), load, rounded=False)
    a, b = bags.bfloat16(), patches.bfloat16()
    for name, found in {
        "float32": gradients(bags, patches, load, rounded=False),
        "vectors rounded to bfloat16, then float64": gradients(
            a.double(), b.double(), load, rounded=False
        ),
        "bfloat16 kernels": gradients(a.float(), b.float(), load, rounded=True),
    }.items():
        error = (found.double() - exact).norm() / exact.norm()
        print(f"{name:45s} {float(error):.1e}")


if __name__ == "__main__":
    main()
