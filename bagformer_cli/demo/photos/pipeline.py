"""The pipeline on real photographs: fetch, zero-shot, train, evaluate, index, search.

``xmr demo --photos`` prints the report of :func:`run_photos`.
"""

from __future__ import annotations

import time
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.store import Store
from bagformer_cli.demo.photos.fetch import photo_dataset
from bagformer_cli.demo.pipeline import INDEX, build_index
from bagformer_cli.evaluation.evaluate import evaluate
from bagformer_cli.evaluation.result import Evaluation
from bagformer_cli.index.search import SearchOptions
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import load_model, save_model
from bagformer_cli.models.class_names import project_classes
from bagformer_cli.models.convert.packaged import write_e5, write_lite2
from bagformer_cli.pages.search_results import QueryResults, write_page
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.from_config import build_titles
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


def run_photos(output_dir: Path, *, seed: int = 0, progress: Progress = SILENT) -> dict[str, Any]:
    """Search real photographs with pretrained towers: zero-shot first, then trained.

    Args:
        output_dir: Folder that gets ``models/`` (the two towers and the zero-shot model),
            ``data/photos``, a run under ``runs/``, and ``photos.html``. Folders that exist are
            used again.
        seed: Random seed of the training.
        progress: Receives the stages and their progress.

    Returns:
        The JSON object of ``xmr demo --photos --json``: ``rows`` holds the figures of the zero-shot
        and of the trained model.

    Raises:
        InputError: A package with weights is missing, or the photographs cannot be fetched.
        KeyboardInterrupt: The user stopped the training.
    """
    started = time.perf_counter()
    progress.info(tr("1  Reading pretrained towers from Python packages"))
    config = _config(output_dir, seed)
    progress.info(tr("2  Fetching the photographs"))
    dataset = MugeFolder(photo_dataset(output_dir / "data" / "photos", progress))
    store = preprocess(
        dataset, encoder=build_titles(config), workers=usable_cores(), progress=progress
    )
    progress.info(tr("3  Zero-shot: images are placed where the names of their classes are"))
    start = output_dir / "models" / "photos-zero-shot"
    if not start.exists():
        model = build_model(config)
        project_classes(model, class_names())
        save_model(model, start)
    model = load_model(start)
    rows = {"zero-shot": _evaluate(model, store, progress).to_json()}
    checkpoint = start
    if "train" in dataset.splits:
        checkpoint = _train(config, store, output_dir / "runs", start, progress) / "best"
        model = load_model(checkpoint)
        rows["trained"] = _evaluate(model, store, progress).to_json()
    progress.info(tr("5  Building an index of the product photos and searching it"))
    index = build_index(
        model, dataset.path, checkpoint.parent / f"photos-{INDEX}", checkpoint, progress, SPLIT
    )
    found = index.index.search_many(list(QUERIES), SearchOptions(k=HITS, thumbnails=True))
    results = [QueryResults(query, one.hits) for query, one in zip(QUERIES, found, strict=True)]
    write_page(output_dir / "photos.html", results)
    return {
        "dataset": str(dataset.path),
        "split": SPLIT,
        "rows": rows,
        "checkpoint": str(checkpoint),
        "index": str(index.folder),
        "page": str(output_dir / "photos.html"),
        "results": [
            {"query": one.query, "hits": [hit.to_json() for hit in one.hits]} for one in results
        ],
        "total_seconds": round(time.perf_counter() - started, 1),
    }


def class_names() -> list[str]:
    """Return Chinese names of the 1,000 classes of ImageNet, in the order of its classifiers."""
    names = resources.files("bagformer_cli.demo.photos") / "imagenet_zh.txt"
    return names.read_text(encoding="utf-8").split()


def _config(output_dir: Path, seed: int) -> RunConfig:
    """Write the towers where they are missing, and return ``real`` with their folders."""
    image, text = (output_dir / "models" / name for name in ("efficientnet-lite2", "e5-small"))
    if not image.exists():
        write_lite2(image)
    if not text.exists():
        write_e5(text)
    settings = {
        "seed": seed,
        "image.pretrained": image,
        "text.pretrained": text,
        "text.tokenizer": text,
        "data.dataset": output_dir / "data" / "photos",
    }
    return load_config("real", [f"{name}={value}" for name, value in settings.items()])


def _train(config: RunConfig, store: Store, runs: Path, start: Path, progress: Progress) -> Path:
    """Train the projections on the captions; return the run."""
    run = next(
        folder
        for number in count(1)
        if not (folder := runs / ("photos" if number == 1 else f"photos-{number}")).exists()
    )
    progress.info(tr("4  Training the projections on captions in {run}", run=run))
    config = config.model_copy(deep=True)
    config.training.checkpoint = str(start)
    model = new_model(config, progress=progress)
    result = start_run(config, store, run, model, template="real", progress=progress)
    if result.interrupted:
        raise KeyboardInterrupt
    return run


def _evaluate(model: RetrievalModel, store: Store, progress: Progress) -> Evaluation:
    return evaluate(model, store.split(SPLIT), model.config.evaluation, progress=progress)
