"""Image-text matching (ITM): does this title belong to this image? Hard negatives are drawn here.

Each batch gives right pairs and wrong pairs, which go through the cross-encoder in a separate
forward pass. With ``itm_negatives: hard`` and three pairs (0, 0) (1, 1) (2, 2)::

    right pairs                   (0, 0) (1, 1) (2, 2)    label 1
    a wrong image for each title  (0, 2) (1, 0) (2, 0)    label 0
    a wrong title for each image  (1, 0) (2, 1) (0, 2)    label 0

:func:`bagformer_cli.losses.matching.hard_negatives` draws the wrong partners. A partner with a
higher score is drawn more often: by ITC's scores as in ALBEF, or by those of the late interaction
where that was trained and ITC was not. With ``itm_negatives: random`` all are equally likely.

Shapes: B images of this process, Q titles, n pairs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bagformer_cli.losses.matching import hard_negatives, matching_loss, reversed_negatives
from bagformer_cli.models.scorers import fast_scores, late_temperature
from bagformer_cli.training.encoded_batch import Context, EncodedBatch
from bagformer_cli.training.objectives.base import Objective, PairObjective
from bagformer_cli.transfer import to_device


class LabelledPairs(NamedTuple):
    """Pairs for the matching head.

    Attributes:
        texts: [n] int64, position of each pair's title.
        images: [n] int64, position of each pair's image.
        labels: [n] int64, 1: a match.

    All are where the scores are.
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
        logits = head(chunk.texts.states.select(pairs.texts), chunk.images.states, pairs.images)
        found = logits.detach()
        guessed = found[:, 0] > 0 if found.shape[1] == 1 else found.argmax(dim=1)
        accuracy = (guessed == pairs.labels).float().mean().double()
        chunk.report["itm_accuracy"] = accuracy * chunk.share
        return matching_loss(logits, pairs.labels) * chunk.share

    def draw_pairs(self, chunk: EncodedBatch) -> LabelledPairs:
        """Draw right and wrong pairs as ``objectives.itm_negatives`` says.

        ``hard``, ``random``: take a share ``itm_share`` of the images, each with one of its
        titles. Each of these right pairs adds two wrong pairs: its title with a wrong image, its
        image with a wrong title. ``shuffled``: take all titles, half of them with a wrong image
        (the winners of the QQ-browser challenge).
        """
        settings, own = self.context.config.objectives, chunk.batch.own
        positives, device = chunk.own_positives(), chunk.texts.cls.device
        if settings.itm_negatives == "shuffled":
            on_host = reversed_negatives(own, positives)
            return LabelledPairs(*(to_device(numbers, device) for numbers in on_host))
        t2i, i2t = self._logits(chunk)
        if settings.itm_negatives == "random":
            t2i, i2t = torch.zeros_like(t2i), torch.zeros_like(i2t)  # equal scores, equal chances
        images = positives.shape[1]
        count = max(1, round(settings.itm_share * images))
        # The titles of an image are neighbours, k each: every k-th row is one title an image.
        rows = torch.arange(count) * (len(own) // images)
        columns = own[rows]
        # A title or an image that matches all others has no wrong pair. Which those are is known
        # on the host, and with it the number of pairs: nothing is read back from the GPU.
        titles, wrong_images = _negatives(t2i, positives, rows)
        shown, wrong_texts = _negatives(i2t, positives.T, columns)
        labels = torch.zeros(len(rows) + len(titles) + len(shown), dtype=torch.int64)
        labels[: len(rows)] = 1
        own_texts, own_images = to_device(rows, device), to_device(columns, device)
        return LabelledPairs(
            torch.cat([own_texts, to_device(titles, device), wrong_texts]),
            torch.cat([own_images, wrong_images, to_device(shown, device)]),
            to_device(labels, device),
        )

    @torch.no_grad()
    def _logits(self, chunk: EncodedBatch) -> tuple[Tensor, Tensor]:
        """Score the chunk by a scorer that is trained: t2i [Q, B] and i2t [B, Q], scaled."""
        model = self.context.model
        by_late = "late" in model.trained and "cls" not in model.trained
        if not by_late or chunk.texts.late is None or chunk.images.late is None:
            t2i = chunk.texts.cls @ chunk.images.cls.T / model.temperature
            return t2i, t2i.T
        both = fast_scores(model.config, "late", chunk.texts.late, chunk.images.late)
        scale = late_temperature(model)
        return both[0] / scale, both[1] / scale

    def random_guess_loss(self, batch_size: int) -> float:
        """Return ln 2."""
        return math.log(2)


def _negatives(logits: Tensor, positives: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a negative for each of some rows of a score matrix.

    Args:
        logits: [Q, N] scaled scores.
        positives: [Q, N] bool, on the host.
        rows: [m] int64, on the host.

    Returns:
        The rows [k] that have a negative, on the host, and their negatives [k], where the logits
        are.
    """
    chosen, device = positives[rows], logits.device
    drawn, _ = hard_negatives(
        logits.index_select(0, to_device(rows, device)), to_device(chosen, device)
    )
    possible = (~chosen).any(dim=1)
    if bool(possible.all()):
        return rows, drawn
    return rows[possible], drawn.index_select(0, to_device(possible.nonzero()[:, 0], device))
