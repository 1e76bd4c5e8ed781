"""Masked modelling: predict hidden tokens (MLM) and hidden patches (MFM) of the batch's own pairs.

Each runs its own forward pass, so that nothing it hides reaches another objective. A loss is
the sum over hidden positions divided by their number in the whole batch (the mean over processes),
so that the losses of chunks and of processes add up to the mean over all hidden positions.

Example of MFM with two images of three patches, of which one patch each is hidden::

    image 0: patches a b c     hidden: b       candidates of every hidden patch:
    image 1: patches d e f     hidden: f       a b c d e f  (all images, all processes)
    places = [[0 1 0], [0 0 1]]    index = [[0 1 2], [3 4 5]]
    the output at b must pick candidate 1, the output at f candidate 5

Shapes: B images of this process, Q titles, L tokens, P patches, F features, C patches of all
processes' images, M hidden positions, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bagformer_cli.data.batches import Batch, Masked
from bagformer_cli.data.masking import hidden_patches
from bagformer_cli.encoders.states import States
from bagformer_cli.losses.masked import masked_patch_losses, masked_token_losses
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.training.encoded_batch import Context, EncodedBatch
from bagformer_cli.training.objectives.base import Objective, PairObjective
from bagformer_cli.transfer import to_device


class MaskedTokenObjective(PairObjective):
    """MLM: cross-entropy of hidden tokens, predicted from the title and its image (ALBEF).

    With a momentum encoder, its softmax is part of the target.
    """

    name = "mlm_loss"

    def __init__(self, context: Context, weight: float) -> None:
        super().__init__(context, weight)
        self.uses_momentum = context.config.objectives.momentum is not None

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return the objective if ``objectives.mlm`` is above 0."""
        weight = context.config.objectives.mlm
        return [cls(context, weight)] if weight > 0 else []

    def prepare(self, batch: EncodedBatch) -> float:
        """Count the hidden tokens of the whole batch: the mean over processes."""
        processes = self.context.processes
        hidden = float(_masked(batch.batch).targets.sum())
        return processes.all_reduce_sum(hidden) / processes.world_size

    def loss(self, chunk: EncodedBatch, prepared: float) -> Tensor:
        """Sum the cross-entropy of the chunk's hidden tokens, divided by the batch's count."""
        batch, alpha = chunk.batch, chunk.soft_target_weight
        soft = None
        if chunk.momentum is not None and self.context.momentum is not None and alpha:
            with torch.no_grad():
                momentum_images = chunk.momentum[1]
                soft = _token_logits(self.context.momentum.model, batch, momentum_images)
        # Which tokens are hidden is known on the host, and with it the number of rows.
        places = _hidden_tokens(batch)
        targets = batch.text.input_ids.flatten().index_select(0, places)
        logits = _token_logits(self.context.model, batch, chunk.images)
        return masked_token_losses(logits, targets, soft, alpha).sum() / max(1.0, prepared)

    def random_guess_loss(self, batch_size: int) -> float:
        """Return ln of the vocabulary size."""
        return math.log(self.context.model.titles.tokenizer.vocab_size)


@dataclass
class HiddenPatches:
    """The hidden patches of a batch, and the candidates among which each must be found.

    Attributes:
        count: Hidden patches a process, the mean over processes.
        places: [B, P] bool, the hidden patches. On the host.
        index: [B, P] int64, each patch's row in ``candidates``. On the host.
        candidates: [C, F] features of all patches of all processes' images.
    """

    count: float
    places: Tensor
    index: Tensor
    candidates: Tensor


class MaskedPatchObjective(PairObjective):
    """MFM: the output at a hidden patch picks its own features among all patches (QQ-browser)."""

    name = "mfm_loss"
    keeps_features: ClassVar[bool] = True

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return the objective if ``objectives.mfm`` is above 0."""
        weight = context.config.objectives.mfm
        return [cls(context, weight)] if weight > 0 else []

    @torch.no_grad()
    def prepare(self, batch: EncodedBatch) -> HiddenPatches:
        """Choose the hidden patches of the whole batch and gather the candidates."""
        processes = self.context.processes
        share = self.context.config.objectives.masking.patches
        features, valid = self._patches(batch.images)
        places = hidden_patches(_masked(batch.batch).seeds.numpy(), valid.numpy(), share)
        count = processes.all_reduce_sum(float(places.sum())) / processes.world_size
        # Padding regions are no candidates: count the valid ones, row by row, over all processes.
        index = valid.flatten().cumsum(0).view_as(valid) - 1
        if processes.world_size > 1:
            counts = processes.all_gather_object(int(valid.sum()))
            index = index + sum(counts[: processes.rank])
        rows = to_device(valid.flatten().nonzero().flatten(), features.device)
        candidates = processes.all_gather(features.flatten(0, 1).index_select(0, rows))
        return HiddenPatches(count, torch.from_numpy(places), index, candidates)

    def loss(self, chunk: EncodedBatch, prepared: HiddenPatches) -> Tensor:
        """Sum the NCE of the chunk's hidden patches, divided by the batch's count.

        Each image is read next to its first title.
        """
        batch, head = chunk.batch, _cross(self.context.model)
        device = chunk.images.cls.device
        own = slice(chunk.start, chunk.start + len(batch))
        places, index = prepared.places[own], prepared.index[own]
        first_titles = torch.arange(len(batch))
        first_titles = first_titles * (len(batch.own) // len(batch))
        _, read = head.fusion.both(
            States(batch.text.input_ids, batch.text.attention_mask).select(first_titles),
            chunk.images.states,
            to_device(places, device),
        )
        rows = places.flatten().nonzero().flatten()
        outputs = head.mfm_head(read.flatten(0, 1).index_select(0, to_device(rows, device)))
        temperature = self.context.config.objectives.mfm_temperature
        own_rows = to_device(index.flatten()[rows], device)
        losses = masked_patch_losses(outputs, own_rows, prepared.candidates, temperature)
        return losses.sum() / max(1.0, prepared.count)

    def _patches(self, images: Encoded) -> tuple[Tensor, Tensor]:
        """Return what the joint encoder reads, [B, P, F], and which are no padding, [B, P] bool.

        The second is on the host. Only regions have padding; their mask is read from the GPU.
        """
        assert images.features is not None
        features = images.features
        if _cross(self.context.model).fusion.drops_first:
            features = features.without_first()
        if features.mask is None:
            return features.values, torch.ones(features.values.shape[:2], dtype=torch.bool)
        return features.values, features.mask.cpu()


def _token_logits(model: RetrievalModel, batch: Batch, images: Encoded) -> Tensor:
    """Predict the hidden tokens, each title next to its own image: [M, V]."""
    head, masked = _cross(model), _masked(batch)
    shown = replace(batch.text, input_ids=masked.input_ids)
    texts = head.text_states(model.dual, shown)
    states = head.fusion(texts, images.states, to_device(batch.own, texts.values.device))
    rows = states.flatten(0, 1).index_select(0, _hidden_tokens(batch))
    logits: Tensor = head.mlm_head(rows, model.dual.text_encoder.word_table)
    return logits


def _hidden_tokens(batch: Batch) -> Tensor:
    """Return the positions [M] of the hidden tokens in the flattened titles [Q * L]."""
    places = _masked(batch).targets.flatten().nonzero().flatten()
    return to_device(places, batch.text.input_ids.device)


def _masked(batch: Batch) -> Masked:
    assert batch.masked is not None, "the batches were made without masking"
    return batch.masked


def _cross(model: RetrievalModel) -> Any:
    """The matching head, untyped: it has the heads that its configuration trains."""
    return model.cross
