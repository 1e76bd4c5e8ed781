"""Compare gradients of the contrastive loss with float64: rounded vectors, and bfloat16 kernels.

    python docs/experiments/maxsim_bf16_gradients.py

Products of bfloat16 vectors are exact in float32, so the CPU computes what the CUDA kernels compute
from rounded vectors. The kernels' backward pass also rounds the gradients of the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bagformer_cli.bench.maxsim import Workload
from bagformer_cli.interaction.kernels import reference
from bagformer_cli.interaction.kernels.reference import Packed, ScoreGrads
from bagformer_cli.losses.contrastive import contrastive_loss

BUDGET = 1 << 28
PAIRS = 64
TEMPERATURE = 1.0


def gradients(bags: Tensor, patches: Tensor, load: Workload, *, rounded: bool) -> Tensor:
    """Return the gradients of all vectors [G + P, D]; ``rounded``: those of scores in bfloat16."""
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


def main() -> None:
    """Print the relative error of each way."""
    load = Workload.make(PAIRS, PAIRS, 257, 256)
    noise = 0.35 * torch.randn(len(load.texts.values), 256, generator=torch.Generator())
    # A title's bags resemble patches of its own image, as in a model that has learned something.
    owner = reference.owners(load.texts.offsets, torch.device("cpu"))
    own = load.images.values[load.images.offsets[owner] + torch.arange(len(owner)) % 257]
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
