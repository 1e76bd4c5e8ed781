"""Captioning: predict every token of a title from its image, forwards and backwards."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from bagformer_cli.losses.captioning import captioning_loss
from bagformer_cli.training.encoded_batch import Context, EncodedBatch
from bagformer_cli.training.objectives.base import Objective, PairObjective
from bagformer_cli.transfer import to_device


class CaptioningObjective(PairObjective):
    """Negative log-likelihood of titles given their own images (Thinking Fast and Slow, eq. 2)."""

    name = "caption_loss"

    @classmethod
    def build(cls, context: Context) -> list[Objective]:
        """Return the objective if ``objectives.caption`` is above 0."""
        weight = context.config.objectives.caption
        return [cls(context, weight)] if weight > 0 else []

    def loss(self, chunk: EncodedBatch, prepared: None) -> Tensor:
        """Compute the mean over the chunk's tokens, times the chunk's share of the batch."""
        captioner: Any = self.context.model.cross
        titles = chunk.texts.states
        own = to_device(chunk.batch.own, titles.values.device)
        forward, backward = captioner(titles, chunk.images.states, own)
        return captioning_loss(forward, backward, titles.kept[:, 1:]) * chunk.share

    def random_guess_loss(self, batch_size: int) -> float:
        """Return ln of the vocabulary size for each of the two directions."""
        return 2 * math.log(self.context.model.titles.tokenizer.vocab_size)
