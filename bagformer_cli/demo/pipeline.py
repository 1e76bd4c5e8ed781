"""The whole pipeline on drawn data: draw, preprocess, pretrain, train, evaluate, score, search.

``xmr demo`` prints the report of :func:`run_demo`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bagformer_cli.api import Retriever, load
from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.catalogue.catalogue import open_catalogue
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.store.store import Store
from bagformer_cli.demo.generate import DRAWN_IMAGE, draw_once
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.attributes import first_image_accuracy
from bagformer_cli.evaluation.evaluate import EvaluationOptions, evaluate
from bagformer_cli.evaluation.reranking import save_beta
from bagformer_cli.evaluation.result import Evaluation
from bagformer_cli.files import atomic_file
from bagformer_cli.index.build import add_catalogue
from bagformer_cli.index.encode import EncodeOptions, layout_of
from bagformer_cli.index.engines import create_engine, open_engine
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.trust import remember_model
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.pages.search_results import QueryResults, write_page
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import resume_run, start_run

HITS = 6  # results of each example search
INDEX = "index"  # in the folder of the second run
EXAMPLES = 3  # titles that are searched for


def run_demo(
    output_dir: Path,
    *,
    seed: int = 0,
    settings: Sequence[str] = (),
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Run the whole pipeline once, in a few minutes on two cores and without any download.

    Args:
        output_dir: Folder that gets ``data/demo``, three runs under ``runs/``, ``image.jpg`` and
            ``search.html``. A dataset that is already there is used again.
        seed: Random seed of all trainings.
        settings: ``--set`` items for all trainings, for example ``training.max_steps=2``.
        progress: Receives the stages and their progress.

    Returns:
        The JSON object of ``xmr demo --json``: the figures of ``xmr eval --json``, and the objects
        ``example``, ``score`` and ``search``.

    Raises:
        KeyboardInterrupt: The user stopped a training; its run folder can be resumed.
    """
    started = time.perf_counter()
    progress.info(tr("1  Drawing product images and titles"))
    dataset = MugeFolder(draw_once(output_dir / "data" / "demo", progress))
    progress.info(tr("2  Cutting titles into entity bags, storing images"))
    encoder = build_titles(load_config("demo"))
    store = preprocess(dataset, encoder=encoder, workers=usable_cores(), progress=progress)
    run = _train(store, output_dir / "runs", [f"seed={seed}", *settings], progress)
    progress.info(tr("6  Evaluating on combinations that training never showed"))
    checkpoint = run / "best"
    retriever = load(checkpoint)
    split = store.split("valid")
    settings_of_merging = retriever.model.config.evaluation
    options = EvaluationOptions(tune_beta=retriever.model.can_rerank)
    evaluation = evaluate(retriever.model, split, settings_of_merging, options, progress)
    if evaluation.beta is not None:  # the search and `xmr eval` weigh as this table does
        settings_of_merging.beta = evaluation.beta
        save_beta(checkpoint, evaluation.beta, None)
    queries = _examples(evaluation)
    image = _write_image(split, int(evaluation.recalled[queries[0], 0]), output_dir / DRAWN_IMAGE)
    score = _score(retriever, image, _similar_titles(split, queries[0]))
    progress.info(tr("7  Building an index of the validation images and searching it"))
    index = build_index(retriever.model, dataset.path, run / INDEX, checkpoint, progress)
    titles = [str(split.texts[query]) for query in queries]
    search = _search(index, image, titles, output_dir / "search.html")
    return {
        "dataset": "demo",
        "split": "valid",
        **evaluation.to_json(),
        "attributes": first_image_accuracy(dataset.path, split, evaluation.best[:, 0]),
        "checkpoint": str(checkpoint),
        "example": {
            "query_id": int(split.query_ids[queries[0]]),
            "rank": 1 + int(evaluation.ranks["text_to_image"][queries[0]]),
        },
        "score": {**score, "checkpoint": str(checkpoint)},
        "search": search,
        "total_seconds": round(time.perf_counter() - started, 1),
    }


def _train(store: Store, runs: Path, settings: Sequence[str], progress: Progress) -> Path:
    """Pretrain on small images, train the towers, then a reranker on them; return the last run.

    The runs of a demo that was interrupted are continued.
    """
    for number in count(1):
        suffix = "" if number == 1 else f"-{number}"
        pretrained, towers = runs / f"demo-pretrained{suffix}", runs / f"demo-towers{suffix}"
        run = runs / f"demo{suffix}"
        folders = pretrained, towers, run
        configs = (
            load_config("pretrain_demo", settings),
            load_config("demo_towers", [f"training.checkpoint={pretrained / 'last'}", *settings]),
            load_config("rerank_demo", [f"training.checkpoint={towers / 'best'}", *settings]),
        )
        if not _has_index(run) and all(map(_is_free_or_same, folders, configs)):
            break
    messages = (
        tr("3  Pretraining on small images in {run}", run=pretrained),
        tr("4  Training a bag-wise model in {run}", run=towers),
        tr("5  Training a reranker on the frozen model in {run}", run=run),
    )
    templates = ("pretrain_demo", "demo_towers", "rerank_demo")
    for message, folder, config, template in zip(
        messages, folders, configs, templates, strict=True
    ):
        progress.info(message)
        if folder.exists():
            result = resume_run(config, store, folder, progress)
        else:
            model = new_model(config)
            result = start_run(config, store, folder, model, template=template, progress=progress)
        if result.interrupted:
            progress.info(tr("`{command}` continues from here.", command="xmr demo"))
            raise KeyboardInterrupt
    return run


def _has_index(run: Path) -> bool:
    """Say whether a run's index is complete: it is built after all trainings."""
    try:
        return (run / INDEX).exists() and not open_engine(str(run / INDEX)).incomplete
    except InputError:
        return False


def _is_free_or_same(folder: Path, config: RunConfig) -> bool:
    """Say whether a run folder does not exist, or holds a run of the same configuration."""
    if not folder.exists():
        return True
    path = folder / "config.yaml"
    try:
        return path.is_file() and load_config(path) == config
    except InputError:
        return False


def _examples(evaluation: Evaluation) -> list[int]:
    """Choose the queries to show: the first ones for which a right image ranks first.

    (The recall table says how many others there are.) Without such a query, those that rank best.
    """
    order = np.argsort(evaluation.ranks["text_to_image"], kind="stable")
    images: dict[int, int] = {}
    for query in order.tolist():  # one query of each image
        images.setdefault(int(evaluation.recalled[query, 0]), query)
        if len(images) == EXAMPLES:
            break
    return list(images.values())


def _write_image(split: Split, image: int, path: Path) -> Path:
    """Write an image of a split to a file."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(split.image_bytes(image))
    return path


def _similar_titles(split: Split, query: int) -> list[str]:
    """Return a query and two others with many of its characters but other right images."""
    items = [split.items[start:end] for start, end in pairwise(split.item_offsets.tolist())]
    own, right = str(split.texts[query]), set(items[query].tolist())
    others = {
        str(text)
        for text, images in zip(split.texts, items, strict=True)
        if not right & set(images.tolist())
    }
    return [own, *sorted(others - {own}, key=lambda text: (-len(set(text) & set(own)), text))[:2]]


def _score(retriever: Retriever, image: Path, titles: list[str]) -> dict[str, Any]:
    """Score the image against the titles."""
    scores = retriever.score(retriever.encode_images([image]), retriever.encode_texts(titles))
    return {
        "image": str(image),
        "titles": titles,
        "text_to_image": scores.t2i[:, 0].tolist(),
        "image_to_text": scores.i2t[0].tolist(),
        "text_to_image_mean": scores.t2i_mean[:, 0].tolist(),
        "image_to_text_mean": scores.i2t_mean[0].tolist(),
        "pooling": retriever.scoring.pooling,
        "bags": [retriever.bags(title) for title in titles],
    }


@dataclass(frozen=True)
class BuiltIndex:
    """An index and how long it took to build."""

    index: Index
    folder: Path
    rows: int
    seconds: float


def build_index(
    model: RetrievalModel,
    dataset: Path,
    folder: Path,
    checkpoint: Path,
    progress: Progress,
    split: str = "valid",
) -> BuiltIndex:
    """Index the products of a split; an older index in the folder is replaced."""
    started = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)  # of a demo that was interrupted meanwhile
    catalogue = open_catalogue(dataset, split=split)
    options = EncodeOptions()
    layout = layout_of(model, options, catalogue.attributes, str(checkpoint.resolve()))
    remember_model(checkpoint)
    engine = create_engine(str(folder), layout)
    added = add_catalogue(engine, model, catalogue, options, progress=progress)
    engine.optimize(progress)
    return BuiltIndex(Index(engine, model), folder, added.rows, time.perf_counter() - started)


def _search(built: BuiltIndex, image: Path, titles: list[str], page: Path) -> dict[str, Any]:
    """Search by the titles, by a title with a filter, and by the image; write the results page."""
    index = built.index
    by_title = index.search_many(titles, SearchOptions(k=HITS, thumbnails=True))
    colour = by_title[0].hits[0].attributes["colour"]
    where = f"colour = '{colour}'"

    filtered = index.search(titles[0], where=where, k=HITS, thumbnails=True)
    by_image = index.search(image=image, k=HITS, thumbnails=True)
    found = [QueryResults(title, one.hits) for title, one in zip(titles, by_title, strict=True)]
    found.append(QueryResults(f'{titles[0]}  --where "{where}"', filtered.hits))
    found.append(QueryResults(str(image), by_image.hits, image.read_bytes()))
    write_page(page, found)
    return {
        "index": str(built.folder),
        "rows": built.rows,
        "page": str(page),
        "results": [
            {"query": each.query, "hits": [hit.to_json() for hit in each.hits]} for each in found
        ],
        "plan": by_title[0].plan,
        "seconds": {"build": round(built.seconds, 3), **by_title[0].seconds},
    }
