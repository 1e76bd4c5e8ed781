"""Score a whole pool with slow models alone: is the captioner better than the fast model?

Thinking Fast and Slow claims that a captioner ranks a pool better than a fast dual encoder, and
better than the same cross-encoder with a matching loss. Both claims are measured on a small drawn
set, because every pair passes the cross-encoder. All models read the regions of one backbone and
train for the same number of steps, as in methods.py.

    python docs/experiments/slow_models.py --backbone runs/demo --page docs/methods.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from bagformer_cli.config import EvaluationConfig
from bagformer_cli.data.regions import write_regions
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.demo import write_demo
from bagformer_cli.evaluation.evaluate import EvaluationOptions, Reranker, evaluate
from bagformer_cli.models.backbone_regions import grid_regions
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import find_checkpoint
from methods import METHODS
from region_trials import SLOWER, Method, Trials, prepare
from trials import replace_section

MODELS = METHODS | {
    "matching head": Method(
        "captioner",
        sets=(
            "model.cross={kind: matching, layers: 2}",
            "objectives.caption=0",
            "objectives.itm=1",
            "objectives.itm_negatives=random",
            SLOWER,
        ),
    ),
}
SLOW = {"captioner": "captioner", "the same with a matching loss": "matching head"}


def small_pool(folder: Path, images: int, backbone: RetrievalModel) -> Store:
    """Draw a set that no training has seen, with the regions of the backbone."""
    if not folder.is_dir():
        write_demo(folder, images=images * 3000 // 640, seed=1, workers=1)
    store = ensure_store(folder, backbone.titles, workers=1, splits=["valid"])
    path = folder / "MR_valid_regions.tsv"
    if not path.is_file():
        write_regions(path, grid_regions(backbone, store.split("valid")))
    return store


def main() -> None:
    """Train what is missing, score the pool, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument("--backbone", type=Path, default=Path("runs/demo"), help="makes regions")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of each training")
    parser.add_argument("--images", type=int, default=200, help="images of the pool")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="page that gets the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve(options.dataset).path
    prepare(data, options.backbone)
    trials = Trials(options.out, data, MODELS, options.steps)
    for trained in ("fast", *SLOW.values()):
        trials.run(trained, options.seed)
    backbone = load_model(find_checkpoint(options.backbone))
    small_pool(options.out / "pool", options.images, backbone)
    fast = load_model(trials.folder("fast", options.seed) / "best")
    store = ensure_store(options.out / "pool", fast.titles, workers=1, splits=["valid"])
    valid = store.split("valid")
    count = len(valid.image_ids)
    settings = EvaluationConfig(candidates=max(count, len(valid.query_ids)))
    lines = [
        f"{count} images, {len(valid.query_ids)} queries, {options.steps} steps each:",
        "",
        "| ranked by | text to image | image to text | seconds for the pool |",
        "|---|---|---|---|",
    ]
    ranked_by: dict[str, str | None] = {"fast": None, **SLOW}
    for row, name in ranked_by.items():
        started = time.process_time()
        reranker = None
        if name is not None:
            reranker = Reranker(load_model(trials.folder(name, options.seed) / "best"), valid)
        found = evaluate(fast, valid, settings, EvaluationOptions(reranker=reranker))
        stage = found.stages["recall" if name is None else "rerank"]
        t2i, i2t = (100 * stage[side].mean for side in ("text_to_image", "image_to_text"))
        seconds = time.process_time() - started
        lines.append(f"| {row} | {t2i:.1f} | {i2t:.1f} | {seconds:.1f} |")
    if options.page is not None:
        replace_section(options.page, "slow_models", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
