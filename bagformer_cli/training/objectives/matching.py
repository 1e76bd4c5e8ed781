"""Image-text matching (ITM): does this title belong to this image? Hard negatives are drawn here.

Each batch gives right pairs and wrong pairs, which go through the cross-encoder in a separate
forward pass. With ``itm_negatives: hard`` and three pairs (0, 0) (1, 1) (2, 2)::

    right pairs                   (0, 0) (1, 1) (2, 2)    label 1
    a wrong image for each title  (0, 2) (1, 0) (2, 0)    label 0
    a wrong title for each image  (1, 0) (2, 1) (0, 2)    label 0

:func:`bagformer_cli.losses.matching.hard_negatives` draws the wrong partners. A partner with a
higher ITC score is drawn more often.

Shapes: B images of this process, Q titles, n pairs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bagformer_cli.losses.matching import hard_negatives, matching_loss, reversed_negatives
from bagformer_cli.training.encoded_batch import Context, EncodedBatch
from bagformer_cli.training.objectives.base import Objective, PairObjective


class LabelledPairs(NamedTuple):
    """Pairs for the matching head.

    Attributes:
        texts: [n] int64, position of each pair's title.
        images: [n] int64, position of each pair's image.
        labels: [n] int64, 1: a match.
    """

    texts: Tensor
    images: Tensor
    labels: Tensor


class MatchingObjective(PairObjective):
    """Binary classification of right and wrong pairs (ALBEF, section 3.2)."""

    name = "itm_loss"

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return the objective if ``objectives.itm`` is above 0."""
        weight = context.config.objectives.itm
        return [cls(context, weight)] if weight > 0 else []

    def loss(self, chunk: EncodedBatch, prepared: None) -> Tensor:
        """Compute the mean loss over the chunk's pairs, times the chunk's share of the batch.

        Negatives come from the chunk: with ``training.micro_batch_size`` there are fewer to draw
        from. Reports ``itm_accuracy``, the share of pairs that are classified correctly.
        """
        pairs = self.draw_pairs(chunk)
        head: Any = self.context.model.cross
        logits = head(
            chunk.texts.states.select(pairs.texts), chunk.images.states.select(pairs.images)
        )
        found = logits.detach()
        guessed = found[:, 0] > 0 if found.shape[1] == 1 else found.argmax(dim=1)
        accuracy = float((guessed == pairs.labels).float().mean())
        chunk.report["itm_accuracy"] = accuracy * chunk.share
        return matching_loss(logits, pairs.labels) * chunk.share

    def draw_pairs(self, chunk: EncodedBatch) -> LabelledPairs:
        """Draw right and wrong pairs as ``objectives.itm_negatives`` says.

        ``hard``: take a share ``itm_share`` of the images, each with one of its titles. Each of
        these right pairs adds two wrong pairs: its title with a wrong image, its image with a
        wrong title. ``shuffled``: take all titles, half of them with a wrong image (the winners
        of the QQ-browser challenge).
        """
        settings, own = self.context.config.objectives, chunk.batch.own
        positives = chunk.own_positives()
        if settings.itm_negatives == "shuffled":
            return LabelledPairs(*reversed_negatives(own, positives))
        with torch.no_grad():
            logits = chunk.texts.cls @ chunk.images.cls.T / self.context.model.temperature
        images = positives.shape[1]
        count = max(1, round(settings.itm_share * images))
        # The titles of an image are neighbours, k each: every k-th row is one title an image.
        rows = torch.arange(count, device=own.device) * (len(own) // images)
        columns = own[rows]
        wrong_images, has_image = hard_negatives(logits[rows], positives[rows])
        wrong_texts, has_text = hard_negatives(logits.T[columns], positives.T[columns])
        texts = torch.cat([rows, rows[has_image], wrong_texts[has_text]])
        labels = torch.zeros(len(texts), dtype=torch.int64, device=positives.device)
        labels[: len(rows)] = 1
        return LabelledPairs(
            texts, torch.cat([columns, wrong_images[has_image], columns[has_text]]), labels
        )

    def random_guess_loss(self, batch_size: int) -> float:
        """Return ln 2."""
        return math.log(2)
