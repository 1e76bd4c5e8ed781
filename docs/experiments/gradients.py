"""Measure whether the gradients of ITC and of late interaction agree in the weights they share.

Prints, for each part of a trained model, the norm of either loss's gradient and the cosine between
the two gradients, averaged over batches of the training set. ``interactions.py`` trains the models
of docs/methods.md; any other model with late interaction will do.

    python docs/experiments/gradients.py runs/interactions/bagwise-0/run/last
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from bagformer_cli.config import load_config
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.progress import SILENT
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import make_trainer
from trials import markdown_table

PARTS = {
    "text tower": "dual.text_encoder.",
    "image tower": "dual.vision_encoder.",
    "projection of titles": "dual.text_proj.",
    "projection of images": "dual.vision_proj.",
}


def main() -> None:
    """Measure the gradients and print one row for each part of the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder, such as RUN/last")
    parser.add_argument("--batches", type=int, default=8, help="batches to average (default: 8)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(options.model / "config.yaml")
    config.objectives.itc = config.objectives.late_interaction = 1.0
    config.training.checkpoint = str(options.model)
    model = new_model(config)
    store = ensure_store(resolve(config.data.dataset).path, model.titles, workers=1)
    folder = options.model.parent / "gradients"
    trainer = make_trainer(model, config, store, folder, False, SINGLE_PROCESS, SILENT)
    task, batches = trainer.task, trainer.batches.iterate(0)
    task.train()
    means = {part: [0.0, 0.0, 0.0] for part in PARTS}  # both norms, the cosine
    for _ in range(options.batches):
        losses = task(next(batches)).losses
        both = [
            _gradients(task.model, losses[name]) for name in ("itc_loss", "late_interaction_loss")
        ]
        for part, prefix in PARTS.items():
            a, b = (torch.cat([v for n, v in one.items() if n.startswith(prefix)]) for one in both)
            cosine = torch.nn.functional.cosine_similarity(a, b, dim=0)
            for i, figure in enumerate((a.norm(), b.norm(), cosine)):
                means[part][i] += float(figure) / options.batches
    header = ["part", "norm, ITC", "norm, late interaction", "cosine"]
    rows = [
        [part, f"{a:.2f}", f"{b:.2f}", f"{cosine:+.2f}"] for part, (a, b, cosine) in means.items()
    ]
    print("\n".join(markdown_table(header, rows)))


def _gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Back-propagate one loss; return the gradient of each weight as one dimension, by name."""
    model.zero_grad()
    torch.autograd.backward(loss, retain_graph=True)
    return {
        name: weight.grad.flatten().clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


if __name__ == "__main__":
    main()
