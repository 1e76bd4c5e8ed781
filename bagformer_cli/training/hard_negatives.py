"""Mine hard negatives: the images that a model ranks highest for a title and that do not match it.

For each title, by the model's fast score s (title to image):

1. Images are ranked by s. Only images that some title of the split names are candidates: in a
   batch, an image comes with its own title.
2. Images that match the title are left out: by id, by an equal title, or by an equal image
   (``data.positives``).
3. With a margin m, images are left out as probable false negatives if
   ``s > p - m * |p|``, where p is the score of the title's best own image. For p > 0 that is
   NV-Retriever's TopK-PercPos with the share 1 - m: m = 0.05 keeps what scores below 95 % of p
   (Moreira et al. 2024, arXiv:2407.15831, section 4).
4. The first K of the rest are the title's hard negatives. There may be fewer.

Shapes: Q titles, N images, K negatives of a title, C images looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.config.scoring import MAXSIM, ScoreRule, Scoring
from bagformer_cli.data.positives import Positives
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.encoded_split import encode_split
from bagformer_cli.interaction.topk import score_pairs, topk
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.outputs import output_file
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors

NONE = -1
"""Position in place of a negative that a title does not have."""
_SPARE = 8  # looked at in addition to K and the title's own images


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of a split: the images that match each title.

    Attributes:
        positives: Matches by id, title and image.
        item_offsets: [Q + 1] title q is answered by ``items[item_offsets[q]:...[q + 1]]``.
        items: [M] positions of images.
    """

    positives: Positives
    item_offsets: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split) -> GroundTruth:
        """Read it from a preprocessed split."""
        return cls(Positives.of(split), split.item_offsets, split.items)


@dataclass(frozen=True)
class Mined:
    """The hard negatives of every title.

    Attributes:
        positions: [Q, K] image positions, the highest score first; :data:`NONE` at the end of a
            row that has fewer.
        scores: [Q, K] their scores; 0 where a title has fewer.
        matching: Number of images that were left out because they match.
        too_close: Number of images that were left out by the margin.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    matching: int
    too_close: int


def mine(
    model: RetrievalModel,
    split: Split,
    count: int,
    *,
    margin: float | None = None,
    progress: Progress = SILENT,
) -> Mined:
    """Mine the hard negatives of every title of a split.

    Args:
        model: The model that ranks.
        split: A preprocessed split with images.
        count: K.
        margin: m of the module; None: leave out matching images only.
        progress: Where to report.
    """
    size = model.config.evaluation.batch_size
    images, texts = encode_split(model, split, size, states=False, progress=progress)
    rule = Scoring.of(model.config).rule(False, True)
    return mine_vectors(texts.vectors, images.vectors, GroundTruth.of(split), count, margin, rule)


@torch.inference_mode()
def mine_vectors(
    texts: MultiVectors,
    images: MultiVectors,
    truth: GroundTruth,
    count: int,
    margin: float | None = None,
    rule: ScoreRule = MAXSIM,
) -> Mined:
    """Mine hard negatives among encoded titles and images; see the module.

    Titles that have too few among the first images are ranked again, four times as deep. ``rule``:
    how the model scores a title against an image.
    """
    candidates = torch.from_numpy(np.unique(truth.items).astype(np.int64))
    limits = None if margin is None else _limits(texts, images, truth, margin, rule)
    positions = np.full((len(texts), count), NONE, np.int64)
    scores = np.zeros((len(texts), count), np.float32)
    matching = too_close = 0
    answered = np.diff(truth.item_offsets) > 0  # the others have no positive to be hard against
    rows = np.flatnonzero(answered)
    depth = count + int(np.diff(truth.item_offsets).max(initial=1)) + _SPARE
    while len(rows) and len(candidates):
        depth = min(depth, len(candidates))
        some = texts.select(torch.from_numpy(rows))
        found_scores, found = (
            tensor.cpu().numpy()
            for tensor in topk(some, images, depth, candidates=candidates, rule=rule)
        )
        groups = truth.positives
        matches = groups.contain(groups.text_groups[rows][:, None], groups.image_groups[found])
        close = np.zeros_like(matches)
        if limits is not None:
            close = ~matches & (found_scores > limits[rows][:, None])
        allowed = ~matches & ~close  # [rows, C]
        done = (allowed.sum(axis=1) >= count) | (depth == len(candidates))
        # A stable sort of True before False keeps the order of the scores.
        order = np.argsort(~allowed, axis=1, kind="stable")[:, :count]
        kept = np.take_along_axis(allowed, order, axis=1)
        width = order.shape[1]
        positions[rows, :width] = np.where(kept, np.take_along_axis(found, order, axis=1), NONE)
        scores[rows, :width] = np.where(kept, np.take_along_axis(found_scores, order, axis=1), 0)
        matching += int(matches[done].sum())
        too_close += int(close[done].sum())
        rows, depth = rows[~done], 4 * depth
    return Mined(positions, scores, matching, too_close)


def write_negatives(path: Path, split: Split, mined: Mined) -> None:
    """Write mined negatives as lines of JSON, which ``data.hard_negatives`` reads.

    ::

        {"query_id": 7, "negatives": [31, 4], "scores": [5.25, 5.125]}
    """
    queries, images = split.query_ids.tolist(), split.image_ids
    with output_file(path) as place, open(place, "w", encoding="utf-8") as lines:
        for query, found, scores in zip(queries, mined.positions, mined.scores, strict=True):
            there = found != NONE
            line = {
                "query_id": query,
                "negatives": images[found[there]].tolist(),
                "scores": [round(score, 6) for score in scores[there].tolist()],
            }
            lines.write(json.dumps(line) + "\n")


def _limits(
    texts: MultiVectors, images: MultiVectors, truth: GroundTruth, margin: float, rule: ScoreRule
) -> NDArray[np.float32]:
    """Return p - m |p| of each title, p the score of its best own image; 0 without one."""
    counts = np.diff(truth.item_offsets)
    best = np.zeros(len(counts), np.float32)
    for own in np.unique(counts[counts > 0]):  # titles with equally many images at once
        rows = np.flatnonzero(counts == own)
        items = truth.items[truth.item_offsets[rows][:, None] + np.arange(own)]
        some = texts.select(torch.from_numpy(rows))
        scores = score_pairs(some, images, torch.from_numpy(items), rule)
        best[rows] = scores.amax(dim=1).cpu().numpy()
    limits: NDArray[np.float32] = (best - margin * np.abs(best)).astype(np.float32)
    return limits
