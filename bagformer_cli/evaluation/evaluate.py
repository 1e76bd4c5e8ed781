"""A whole evaluation: encode both sides, recall, rerank, merge; figures in MUGE's terms.

Shapes: Q queries, N images, K candidates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.config import EvaluationConfig, RunConfig
from bagformer_cli.data.batches import image_batches, region_batches, text_batches
from bagformer_cli.data.regions import RegionFile
from bagformer_cli.data.split import Split
from bagformer_cli.evaluation.metrics import (
    Candidates,
    Positives,
    Recall,
    best_ranks,
    group_scores,
    merge_stages,
    recall,
    top_k,
)
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import EncodedItems, encode_images, encode_texts
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.progress import SILENT, Progress

DIRECTIONS = ("text_to_image", "image_to_text")
SUBMITTED = 10


@dataclass
class Evaluation:
    """What one evaluation found.

    Attributes:
        n_queries: Queries in the split.
        n_items: Images in the pool.
        stages: ``recall`` and, with a slow scorer, ``rerank`` and ``merged``: each direction's
            recall.
        seconds: Time of each part.
        best: The last stage's best images of each query.
    """

    n_queries: int
    n_items: int
    stages: dict[str, dict[str, Recall]]
    seconds: dict[str, float]
    best: Candidates = field(repr=False)

    @property
    def mean_recall(self) -> float:
        """Text-to-image mean recall of the recall stage, in [0, 1]."""
        return self.stages["recall"]["text_to_image"].mean

    def to_json(self) -> dict[str, Any]:
        """The figures as ``xmr eval --json`` prints them, recalls in percent."""
        return {
            "n_queries": self.n_queries,
            "n_items": self.n_items,
            "stages": {
                stage: {direction: figures.percent() for direction, figures in both.items()}
                for stage, both in self.stages.items()
            },
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def evaluate(
    model: RetrievalModel,
    split: Split,
    config: EvaluationConfig,
    *,
    rerank: bool = True,
    groups: NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluate a model on a split, over the full pool.

    Args:
        model: The scorers.
        split: Queries, images, and which belong together.
        config: Batch size, candidates of the slow scorer, beta.
        rerank: Let the slow scorer, where there is one, see the best ``config.candidates``.
        groups: [N] product number of each image: several images of one product count once.
        progress: Where to report.
    """
    seconds: dict[str, float] = {}
    slow = rerank and model.cross is not None and config.candidates > 0 and groups is None
    positives = Positives(split.item_offsets, split.items, len(split.image_ids))
    with _timed(seconds, "encode"):
        images, texts = encode_split(
            model, split, config.batch_size, states=slow, progress=progress
        )
    with _timed(seconds, "recall"):
        t2i, i2t = score_matrices(texts, images, model.config)
        if groups is not None:
            t2i, i2t = group_scores(t2i, groups, axis=1), group_scores(i2t, groups, axis=0)
            positives = positives.grouped(groups)
        matrices = {
            "text_to_image": (t2i, positives),
            "image_to_text": (i2t, positives.transposed()),
        }
        stages = {
            "recall": {
                direction: recall(best_ranks(scores, wanted))
                for direction, (scores, wanted) in matrices.items()
            }
        }
        best = top_k(t2i, SUBMITTED)
    if slow:
        with _timed(seconds, "rerank"):
            stages |= {"rerank": {}, "merged": {}}
            for direction, (scores, wanted) in matrices.items():
                candidates = top_k(scores, config.candidates)
                slow_scores = score_pairs(
                    model, texts, images, candidates, direction, config.batch_size, progress
                )
                orders = merge_stages(candidates, slow_scores, config.beta)
                for stage in ("rerank", "merged"):
                    stages[stage][direction] = recall(orders[stage].ranks(wanted))
                if direction == "text_to_image":
                    merged = orders["merged"]
                    best = Candidates(merged.positions[:, :SUBMITTED], merged.scores[:, :SUBMITTED])
    return Evaluation(len(split.query_ids), len(split.image_ids), stages, seconds, best)


def encode_split(
    model: RetrievalModel,
    split: Split,
    batch_size: int,
    *,
    states: bool,
    progress: Progress = SILENT,
) -> tuple[EncodedItems, EncodedItems]:
    """All images and all queries of a split, in its order."""
    images = encode_images(
        model,
        images_of(model, split, batch_size),
        states=states,
        total=len(split.image_ids),
        description=tr("Encoding images"),
        progress=progress,
    )
    texts = encode_texts(
        model,
        text_batches(split.tokens, batch_size, model.titles.tokenizer.pad_id),
        states=states,
        total=len(split.query_ids),
        description=tr("Encoding titles"),
        progress=progress,
    )
    return images, texts


def images_of(model: RetrievalModel, split: Split, batch_size: int) -> Iterator[Tensor]:
    """A split's images as the model takes them: pixels, or pre-extracted regions."""
    if model.config.image.regions is not None:
        regions = RegionFile.of(split, model.config.image.regions)
        return region_batches(split, regions, batch_size)
    return image_batches(split, model.config.image.size, batch_size)


@torch.inference_mode()
def score_matrices(
    texts: EncodedItems, images: EncodedItems, config: RunConfig | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The fast scores of all pairs, t2i [Q, N] and i2t [N, Q], pooled as ``config`` says."""
    pooling = "each" if config is None else config.model.pooling
    mean = pooling == "both" and config is not None and config.objectives.late_scale == "mean"
    t2i, i2t = pooled_maxsim(texts.vectors, images.vectors, pooling, mean=mean)
    return t2i.cpu().numpy(), i2t.cpu().numpy()


@torch.inference_mode()
def score_pairs(
    model: RetrievalModel,
    texts: EncodedItems,
    images: EncodedItems,
    candidates: Candidates,
    direction: str,
    batch_size: int,
    progress: Progress = SILENT,
) -> NDArray[np.float32]:
    """The slow scores of each row's candidates, [rows, K].

    Args:
        model: A model with a slow scorer.
        texts: Titles with their states.
        images: Images with their states.
        candidates: Image positions of each title, or title positions of each image.
        direction: ``text_to_image``: rows are titles; ``image_to_text``: rows are images.
        batch_size: Rows are taken so that about 4 x so many pairs go through at once.
        progress: Where to report.
    """
    assert model.cross is not None
    assert texts.states is not None
    assert texts.mask is not None
    assert images.states is not None
    was_training = model.training
    model.eval()
    count, each = candidates.positions.shape
    rows = np.repeat(np.arange(count), each)
    columns = candidates.positions.reshape(-1)
    left, right = (rows, columns) if direction == "text_to_image" else (columns, rows)
    text_index = torch.from_numpy(left).to(texts.states.device)
    image_index = torch.from_numpy(right).to(images.states.device)
    scores: list[Tensor] = []
    step = 4 * batch_size
    with progress.task(tr("Reranking"), len(rows)) as task:
        for start in range(0, len(rows), step):
            some_texts = text_index[start : start + step]
            some_images = image_index[start : start + step]
            pair = model.cross.score(
                texts.states[some_texts].to(model.device),
                texts.mask[some_texts].to(model.device),
                images.states[some_images].to(model.device, torch.float32),
                None if images.mask is None else images.mask[some_images].to(model.device),
            )
            scores.append(pair)
            task.advance(len(pair))
    model.train(was_training)
    result: NDArray[np.float32] = torch.cat(scores).cpu().numpy().reshape(count, each)
    return result


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
