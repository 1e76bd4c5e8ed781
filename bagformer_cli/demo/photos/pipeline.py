"""The pipeline on real photographs: fetch, zero-shot, train, evaluate, index, search.

``xmr demo --photos`` prints the report of :func:`run_photos`.
"""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import Any

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.store import Store
from bagformer_cli.demo.photos.fetch import photo_dataset
from bagformer_cli.demo.photos.start import Start, choose_start
from bagformer_cli.demo.pipeline import INDEX, build_index
from bagformer_cli.evaluation.evaluate import evaluate
from bagformer_cli.evaluation.result import Evaluation
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.pages.search_results import QueryResults, write_page
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import start_run

SPLIT = "test"  # the product photos, held out
HITS = 6
QUERIES = (
    "笔记本电脑",
    "透气跑步鞋",
    "户外露营帐篷",
    "真皮沙发",
    "复古胶片相机",
    "多肉植物",
)


def run_photos(
    output_dir: Path, *, model: str | None = None, seed: int = 0, progress: Progress = SILENT
) -> dict[str, Any]:
    """Search real photographs with pretrained towers: zero-shot first, then trained.

    Args:
        output_dir: Folder that gets ``models/`` (the zero-shot model and what it is made of),
            ``data/photos``, a run under ``runs/``, and ``photos.html``. Models and photographs that
            are there are used again.
        model: A Chinese-CLIP to start from (hub name or folder), or ``packaged``; None: see
            :func:`~bagformer_cli.demo.photos.start.choose_start`.
        seed: Random seed of the training.
        progress: Receives the stages and their progress.

    Returns:
        The JSON object of ``xmr demo --photos --json``: ``rows`` holds the figures of the zero-shot
        and of the trained model.

    Raises:
        InputError: A package with weights is missing, or the photographs cannot be fetched.
        CheckpointError: The named Chinese-CLIP cannot be read or downloaded.
        KeyboardInterrupt: The user stopped the training.
    """
    started = time.perf_counter()
    progress.info(tr("1  Fetching the photographs (up to 200 MB, kept for the next time)"))
    dataset = MugeFolder(photo_dataset(output_dir / "data" / "photos", progress))
    progress.info(tr("2  Making a model of pretrained towers, without any training"))
    start = choose_start(model, output_dir, seed, progress)
    trained = load_model(start.folder)
    store = preprocess(dataset, encoder=trained.titles, workers=usable_cores(), progress=progress)
    progress.info(tr("3  Zero-shot: searching photographs that nothing was trained on"))
    rows = {"zero-shot": _evaluate(trained, store, progress).to_json()}
    checkpoint = start.folder
    if "train" in dataset.splits:
        checkpoint = _train(start, store, output_dir / "runs", progress) / "best"
        trained = load_model(checkpoint)
        rows["trained"] = _evaluate(trained, store, progress).to_json()
    progress.info(tr("5  Building an index of the product photos and searching it"))
    index = build_index(
        trained, dataset.path, checkpoint.parent / f"photos-{INDEX}", checkpoint, progress, SPLIT
    )
    found = index.index.search_many(list(QUERIES), SearchOptions(k=HITS, thumbnails=True))
    results = [QueryResults(query, one.hits) for query, one in zip(QUERIES, found, strict=True)]
    write_page(output_dir / "photos.html", results)
    return {
        "dataset": str(dataset.path),
        "split": SPLIT,
        "model": start.name,
        "rows": rows,
        "checkpoint": str(checkpoint),
        "index": str(index.folder),
        "page": str(output_dir / "photos.html"),
        "results": [
            {"query": one.query, "hits": [hit.to_json() for hit in one.hits]} for one in results
        ],
        "total_seconds": round(time.perf_counter() - started, 1),
    }


def _train(start: Start, store: Store, runs: Path, progress: Progress) -> Path:
    """Train the projections on the captions; return the run."""
    run = next(
        folder
        for number in count(1)
        if not (folder := runs / ("photos" if number == 1 else f"photos-{number}")).exists()
    )
    progress.info(tr("4  Training the projections on captions in {run}", run=run))
    model = new_model(start.config, progress=progress)
    result = start_run(start.config, store, run, model, template="real", progress=progress)
    if result.interrupted:
        raise KeyboardInterrupt
    return run


def _evaluate(model: RetrievalModel, store: Store, progress: Progress) -> Evaluation:
    return evaluate(model, store.split(SPLIT), model.config.evaluation, progress=progress)
