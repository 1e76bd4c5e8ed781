"""Rank a small pool of images with cross-encoders alone, and with the fast dual encoder.

Thinking Fast and Slow claims that a captioner ranks a pool better than a fast dual encoder, and
better than the same cross-encoder with a matching loss. Both claims are measured on a small drawn
set, because every pair passes the cross-encoder. All models read the regions of one backbone and
train for the same number of steps. ``fast`` and ``captioner`` are those of methods.py, which are
not trained again if ``--out`` has them. ``--page`` replaces the table of docs/methods.md.

    xmr demo                        # trains the backbone, runs/demo
    python docs/experiments/slow_models.py --backbone runs/demo --page docs/methods.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from bagformer_cli.config import EvaluationConfig
from bagformer_cli.data.regions import write_regions
from bagformer_cli.data.store.split import Split
from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.demo import write_demo
from bagformer_cli.evaluation.evaluate import EvaluationOptions, Reranker, evaluate
from bagformer_cli.models.backbone_regions import grid_regions
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import find_checkpoint
from methods import METHODS
from region_trials import SLOWER, Method, Trials, add_training_options, prepare
from trials import markdown_table, replace_section

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
# Row of the table: its cross-encoder. Without one the dual encoder ranks.
RANKED_BY: dict[str, str | None] = {
    "fast": None,
    "captioner": "captioner",
    "the same with a matching loss": "matching head",
}
DEMO_IMAGES, DEMO_VALID_IMAGES = 3000, 640


def write_pool(folder: Path, images: int, backbone: RetrievalModel) -> None:
    """Draw a set that no training has seen, with the regions of the backbone.

    Args:
        folder: Folder of the set; what exists in it is kept.
        images: Images of its validation split, roughly.
        backbone: The model whose grid cells are the regions.
    """
    if not folder.is_dir():
        total = images * DEMO_IMAGES // DEMO_VALID_IMAGES
        write_demo(folder, images=total, seed=1, workers=1)
    path = folder / "MR_valid_regions.tsv"
    if not path.is_file():
        store = ensure_store(folder, backbone.titles, workers=1, splits=["valid"])
        write_regions(path, grid_regions(backbone, store.split("valid")))


def rank_pool(
    trials: Trials, fast: RetrievalModel, cross_encoder: str | None, pool: Split, seed: int
) -> list[str]:
    """Rank the whole pool in both directions.

    Args:
        trials: The trained models.
        fast: The dual encoder.
        cross_encoder: Method whose cross-encoder scores every pair; None: the dual encoder alone.
        pool: The images and queries.
        seed: Seed of the trials.

    Returns:
        Cells of the table: mean recall in both directions in percent, and CPU seconds.
    """
    started = time.process_time()
    reranker = None
    if cross_encoder is not None:
        slow = load_model(trials.folder(cross_encoder, seed) / "best")
        reranker = Reranker(slow, pool)
    everything = max(len(pool.image_ids), len(pool.query_ids))
    settings = EvaluationConfig(candidates=everything)
    found = evaluate(fast, pool, settings, EvaluationOptions(reranker=reranker))
    stage = found.stages["recall" if reranker is None else "rerank"]
    recalls = [100 * stage[side].mean for side in ("text_to_image", "image_to_text")]
    return [f"{value:.1f}" for value in (*recalls, time.process_time() - started)]


def main() -> None:
    """Train what is missing, score the pool, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_options(parser)
    parser.add_argument("--images", type=int, default=200, help="images to rank (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the trainings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve(options.dataset).path
    prepare(data, options.backbone)
    trials = Trials(options.out, data, MODELS, options.steps)
    for name in RANKED_BY.values():
        trials.run(name or "fast", options.seed)
    pool = options.out / "pool"
    write_pool(pool, options.images, load_model(find_checkpoint(options.backbone)))
    fast = load_model(trials.folder("fast", options.seed) / "best")
    valid = ensure_store(pool, fast.titles, workers=1, splits=["valid"]).split("valid")
    header = ["ranked by", "text to image", "image to text", "seconds for the pool"]
    rows = [
        [row, *rank_pool(trials, fast, name, valid, options.seed)]
        for row, name in RANKED_BY.items()
    ]
    images, queries = len(valid.image_ids), len(valid.query_ids)
    lines = [
        f"{images} images, {queries} queries, {options.steps} steps each:",
        "",
        *markdown_table(header, rows),
    ]
    if options.page is not None:
        replace_section(options.page, "slow_models", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
