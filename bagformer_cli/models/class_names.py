"""Make a model that works before any training: image classes and their names.

With ``image.classes``, the image tower gives the probability of each class c that its backbone
was trained to know. With the names of the classes, an image is placed where the names of its
classes are (ConSE, Norouzi et al. 2014)::

    vision_proj:  p [C]  ──▶  sum over c of  p[c] · unit(name[c] − mean name)
    text_proj:    t [W]  ──▶  t − mean name

Both are ordinary projections, so the model is saved, searched and trained like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.data.batches import TextBatch
from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel

BATCH = 64


@torch.no_grad()
def project_classes(model: RetrievalModel, names: Sequence[str]) -> None:
    """Set both projections of a model so that it retrieves by the names of image classes.

    Args:
        model: A model with ``image.classes``, and ``model.embed_dim`` equal to the width of its
            text tower. Its projections are replaced.
        names: The name of each class, in the order of the backbone's classifier.

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
    rows = title_states(model, names)
    mean = rows.mean(dim=0)
    dual.vision_proj.weight.copy_(F.normalize(rows - mean, dim=-1).T)
    dual.vision_proj.bias.zero_()
    dual.text_proj.weight.copy_(torch.eye(width))
    dual.text_proj.bias.copy_(-mean)


def title_states(model: RetrievalModel, titles: Sequence[str]) -> Tensor:
    """Encode titles to the state at position 0, before any projection: [len(titles), W]."""
    training = model.training
    model.eval()
    parts = []
    for start in range(0, len(titles), BATCH):
        batch = TextBatch.from_tokens(
            model.titles(list(titles[start : start + BATCH])), model.titles.tokenizer.pad_id
        )
        batch = batch.to(model.device)
        parts.append(model.dual.text_encoder(batch.input_ids, batch.attention_mask)[:, 0])
    model.train(training)
    return torch.cat(parts)
