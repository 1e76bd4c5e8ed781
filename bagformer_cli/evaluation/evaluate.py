"""A whole evaluation: encode both sides, recall, rerank, merge; figures in MUGE's terms.

Shapes: Q queries, N images, K candidates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.merge import Ranked, choose_beta
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
from bagformer_cli.evaluation.subsets import Subset
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, require_cross_encoder
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
        beta: What merged the two scores; None: nothing was merged.
        ranks: Rank of each query's best answer: of the recall stage by direction, of the others by
            ``merged/text_to_image`` and so on.
    """

    n_queries: int
    n_items: int
    stages: dict[str, dict[str, Recall]]
    seconds: dict[str, float]
    best: Candidates = field(repr=False)
    beta: float | None = None
    ranks: dict[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)

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
            **({} if self.beta is None else {"beta": self.beta}),
        }


@dataclass(frozen=True)
class Sides:
    """A split encoded for one model: its images and its queries."""

    images: EncodedItems
    texts: EncodedItems

    def of(self, subset: Subset | None) -> Sides:
        """A subset's images and queries."""
        if subset is None:
            return self
        return Sides(self.images.select(subset.images), self.texts.select(subset.queries))


@dataclass(frozen=True)
class Slow:
    """Another model whose slow scorer reranks.

    Attributes:
        model: Has a slow scorer.
        split: The same split, with the tokens that this model reads.
    """

    model: RetrievalModel
    split: Split


def evaluate(
    model: RetrievalModel,
    split: Split,
    config: EvaluationConfig,
    *,
    rerank: bool | Sequence[int] = True,
    groups: NDArray[np.int64] | None = None,
    slow: Slow | None = None,
    subset: Subset | None = None,
    tune_beta: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluate a model on a split, over the full pool.

    Args:
        model: The scorers.
        split: Queries, images, and which belong together.
        config: Batch size, candidates of the slow scorer, beta.
        rerank: True: rerank the best ``config.candidates`` of the recall stage if the model can;
            a list of numbers: rerank the best K of each number, one pair of stages a number.
        groups: [N] product number of each image: several images of one product count once.
        slow: Whose slow scorer reranks; None: the model's own.
        subset: The pool; None: the whole split.
        tune_beta: Choose beta by this split in place of taking it from ``config``.
        progress: Where to report.

    Raises:
        CheckpointError: ``rerank`` names numbers, or ``slow`` a model, but that model has no
            trained cross-encoder.
    """
    seconds: dict[str, float] = {}
    counts = [config.candidates] if rerank is True else list(rerank or [])
    counts = [count for count in counts if count > 0]
    judge = slow or (Slow(model, split) if model.can_rerank else None)
    if slow is not None or (counts and rerank is not True):
        require_cross_encoder(model if slow is None else slow.model)
    reranks = bool(counts) and judge is not None and groups is None
    own = reranks and slow is None
    positives = (
        Positives(split.item_offsets, split.items, len(split.image_ids))
        if subset is None
        else subset.positives(split)
    )
    with _timed(seconds, "encode"):
        sides = Sides(*encode_split(model, split, config.batch_size, states=own, progress=progress))
        sides = sides.of(subset)
    with _timed(seconds, "recall"):
        t2i, i2t = score_matrices(sides.texts, sides.images, model.config)
        if groups is not None:
            t2i, i2t = group_scores(t2i, groups, axis=1), group_scores(i2t, groups, axis=0)
            positives = positives.grouped(groups)
        matrices = {
            "text_to_image": (t2i, positives),
            "image_to_text": (i2t, positives.transposed()),
        }
        ranks = {name: best_ranks(scores, wanted) for name, (scores, wanted) in matrices.items()}
        stages = {"recall": {direction: recall(found) for direction, found in ranks.items()}}
        best = top_k(t2i, SUBMITTED)
    beta = config.beta
    if reranks and judge is not None:
        with _timed(seconds, "rerank"):
            if slow is not None:
                sides = Sides(
                    *encode_split(
                        slow.model, slow.split, config.batch_size, states=True, progress=progress
                    )
                ).of(subset)
            ranked = {
                direction: Ranked(
                    candidates := top_k(scores, max(counts)),
                    score_pairs(
                        judge.model, sides, candidates, direction, config.batch_size, progress
                    ),
                    wanted,
                )
                for direction, (scores, wanted) in matrices.items()
            }
            if tune_beta:
                beta, _ = choose_beta(list(ranked.values()))
            for count in counts:
                name = "" if len(counts) == 1 else f"@{count}"
                merged = _rerank(ranked, count, beta, name, stages, ranks)
            best = Candidates(merged.positions[:, :SUBMITTED], merged.scores[:, :SUBMITTED])
    return Evaluation(
        len(sides.texts), len(sides.images), stages, seconds, best, beta if reranks else None, ranks
    )


def _rerank(
    ranked: dict[str, Ranked],
    count: int,
    beta: float,
    name: str,
    stages: dict[str, dict[str, Recall]],
    ranks: dict[str, NDArray[np.int64]],
) -> Candidates:
    """Add the stages of the best ``count``; returns the merged order of text to image."""
    for direction, part in ranked.items():
        candidates = Candidates(
            part.candidates.positions[:, :count], part.candidates.scores[:, :count]
        )
        orders = merge_stages(candidates, part.slow[:, :count], beta)
        for stage in ("rerank", "merged"):
            found = orders[stage].ranks(part.wanted)
            stages.setdefault(f"{stage}{name}", {})[direction] = recall(found)
            ranks[f"{stage}{name}/{direction}"] = found
        if direction == "text_to_image":
            best = orders["merged"]
    return best


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
    # one direction alone is ranked alike by sums and means; shared by both it is not
    mean = pooling != "each" and config is not None and config.objectives.late_scale == "mean"
    t2i, i2t = pooled_maxsim(texts.vectors, images.vectors, pooling, mean=mean)
    return t2i.cpu().numpy(), i2t.cpu().numpy()


@torch.inference_mode()
def score_pairs(
    model: RetrievalModel,
    sides: Sides,
    candidates: Candidates,
    direction: str,
    batch_size: int,
    progress: Progress = SILENT,
) -> NDArray[np.float32]:
    """The slow scores of each row's candidates, [rows, K].

    Args:
        model: A model with a slow scorer.
        sides: Titles and images with their states.
        candidates: Image positions of each title, or title positions of each image.
        direction: ``text_to_image``: rows are titles; ``image_to_text``: rows are images.
        batch_size: Rows are taken so that about 4 x so many pairs go through at once.
        progress: Where to report.
    """
    texts, images = sides.texts, sides.images
    assert model.cross is not None
    assert texts.states is not None
    assert images.states is not None
    was_training = model.training
    model.eval()
    count, each = candidates.positions.shape
    rows = np.repeat(np.arange(count), each)
    columns = candidates.positions.reshape(-1)
    left, right = (rows, columns) if direction == "text_to_image" else (columns, rows)
    text_index, image_index = torch.from_numpy(left), torch.from_numpy(right)
    scores: list[Tensor] = []
    step = 4 * batch_size
    with progress.task(tr("Reranking"), len(rows)) as task:
        for start in range(0, len(rows), step):
            some_texts = text_index[start : start + step]
            some_images = image_index[start : start + step]
            pair = model.cross.score(
                texts.states.select(some_texts).to(model.device),
                images.states.select(some_images).to(model.device, torch.float32),
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
