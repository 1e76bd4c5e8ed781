"""Scorers: a model's ways to score titles against images, each as one score matrix.

A score matrix is what objectives compare and what a teacher gives to a student. A scorer is named
by what it computes:

* ``cls``: the dot product of two single vectors;
* ``late``: MaxSim between two multi-vector embeddings;
* ``slow``: the cross-encoder (matching head or captioner) on every pair, or on some pairs.

Shapes: Q titles, N images, K pairs, L text positions, P image positions, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bagformer_cli.config import RunConfig
from bagformer_cli.config.scoring import EACH, Scoring
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.models.build import RetrievalModel, largest_image
from bagformer_cli.models.dual import Encoded, one_each
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors

Scorer = Literal["cls", "late", "slow"]


@dataclass
class ScoreMatrix:
    """Scores of Q titles with N images, in both directions.

    Attributes:
        t2i: [Q, N]; a title ranks images by its row.
        i2t: [N, Q]; an image ranks titles by its row.
        known: [Q, N] bool, the pairs that were scored; None: all pairs.
    """

    t2i: Tensor
    i2t: Tensor
    known: Tensor | None = None

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """Both directions as a tuple (t2i, i2t)."""
        return self.t2i, self.i2t


def own_scorer(config: RunConfig) -> Scorer:
    """Return the fast scorer that a model of this configuration searches with."""
    return "cls" if config.model.single else "late"


def late_temperature(model: RetrievalModel) -> Tensor | float:
    """Return the divisor of late-interaction scores; 1 for plain sums (BagFormer)."""
    if model.config.objectives.late_scale == "sum":
        return 1.0
    return model.temperature if model.late_temperature is None else model.late_temperature


def score_matrix(
    model: RetrievalModel,
    scorer: Scorer,
    texts: Encoded,
    images: Encoded,
    known: Tensor | None = None,
) -> ScoreMatrix:
    """Score titles against images with one of a model's scorers.

    Args:
        model: The model.
        scorer: One of its scorers.
        texts: From ``model.encode_texts``.
        images: From ``model.encode_images``.
        known: [Q, N] bool, the pairs that the cross-encoder scores; None: all pairs. Fast scorers
            always score all pairs.
    """
    if scorer == "slow":
        return _slow_matrix(model, texts, images, known)
    both = vectors_of(texts, scorer), vectors_of(images, scorer)
    return ScoreMatrix(*fast_scores(model.config, scorer, *both), known)


def vectors_of(encoded: Encoded, scorer: Scorer) -> MultiVectors:
    """Return the vectors that a fast scorer compares."""
    if scorer == "cls":
        return one_each(encoded.cls)
    assert encoded.late is not None
    return encoded.late


@torch.no_grad()
def vectors_per_item(model: RetrievalModel, scorer: Scorer) -> tuple[int, int]:
    """Return the largest number of vectors of a title and of an image for a fast scorer."""
    if scorer == "cls":
        return 1, 1
    was_training = model.training
    model.eval()
    image = model.dual.encode_images(largest_image(model.config).to(model.device))
    model.train(was_training)
    texts = model.config.text.max_tokens + model.config.model.codes
    return texts, len(vectors_of(image, scorer).values)


def fast_scores(
    config: RunConfig, scorer: Scorer, texts: MultiVectors, images: MultiVectors
) -> tuple[Tensor, Tensor]:
    """Score vectors with a fast scorer: t2i [Q, N] and i2t [N, Q]."""
    if scorer == "cls":
        similarity = texts.values @ images.values.T
        return similarity, similarity.T
    means = config.objectives.late_scale == "mean"
    return pooled_maxsim(texts, images, Scoring(config.model.pooling, means))


def pooled_maxsim(
    texts: MultiVectors, images: MultiVectors, scoring: Scoring = EACH
) -> tuple[Tensor, Tensor]:
    """Compute late interaction with one of the poolings of ALADIN (section 3.1), with gradients.

    Args:
        texts: Q titles.
        images: N images.
        scoring: How dot products become scores (``config/scoring.py``). All but ``each`` have one
            score for both directions.

    Returns:
        t2i [Q, N] and i2t [N, Q], float32.
    """
    forward, backward = scoring.rule(False, True), scoring.rule(True, False)
    if forward.is_mean:  # the mean of all products is the product of the means
        t2i = (texts.mean() @ images.mean().T).float()
        return t2i, t2i.T
    by_text, by_image = maxsim(texts, images)
    counts = [to_device(items.lengths, by_text.device)[:, None] for items in (texts, images)]
    t2i = forward.combine(by_text, by_image.T, counts[0], counts[1].T)
    if scoring.pooling != "each":
        return t2i, t2i.T
    return t2i, backward.combine(by_image, by_text.T, counts[1], counts[0].T)


def _slow_matrix(
    model: RetrievalModel, texts: Encoded, images: Encoded, known: Tensor | None
) -> ScoreMatrix:
    assert model.cross is not None
    shape = len(texts.states), len(images.states)
    if known is None:
        scored = torch.ones(shape, dtype=torch.bool, device=texts.cls.device)
    else:
        scored = known
    rows, columns = scored.nonzero(as_tuple=True)
    scores = model.cross.score(texts.states.select(rows), images.states, columns)
    t2i = scores.new_full(shape, -torch.inf).index_put((rows, columns), scores)
    return ScoreMatrix(t2i, t2i.T, known)
