"""Masked modelling of a batch: hidden tokens (MLM) and hidden patches (MFM).

Each sees the batch's own pairs in a forward pass of its own: nothing that another objective
shuffles or hides reaches it. Losses are sums over hidden places divided by their number in the
whole batch, so that those of its parts and of all processes add up.

Shapes: B images of this process, Q titles, L tokens, P patches, F features, C patches of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bagformer_cli.data.batches import Batch
from bagformer_cli.data.masking import hidden_patches
from bagformer_cli.losses.masked import masked_patch_losses, masked_token_losses
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.training.distributed import World


@dataclass
class Hidden:
    """What is hidden of a batch, and how much of it all processes have.

    Attributes:
        tokens: Hidden tokens a process, on average.
        patches: Hidden patches a process, on average.
        places: [B, P] bool, the hidden patches.
        index: [B, P] int64, the place of each patch among the candidates.
        candidates: [C, F] features of all valid patches.
    """

    tokens: float
    patches: float = 0.0
    places: Tensor | None = None
    index: Tensor | None = None
    candidates: Tensor | None = None

    def part(self, first: int, end: int) -> Hidden:
        """Of images ``first`` to ``end``; numbers and candidates stay those of the whole."""
        if self.places is None or self.index is None:
            return self
        return replace(self, places=self.places[first:end], index=self.index[first:end])


@torch.no_grad()
def find_hidden(
    model: RetrievalModel,
    batch: Batch,
    images: Encoded,
    world: World,
    patches: float | None = None,
) -> Hidden | None:
    """What is hidden of a batch; None: nothing.

    Args:
        model: Its slow scorer reads what is left.
        batch: With ``masked``.
        images: Encoded; only features and mask are used.
        world: The processes.
        patches: Share of the patches that is hidden; None: none are.
    """
    masked = batch.masked
    if masked is None:
        return None
    found = Hidden(world.total(float(masked.chosen.sum())) / world.size)
    if patches is None:
        return found
    features, valid = _patches(model, images)
    places = hidden_patches(masked.seeds.cpu().numpy(), valid.cpu().numpy(), patches)
    found.places = torch.from_numpy(places).to(valid.device)
    found.patches = world.total(float(places.sum())) / world.size
    found.index = valid.flatten().cumsum(0).view_as(valid) - 1
    if world.size > 1:
        found.index = found.index + sum(world.collect(int(valid.sum()))[: world.rank])
    found.candidates = world.gather(features[valid])
    return found


def token_loss(
    model: RetrievalModel,
    batch: Batch,
    images: Encoded,
    hidden: Hidden,
    momentum: tuple[RetrievalModel, Encoded] | None = None,
    alpha: float = 0.0,
) -> Tensor:
    """MLM of a batch or a part of it.

    Args:
        model: Its slow scorer has ``mlm_head``.
        batch: The batch, or the part.
        images: Its images.
        hidden: Of the whole batch.
        momentum: The momentum model and what it made of the images; None: true tokens alone.
        alpha: Weight of what it believes.
    """
    assert batch.masked is not None
    soft = None
    if momentum is not None and alpha:
        with torch.no_grad():
            soft = _token_logits(momentum[0], batch, momentum[1])
    wanted = batch.text.input_ids[batch.masked.chosen]
    losses = masked_token_losses(_token_logits(model, batch, images), wanted, soft, alpha)
    return losses.sum() / max(1.0, hidden.tokens)


def _token_logits(model: RetrievalModel, batch: Batch, images: Encoded) -> Tensor:
    """[M, V] of the hidden places, each title beside its own image."""
    assert batch.masked is not None
    head: Any = model.cross
    shown = replace(batch.text, input_ids=batch.masked.input_ids)
    states = head.fusion(
        head.read(model.dual, shown),
        shown.attention_mask,
        images.states.index_select(0, batch.own),
        None if images.mask is None else images.mask[batch.own],
    )
    places = batch.masked.chosen.flatten().nonzero().flatten()
    rows = states.flatten(0, 1).index_select(0, places)
    logits: Tensor = head.mlm_head(rows, model.dual.text_encoder.word_table)
    return logits


def patch_loss(
    model: RetrievalModel, batch: Batch, images: Encoded, hidden: Hidden, temperature: float | None
) -> Tensor:
    """MFM of a batch or a part of it, beside each image's first title.

    Args:
        model: Its slow scorer has ``mfm_head``.
        batch: The batch, or the part.
        images: Its images.
        hidden: Of these images, with the candidates of the whole batch.
        temperature: Of the normalised form; None: the plain one.
    """
    assert hidden.places is not None
    assert hidden.index is not None
    assert hidden.candidates is not None
    head: Any = model.cross
    first = torch.arange(len(batch), device=batch.own.device) * (len(batch.own) // len(batch))
    _, read = head.fusion.both(
        batch.text.input_ids[first],
        batch.text.attention_mask[first],
        images.states,
        images.mask,
        hidden.places,
    )
    places = hidden.places.flatten().nonzero().flatten()
    outputs = head.mfm_head(read.flatten(0, 1).index_select(0, places))
    own = hidden.index.flatten()[places]
    losses = masked_patch_losses(outputs, own, hidden.candidates, temperature)
    return losses.sum() / max(1.0, hidden.patches)


def _patches(model: RetrievalModel, images: Encoded) -> tuple[Tensor, Tensor]:
    """[B, P, F] features that the joint encoder reads, and [B, P] bool which of them are any."""
    head: Any = model.cross
    assert images.features is not None
    first = int(head.fusion.drops_first)
    features = images.features[:, first:]
    if model.config.image.regions is None or images.mask is None:
        return features, features.new_ones(features.shape[:2], dtype=torch.bool)
    return features, images.mask[:, first:]
