"""Make a model that works before any training: image classes and their names.

With ``image.classes``, the image tower gives the probability of each class c that its backbone
was trained to know. With the names of the classes, an image is placed where the names of its
classes are (ConSE, Norouzi et al. 2014)::

    vision_proj:  p [C]  ──▶  sum over c of  p[c] · unit((name[c] − mean name) · S)
    text_proj:    t [W]  ──▶  (t − mean) · S

S [W, W] makes small what differs between titles of one thing. A seller writes 草莓 as
"红色草莓 当季 包邮", and the further words move the title as far as another fruit would. With a
title of each class, S = (covariance of title[c] − name[c])^(−1/2) (within-class covariance
normalisation, Hatch et al. 2006); without titles, it is the identity.

Both are ordinary projections, so the model is saved, searched and trained like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.data.batches import TextBatch
from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress

BATCH = 64


@torch.no_grad()
def project_classes(
    model: RetrievalModel,
    names: Sequence[str],
    titles: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> None:
    """Set both projections of a model so that it retrieves by the names of image classes.

    Args:
        model: A model with ``image.classes``, and ``model.embed_dim`` equal to the width of its
            text tower. Its projections are replaced.
        names: The name of each class, in the order of the backbone's classifier.
        titles: A title of each class, in the same order: its name among the words that sellers
            add. None: titles are compared as names are.
        progress: Where to report.

    Raises:
        ConfigError: The model has other sizes.
    """
    dual = model.dual
    shapes = (tuple(dual.vision_proj.weight.shape), tuple(dual.text_proj.weight.shape))
    width = dual.text_encoder.width
    if shapes != ((width, len(names)), (width, width)):
        raise ConfigError(
            tr("Class names do not fit this model."),
            where="image.classes, model.embed_dim",
            found=f"{shapes[0][1]}, {shapes[0][0]}",
            expected=f"{len(names)}, {width}",
        )
    everything = [*names, *(titles or [])]
    with progress.task(
        tr("Encoding class names"), len(everything), tr("{n} titles", n="{n}")
    ) as task:
        states = title_states(model, everything, task.advance)
    rows, longer = states[: len(names)], states[len(names) :]
    mean = rows.mean(dim=0)
    centred = rows - mean
    scale = torch.eye(width)
    if len(longer):
        scale = _inverse_root(longer - longer.mean(dim=0) - centred)
        mean = (mean + longer.mean(dim=0)) / 2
    dual.vision_proj.weight.copy_(F.normalize(centred @ scale, dim=-1).T)
    dual.vision_proj.bias.zero_()
    dual.text_proj.weight.copy_(scale)  # symmetric
    dual.text_proj.bias.copy_(-mean @ scale)


def _inverse_root(differences: Tensor) -> Tensor:
    """Return the inverse square root of a covariance, shrunk towards its mean variance.

    Args:
        differences: [n, W], of mean zero.

    Returns:
        [W, W], symmetric, scaled so that its squares sum to W as those of the identity do.
    """
    covariance = differences.double().T @ differences.double() / len(differences)
    variances, axes = torch.linalg.eigh(covariance)
    root = (axes * (variances + variances.mean()).rsqrt()) @ axes.T
    scaled: Tensor = root * math.sqrt(len(root)) / torch.linalg.matrix_norm(root)
    return scaled.float()


@torch.no_grad()
def title_states(
    model: RetrievalModel, titles: Sequence[str], advance: Callable[[int], None] | None = None
) -> Tensor:
    """Encode titles to the state at position 0, before any projection: [len(titles), W].

    Args:
        model: The model; its training mode is restored afterwards.
        titles: The titles.
        advance: Called with the number of titles after each batch.
    """
    training = model.training
    model.eval()
    parts = []
    for start in range(0, len(titles), BATCH):
        batch = TextBatch.from_tokens(
            model.titles(list(titles[start : start + BATCH])), model.titles.tokenizer.pad_id
        )
        batch = batch.to(model.device)
        parts.append(model.dual.text_encoder(batch.input_ids, batch.attention_mask)[:, 0])
        if advance is not None:
            advance(len(batch))
    model.train(training)
    return torch.cat(parts)
