"""Evaluate a model on a split: encode both sides, rank, rerank, merge.

::

    encode ─▶ recall stage: all scores ─▶ best K ─▶ rerank: cross-encoder ─▶ merged: slow + β·fast
              stages["recall"]                      stages["rerank"]         stages["merged"]

Recall is measured over the whole pool of images, in both directions.

Shapes: Q queries, N images, K candidates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.config import EvaluationConfig
from bagformer_cli.config.scoring import EACH, Scoring
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.calibration import retrieved_pairs
from bagformer_cli.evaluation.candidates import Candidates, merge_stages, top_k
from bagformer_cli.evaluation.compare import paired_bootstrap
from bagformer_cli.evaluation.encoded_split import EncodedSplit
from bagformer_cli.evaluation.merge import Reranked, choose_beta
from bagformer_cli.evaluation.metrics import (
    NO_POSITIVE,
    Positives,
    best_ranks,
    group_scores,
    recall,
)
from bagformer_cli.evaluation.order_metrics import (
    answer_ranks,
    candidate_ranks,
    order_metrics,
)
from bagformer_cli.evaluation.result import Direction, Evaluation, name_of
from bagformer_cli.evaluation.sources import OwnModel, VectorSource, as_source
from bagformer_cli.evaluation.submission import PER_QUERY
from bagformer_cli.evaluation.subsets import Subset
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, require_cross_encoder
from bagformer_cli.progress import SILENT, Progress

DRAWS = 2000
"""Bootstrap samples of queries, for the intervals of gains."""


@dataclass(frozen=True)
class Reranker:
    """Another model whose cross-encoder reranks.

    Attributes:
        model: A model with a trained cross-encoder.
        split: The evaluated split, tokenised for this model.
    """

    model: RetrievalModel
    split: Split


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings of an evaluation: reranking, groups, subset.

    Attributes:
        rerank: Numbers K of candidates that are reranked; each gives a stage. Empty or 0: none.
            None: ``config.candidates`` if the model has a trained cross-encoder.
        reranker: A model that reranks in place of the evaluated one.
        tune_beta: Choose beta on this split instead of taking it from the configuration.
        groups: [N] product number of each image: images of one product count once. Nothing is
            reranked then.
        subset: Evaluate on a part of the split; None: on all of it.
        keep_scores: Keep the fast scores of all pairs: 4 bytes for each pair and direction.
        keep_pairs: Keep the retrieved pairs that a calibration is fitted on.
    """

    rerank: Sequence[int] | None = None
    reranker: Reranker | None = None
    tune_beta: bool = False
    groups: NDArray[np.int64] | None = None
    subset: Subset | None = None
    keep_scores: bool = False
    keep_pairs: bool = False

    def counts(self, config: EvaluationConfig) -> list[int]:
        """Return the numbers K above 0."""
        counts = [config.candidates] if self.rerank is None else self.rerank
        return [count for count in counts if count > 0]


def evaluate(
    model: RetrievalModel | VectorSource,
    split: Split,
    config: EvaluationConfig,
    options: EvaluationOptions = EvaluationOptions(),
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluate a model, or vectors made elsewhere, on a split, over the full pool.

    Args:
        model: The model, or the source of the vectors.
        split: Queries, images, and the images that answer each query.
        config: Batch size, number of candidates, beta.
        options: Reranking, grouping by product, subset.
        progress: Where progress is reported.

    Raises:
        CheckpointError: The options ask for reranking, but the model that is to rerank has no
            trained cross-encoder.
    """
    seconds: dict[str, float] = {}
    source = as_source(model)
    counts = options.counts(config)
    other = options.reranker
    reranking = source.model if other is None else other.model
    if other is not None or (counts and options.rerank is not None):
        require_cross_encoder(reranking)
    if not counts or options.groups is not None or not (reranking and reranking.can_rerank):
        reranking = None  # no stage after the recall stage
    with _timed(seconds, "encode"):
        encoded = source.encode(
            split,
            config.batch_size,
            states=reranking is not None and other is None,
            progress=progress,
        ).restricted(options.subset)
    with _timed(seconds, "recall"):
        directions = _score_all(source, split, encoded, options)
        found = _recall_stage(encoded, directions, seconds)
    if options.keep_scores:
        found.directions = directions
        found.title_vectors = encoded.texts.vectors.lengths.numpy()
    if options.keep_pairs:
        both = directions["text_to_image"], directions["image_to_text"]
        scoring = EACH if source.model is None else Scoring.of(source.model.config)
        scores = both[0].scores, both[1].scores
        found.pairs = retrieved_pairs(encoded, both[0].positives, scores, scoring)
    if reranking is None:
        return found
    with _timed(seconds, "rerank"):
        read = encoded  # by the cross-encoder
        if other is not None:
            own = OwnModel(reranking)
            read = own.encode(other.split, config.batch_size, states=True, progress=progress)
            read = read.restricted(options.subset)
        reranked = {
            name: _rerank(
                reranking, read, name, direction, max(counts), config.batch_size, progress
            )
            for name, direction in directions.items()
        }
        fast = source.model
        if config.merge == "mean" and not (fast and Scoring.of(fast.config).means):
            lengths = {"text_to_image": encoded.texts, "image_to_text": encoded.images}
            reranked = {
                name: part.per_vector(lengths[name].vectors.lengths.numpy())
                for name, part in reranked.items()
            }
        found.beta = config.beta
        if options.tune_beta:
            found.beta, _ = choose_beta(list(reranked.values()))
        for count in counts:
            _add_stages(found, reranked, count, "" if len(counts) == 1 else f"@{count}")
    return found


def _recall_stage(
    encoded: EncodedSplit, directions: dict[str, Direction], seconds: dict[str, float]
) -> Evaluation:
    """Rank all pairs by their fast scores: the figures of the recall stage and its best images."""
    ranks = {name: best_ranks(*direction) for name, direction in directions.items()}
    stages = {"recall": {name: recall(found) for name, found in ranks.items()}}
    orders = {
        name: order_metrics(answer_ranks(*direction), direction.positives)
        for name, direction in directions.items()
    }
    best = top_k(directions["text_to_image"].scores, PER_QUERY).positions
    sizes = len(encoded.texts), len(encoded.images)
    return Evaluation(*sizes, stages, seconds, best, best, ranks=ranks, orders=orders)


def _score_all(
    source: VectorSource, split: Split, encoded: EncodedSplit, options: EvaluationOptions
) -> dict[str, Direction]:
    """Compute the fast scores of all pairs, with one column per product if there are groups."""
    subset, groups = options.subset, options.groups
    if subset is None:
        positives = Positives(split.item_offsets, split.items, len(split.image_ids))
    else:
        positives = subset.positives(split)
    t2i, i2t = source.score(encoded)
    if groups is not None:
        t2i, i2t = group_scores(t2i, groups, axis=1), group_scores(i2t, groups, axis=0)
        positives = positives.grouped(groups)
    return {
        "text_to_image": Direction(t2i, positives),
        "image_to_text": Direction(i2t, positives.transposed()),
    }


def _rerank(
    model: RetrievalModel,
    encoded: EncodedSplit,
    name: str,
    direction: Direction,
    count: int,
    batch_size: int,
    progress: Progress,
) -> Reranked:
    """Score the best ``count`` candidates of each row with the cross-encoder."""
    candidates = top_k(direction.scores, count)
    slow = score_pairs(model, encoded, candidates, name, batch_size, progress)
    return Reranked(candidates, slow, direction.positives)


def _add_stages(found: Evaluation, reranked: dict[str, Reranked], count: int, suffix: str) -> None:
    """Add the stages of the best ``count`` candidates, and the images of the merged order.

    After the first K images of the merged order, those of the recall stage follow unchanged.

    Args:
        found: The evaluation to add to.
        reranked: At least ``count`` candidates of each row with both scores, by direction.
        count: K.
        suffix: Appended to the stages' names.
    """
    assert found.beta is not None
    for direction, part in reranked.items():
        candidates = Candidates(
            part.candidates.positions[:, :count], part.candidates.scores[:, :count]
        )
        orders = merge_stages(candidates, part.slow[:, :count], found.beta)
        for stage in ("rerank", "merged"):
            ranks = orders[stage].ranks(part.positives)
            found.stages.setdefault(f"{stage}{suffix}", {})[direction] = recall(ranks)
            name = name_of(f"{stage}{suffix}", direction)
            found.ranks[name] = ranks
            if (ranks != NO_POSITIVE).any():
                gain = paired_bootstrap([ranks], [found.ranks[direction]], draws=DRAWS)
                found.gains.setdefault(f"{stage}{suffix}", {})[direction] = gain
            found.orders[name] = order_metrics(
                candidate_ranks(orders[stage], part.positives), part.positives
            )
        if direction == "text_to_image":
            merged = orders["merged"].positions[:, :PER_QUERY]
            found.best = np.concatenate([merged, found.recalled[:, count:]], axis=1)
            found.reranked = candidates.positions.shape[1]


@torch.inference_mode()
def score_pairs(
    model: RetrievalModel,
    encoded: EncodedSplit,
    candidates: Candidates,
    direction: str,
    batch_size: int,
    progress: Progress = SILENT,
) -> NDArray[np.float32]:
    """Score the candidates of each row with the cross-encoder.

    Args:
        model: A model with a cross-encoder.
        encoded: Titles and images with their states.
        candidates: Image positions of each title, or title positions of each image.
        direction: ``text_to_image``: rows are titles; ``image_to_text``: rows are images.
        batch_size: A forward pass scores four times as many pairs.
        progress: Where progress is reported.

    Returns:
        [rows, K] scores, in the order of the candidates.
    """
    texts, images = encoded.texts.states, encoded.images.states
    assert model.cross is not None
    assert texts is not None
    assert images is not None
    was_training = model.training
    model.eval()
    count, each = candidates.positions.shape
    rows = np.repeat(np.arange(count), each)
    columns = candidates.positions.reshape(-1)
    pairs = (rows, columns) if direction == "text_to_image" else (columns, rows)
    text_rows, image_rows = map(torch.from_numpy, pairs)
    scores: list[Tensor] = []
    step = 4 * batch_size
    with progress.task(tr("Reranking"), len(rows), tr("{n} pairs", n="{n}")) as task:
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            seen, pair_images = torch.unique(image_rows[some], return_inverse=True)
            scored = model.cross.score(
                texts.select(text_rows[some]).to(model.device),
                images.select(seen).to(model.device, torch.float32),
                pair_images.to(model.device),
            )
            scores.append(scored)
            task.advance(len(scored))
    model.train(was_training)
    result: NDArray[np.float32] = torch.cat(scores).cpu().numpy().reshape(count, each)
    return result


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
