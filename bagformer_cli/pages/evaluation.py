"""The page of ``xmr eval --report``: figures with intervals, curves, kinds of queries, examples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli import __version__
from bagformer_cli.evaluation.dataset import EvaluatedFolder
from bagformer_cli.evaluation.details import (
    QueryDetail,
    RankedImage,
    answer_scores,
    extreme_queries,
    last_ranks,
)
from bagformer_cli.evaluation.metrics import KS, NO_POSITIVE
from bagformer_cli.evaluation.order_metrics import interval
from bagformer_cli.evaluation.query_kinds import Kind, query_kinds
from bagformer_cli.evaluation.result import Evaluation, name_of
from bagformer_cli.messages import tr
from bagformer_cli.outputs import write_output
from bagformer_cli.pages.charts import Series, histograms, recall_curves
from bagformer_cli.pages.html import data_uri, render
from bagformer_cli.pages.pair_maps import PairMaps
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Bag, Segmenter

THUMBNAIL = 200
"""Longer side in pixels of the images in the page."""

CURVE = 100
"""Largest k of the recall curves."""

DIRECTIONS = ("text_to_image", "image_to_text")


def write_evaluation_page(
    path: Path, evaluated: EvaluatedFolder, dataset: str, progress: Progress = SILENT
) -> None:
    """Write the page of an evaluation.

    Args:
        path: The file.
        evaluated: An evaluation of a whole split that kept its scores.
        dataset: The dataset's name.
        progress: Where progress is reported.
    """
    write_output(path, evaluation_page(evaluated, dataset, progress))


def evaluation_page(evaluated: EvaluatedFolder, dataset: str, progress: Progress = SILENT) -> str:
    """Return the page of an evaluation; see :func:`write_evaluation_page`."""
    found, split = evaluated.evaluation, evaluated.split
    bags = _bags(evaluated, list(split.texts))
    worst, best = extreme_queries(found, split)
    shown = _Shown(evaluated, bags)
    with progress.task(
        tr("Drawing examples"), len(worst) + len(best), tr("{n} queries", n="{n}")
    ) as task:
        blocks: list[list[dict[str, Any]]] = [[], []]
        for block, details in zip(blocks, (worst, best), strict=True):
            for detail in details:
                block.append(shown.query(detail))
                task.advance(1)
    kinds = query_kinds(split, bags, last_ranks(found), evaluated.folder)
    title = tr("Evaluation of {model}", model=evaluated.report["checkpoint"])
    return render(
        "evaluation.html",
        title=title,
        facts=_facts(evaluated, dataset),
        columns=[tr("direction"), tr("stage"), *_METRIC_NAMES, tr("mean recall")],
        rows=_figure_rows(found),
        interval_note=tr("In brackets: 95 % intervals, by the bootstrap over queries."),
        charts=[_curves(found), _score_histograms(found)],
        kinds_heading=tr("By kind of query"),
        kinds_columns=[tr("queries"), "R@1", "R@5", "R@10", tr("mean recall"), tr("95 % interval")],
        kinds=_kind_tables(kinds),
        examples=[
            (tr("Worst queries"), blocks[0]),
            (tr("Best queries"), blocks[1]),
        ],
        words={
            "wanted": tr("wanted"),
            "returned": tr("returned"),
            "rank": tr("rank of the right image"),
            "explain": tr("explain"),
        },
    )


_METRIC_NAMES = ["R@1", "R@5", "R@10", "nDCG@10", "MRR", "MAP"]


def _facts(evaluated: EvaluatedFolder, dataset: str) -> list[str]:
    report = evaluated.report
    facts = [
        tr(
            "{dataset} {split}: {queries} queries, {items} images",
            dataset=dataset,
            split=report["split"],
            queries=f"{report['n_queries']:,}",
            items=f"{report['n_items']:,}",
        ),
        f"xmr {__version__}",
        date.today().isoformat(),
    ]
    if evaluated.evaluation.beta is not None:
        facts.insert(1, tr("merged score = slow + {beta} × fast", beta=f"{report['beta']:g}"))
    return facts


def _figure_rows(found: Evaluation) -> list[list[str]]:
    """Return one row for each direction and stage, each figure with its interval, in percent."""
    directions = {"text_to_image": tr("text → image"), "image_to_text": tr("image → text")}
    stages = {"recall": tr("recall"), "rerank": tr("rerank"), "merged": tr("merged")}
    rows = []
    for direction in DIRECTIONS:
        for stage in found.stages:
            name = name_of(stage, direction)
            ranks = found.ranks[name]
            ranks = ranks[ranks != NO_POSITIVE]
            hits = [(ranks < k).astype(np.float64) for k in KS]
            order = found.orders[name]
            values = [
                *hits, order.ndcg, order.reciprocal_rank, order.average_precision,
                np.mean(hits, axis=0),
            ]  # fmt: skip
            bounds = interval(values)
            base, _, count = stage.partition("@")
            label = stages.get(base, base) + (f" @{count}" if count else "")
            figures = [_figure(one, own) for one, own in zip(values, bounds, strict=True)]
            rows.append([directions[direction], label, *figures])
    return rows


def _figure(values: NDArray[np.float64], bounds: tuple[float, float]) -> str:
    if not len(values):
        return "–"
    return f"{100 * values.mean():.1f} ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f})"


def _curves(found: Evaluation) -> Any:
    names = {"text_to_image": tr("text → image"), "image_to_text": tr("image → text")}
    series = []
    for direction, name in names.items():
        ranks = found.ranks[direction]
        ranks = ranks[ranks != NO_POSITIVE]
        ks = np.arange(1, min(CURVE, max(2, found.n_items)) + 1)
        shares = np.searchsorted(np.sort(ranks), ks) / max(1, len(ranks))
        series.append(Series(name, shares))
    return recall_curves(series, tr("k, images or titles looked at"), tr("recall@k, %"))


def _score_histograms(found: Evaluation) -> Any:
    right, other = answer_scores(found)
    series = [
        Series(tr("best right image"), right.astype(np.float64)),
        Series(tr("best other image"), other.astype(np.float64)),
    ]
    return histograms(series, tr("score (mean over the bags)"), tr("queries"))


def _kind_tables(kinds: Sequence[Kind]) -> list[tuple[str, list[list[str]]]]:
    tables: dict[str, list[list[str]]] = {}
    for kind in kinds:
        at = kind.recall.at
        lower, upper = kind.interval
        row = [
            kind.name,
            f"{kind.recall.n:,}",
            *(f"{100 * at[k]:.1f}" for k in KS),
            f"{100 * kind.recall.mean:.1f}",
            f"{100 * lower:.1f}–{100 * upper:.1f}",
        ]
        tables.setdefault(kind.family, []).append(row)
    return list(tables.items())


def _bags(evaluated: EvaluatedFolder, texts: list[str]) -> list[list[Bag]]:
    """Cut the queries into the bags that the model scores, or else into those of the dictionary."""
    model = evaluated.source.model
    if model is not None:
        titles: TitleEncoder = model.titles
        return titles.bags_batch(texts)
    segmenter = Segmenter(Lexicon.load())
    return segmenter.unpack(texts, segmenter.segment_batch(texts))


@dataclass(frozen=True)
class _ShownImage:
    """An image of a query, as the template reads it."""

    uri: str
    score: str
    right: bool
    maps: list[Any]


class _Shown:
    """Makes queries and images ready for the template; an image is decoded once."""

    def __init__(self, evaluated: EvaluatedFolder, bags: Sequence[Sequence[Bag]]) -> None:
        self._split, self._bags = evaluated.split, bags
        self._maps = PairMaps.of(evaluated.source.model, evaluated.split)
        self._uris: dict[int, str] = {}

    def query(self, detail: QueryDetail) -> dict[str, Any]:
        return {
            "text": detail.text,
            "id": detail.query_id,
            "rank": f"{detail.rank:,}",
            "bags": [bag.text for bag in self._bags[detail.position]],
            "answers": [self._image(detail, one) for one in detail.answers],
            "results": [self._image(detail, one) for one in detail.results],
        }

    def _image(self, detail: QueryDetail, image: RankedImage) -> _ShownImage:
        if image.position not in self._uris:
            self._uris[image.position] = _thumbnail(self._split.image(image.position))
        maps = [] if self._maps is None else self._maps.parts(detail.position, image.position)
        return _ShownImage(self._uris[image.position], f"{image.score:.3f}", image.right, maps)


def _thumbnail(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return data_uri(stream.getvalue())
