"""Any scorer as a score matrix: what losses compare, what a teacher hands to a student.

Scorers are named by what they are: ``cls`` (one vector each), ``late`` (late interaction) and
``slow`` (matching head or captioner). ``own_scorer`` is the one that a model's items are found by.

Shapes: Q titles, N images, K pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bagformer_cli.config import Pooling, RunConfig
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded, one_each
from bagformer_cli.vectors.multi_vectors import MultiVectors

Scorer = Literal["cls", "late", "slow"]


@dataclass
class ScoreMatrix:
    """Scores of all titles with all images, or of some.

    Attributes:
        t2i: [Q, N], rank images of a title by its row.
        i2t: [N, Q], rank titles of an image by its row.
        known: [Q, N] bool, which pairs were scored; None: all.
    """

    t2i: Tensor
    i2t: Tensor
    known: Tensor | None = None

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """The two directions."""
        return self.t2i, self.i2t


def own_scorer(config: RunConfig) -> Scorer:
    """The fast scorer that a model of this configuration retrieves with."""
    return "cls" if config.model.single else "late"


def score_matrix(
    model: RetrievalModel,
    scorer: Scorer,
    texts: Encoded,
    images: Encoded,
    known: Tensor | None = None,
) -> ScoreMatrix:
    """The scores of a batch by one of a model's scorers.

    Args:
        model: Whose.
        scorer: Which.
        texts: From ``model.encode_texts``.
        images: From ``model.encode_images``.
        known: [Q, N] bool: which pairs the slow scorer looks at; None: all. Fast ones score all.
    """
    if scorer == "slow":
        return _slow_matrix(model, texts, images, known)
    both = vectors_of(texts, scorer), vectors_of(images, scorer)
    return ScoreMatrix(*fast_scores(model.config, scorer, *both), known)


def vectors_of(encoded: Encoded, scorer: Scorer) -> MultiVectors:
    """What a fast scorer scores of one side."""
    if scorer == "cls":
        return one_each(encoded.cls)
    assert encoded.late is not None
    return encoded.late


def fast_scores(
    config: RunConfig, scorer: Scorer, texts: MultiVectors, images: MultiVectors
) -> tuple[Tensor, Tensor]:
    """A fast scorer on vectors: t2i [Q, N] and i2t [N, Q]."""
    if scorer == "cls":
        similarity = texts.values @ images.values.T
        return similarity, similarity.T
    mean = config.objectives.late_scale == "mean"
    return pooled_maxsim(texts, images, config.model.pooling, mean=mean)


def pooled_maxsim(
    texts: MultiVectors, images: MultiVectors, pooling: Pooling = "each", *, mean: bool = False
) -> tuple[Tensor, Tensor]:
    """Late interaction with one of the poolings of ALADIN (section 3.1).

    Args:
        texts: Q items.
        images: N items.
        pooling: ``each``: the two directions as MaxSim gives them; ``text``: max over the image,
            sum over the text, for both directions; ``image``: max over the text, sum over the
            image, for both; ``both``: their sum; ``mean``: of all products.
        mean: Divide sums by the number of vectors they run over.

    Returns:
        t2i [Q, N] and i2t [N, Q], float32.
    """
    if pooling == "mean":  # the mean of all products is the product of the means
        t2i = (_mean_of(texts) @ _mean_of(images).T).float()
        return t2i, t2i.T
    t2i, i2t = maxsim(texts, images)
    if mean:
        t2i = t2i / texts.lengths.to(t2i.device)[:, None]
        i2t = i2t / images.lengths.to(i2t.device)[:, None]
    if pooling == "text":
        return t2i, t2i.T
    if pooling == "image":
        return i2t.T, i2t
    if pooling == "both":
        total = t2i + i2t.T
        return total, total.T
    return t2i, i2t


def _mean_of(items: MultiVectors) -> Tensor:
    """[n, D]: the mean of each item's vectors; zeros where it has none."""
    sums = items.values.new_zeros(len(items), items.dim)
    lengths = items.lengths.to(items.device)
    owner = torch.arange(len(items), device=items.device).repeat_interleave(lengths)
    return sums.index_add(0, owner, items.values) / lengths.clamp(min=1)[:, None]


def _slow_matrix(
    model: RetrievalModel, texts: Encoded, images: Encoded, known: Tensor | None
) -> ScoreMatrix:
    assert model.cross is not None
    assert texts.mask is not None
    count, pool = len(texts.states), len(images.states)
    if known is None:
        known_pairs = torch.ones(count, pool, dtype=torch.bool, device=texts.cls.device)
    else:
        known_pairs = known
    rows, columns = known_pairs.nonzero(as_tuple=True)
    scores = model.cross.score(
        texts.states.index_select(0, rows),
        texts.mask[rows],
        images.states.index_select(0, columns),
        None if images.mask is None else images.mask[columns],
    )
    t2i = scores.new_full((count, pool), -torch.inf).index_put((rows, columns), scores)
    return ScoreMatrix(t2i, t2i.T, known)
