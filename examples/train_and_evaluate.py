"""Train a model on drawn products, then measure its recall. Two minutes on two cores.

    python examples/train_and_evaluate.py [STEPS]

Writes data/demo (the first time) and runs/example, which the other examples read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bagformer_cli.config import load_config
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.dataset import evaluate_folder
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import start_run


def main() -> None:
    """Train, evaluate, print."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    config = load_config("demo", [f"training.max_steps={steps}", "training.evaluate_every=120"])
    dataset = resolve("demo")  # your own: a folder that `xmr data import` wrote

    model = new_model(config)
    store = ensure_store(dataset, model.titles)  # titles are cut once, images kept for fast access
    result = start_run(config, store, Path("runs/example"), model)
    print(f"{result.steps} steps in {result.seconds:.0f} s, {result.pairs_per_second:.0f} pairs/s")

    # All images of the validation split are candidates of every query.
    found = evaluate_folder(dataset, result.run / "best")
    for stage, directions in found.report["stages"].items():
        recall = directions["text_to_image"]
        print(f"{stage}: R@1 {recall['recall@1']:.1f} %, mean {recall['mean_recall']:.1f} %")


if __name__ == "__main__":
    main()
