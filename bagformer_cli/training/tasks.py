"""A task is a model and its objectives: a batch in, named losses out. The loop knows no more.

Shapes: B images in the batch, Q titles, L text positions, P patches, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bagformer_cli.config import ObjectivesConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.interaction.vectors import MultiVectors
from bagformer_cli.losses.contrastive import contrastive_loss
from bagformer_cli.losses.matching import hard_negatives, matching_loss
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded


@dataclass
class StepOutput:
    """What one batch gave.

    Attributes:
        losses: Name ending in ``_loss`` to scalar, not yet weighted.
        weights: What each counts in the total.
        report: Figures worth logging beside the losses.
    """

    losses: dict[str, Tensor]
    weights: dict[str, float]
    report: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum, what is back-propagated."""
        return torch.stack([self.weights[name] * loss for name, loss in self.losses.items()]).sum()


class RetrievalTask(nn.Module):
    """ITC, late interaction and ITM on pairs (BagFormer, section 3.4; ALBEF, section 3.2).

    Args:
        model: The dual encoder, and the matching head where ``objectives.itm`` is above 0.
        objectives: Weights and settings of the losses.
    """

    def __init__(self, model: RetrievalModel, objectives: ObjectivesConfig) -> None:
        super().__init__()
        self.model = model
        self.objectives = objectives
        late = objectives.late_interaction if model.dual.interaction != "cls" else 0.0
        weights = {
            "itc_loss": objectives.itc,
            "late_interaction_loss": late,
            "itm_loss": objectives.itm,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}

    def chance(self, batch_size: int) -> dict[str, float]:
        """Each loss's value for a model that knows nothing."""
        titles = batch_size * self.model.config.data.titles_per_image
        contrastive = (math.log(batch_size) + math.log(titles)) / 2
        values = {
            "itc_loss": contrastive,
            "late_interaction_loss": contrastive,
            "itm_loss": math.log(2),
        }
        return {name: values[name] for name in self.weights}

    def forward(self, batch: Batch) -> StepOutput:
        """The losses of one batch."""
        dual = self.model.dual
        texts = dual.encode_texts(batch.text)
        images = dual.encode_images(batch.pixels())
        positives = self._positives(batch)
        temperature = self.model.temperature
        similarity = texts.cls @ images.cls.T
        losses: dict[str, Tensor] = {}
        if "itc_loss" in self.weights:
            losses["itc_loss"] = contrastive_loss(similarity, similarity.T, positives, temperature)
        if "late_interaction_loss" in self.weights:
            losses["late_interaction_loss"] = self._late(texts, images, positives)
        report = {"temperature": float(temperature.detach())}
        if "itm_loss" in self.weights:
            logits = (similarity / temperature).detach()
            losses["itm_loss"], report["itm_accuracy"] = self._matching(
                texts, images, logits, positives, batch.own
            )
        return StepOutput(losses, self.weights, report)

    def _positives(self, batch: Batch) -> Tensor:
        if self.objectives.share_positives:
            return batch.positives
        places = torch.arange(len(batch), device=batch.own.device)
        return batch.own[:, None] == places

    def _late(self, texts: Encoded, images: Encoded, positives: Tensor) -> Tensor:
        t2i, i2t = maxsim(texts.vectors, images.vectors)
        return self._contrast(t2i, i2t, texts.vectors, images.vectors, positives)

    def _contrast(
        self,
        t2i: Tensor,
        i2t: Tensor,
        texts: MultiVectors,
        images: MultiVectors,
        positives: Tensor,
    ) -> Tensor:
        if self.objectives.late_scale == "sum":
            return contrastive_loss(t2i, i2t, positives)
        t2i = t2i / texts.lengths.to(t2i.device)[:, None]
        i2t = i2t / images.lengths.to(i2t.device)[:, None]
        return contrastive_loss(t2i, i2t, positives, self.model.temperature)

    def _matching(
        self, texts: Encoded, images: Encoded, logits: Tensor, positives: Tensor, own: Tensor
    ) -> tuple[Tensor, float]:
        """Titles with their own image and with a wrong one; those images with a wrong title."""
        head: Any = self.model.cross
        n_images = positives.shape[1]
        seen = max(1, round(self.objectives.itm_share * n_images))
        # one title an image: every k-th, where each image has k of them side by side
        rows = torch.arange(seen, device=own.device) * (len(own) // n_images)
        shown = own[rows]
        wrong_images, has_image = hard_negatives(logits[rows], positives[rows])
        wrong_texts, has_text = hard_negatives(logits.T[shown], positives.T[shown])
        text_index = torch.cat([rows, rows[has_image], wrong_texts[has_text]])
        image_index = torch.cat([shown, wrong_images[has_image], shown[has_text]])
        assert texts.mask is not None
        # index_select, not states[index]: the gradient of that is added up by several threads in
        # no fixed order, and a resumed run would no longer be the unbroken one to the bit
        pair_logits = head(
            texts.states.index_select(0, text_index),
            texts.mask[text_index],
            images.states.index_select(0, image_index),
        )
        labels = torch.zeros(len(text_index), dtype=torch.int64, device=positives.device)
        labels[: len(rows)] = 1
        accuracy = (pair_logits.detach().argmax(dim=1) == labels).float().mean()
        return matching_loss(pair_logits, labels), float(accuracy)
