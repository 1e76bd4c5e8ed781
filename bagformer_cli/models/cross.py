"""The slow scorers: cross-encoders over (title, image).

What a slow scorer sees of either side it says itself (``text_states``, ``image_states``), so that
any of them can rerank what any fast scorer found.

Shapes: K pairs, B items, L text positions, P image positions, W width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.config import CrossConfig, ImageConfig, TextConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.finer import ConvStem, FinerFeatures
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.joint import JointEncoder, PredictionHead
from bagformer_cli.models.dual import DualEncoder, Encoded


class SlowScorer(nn.Module):
    """What the matching head and the captioner have in common: they score pairs."""

    def see_texts(self, text: TextBatch, encoded: Encoded) -> Encoded:
        """The titles with the states that :meth:`score` takes."""
        return encoded

    def see_images(self, pixels: Tensor, encoded: Encoded) -> Encoded:
        """The images with the states that :meth:`score` takes."""
        return encoded

    def score(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """One number a pair, [K] float32; higher is a better match."""
        raise NotImplementedError


class MatchingHead(SlowScorer):
    """ITM: an encoder of both sides, then two logits (no match, match) of position 0, or one.

    ALBEF, section 3.2; one logit as the QQ-browser challenge's winners have it.

    Args:
        fusion: The layers in which the title meets the image.
        width: Width of the text states.
        logits: 2, or 1, the log-odds of a match.
    """

    def __init__(self, fusion: FusionEncoder | JointEncoder, width: int, logits: int = 2) -> None:
        super().__init__()
        self.fusion: Any = fusion
        self.itm_head = nn.Linear(width, logits)
        self.mlm_head: PredictionHead | None = None  # masked modelling, where it is trained
        self.mfm_head: PredictionHead | None = None

    def see_texts(self, text: TextBatch, encoded: Encoded) -> Encoded:
        """The text tower's states, or the ids where one encoder reads both sides."""
        if not self.fusion.reads_words:
            return encoded
        return replace(encoded, states=text.input_ids, mask=text.attention_mask)

    def read(self, dual: DualEncoder, text: TextBatch) -> Tensor:
        """The states of titles that are not encoded yet, as :meth:`forward` takes them."""
        return text.input_ids if self.fusion.reads_words else dual.encode_texts(text).states

    def see_images(self, pixels: Tensor, encoded: Encoded) -> Encoded:
        """The image's states, or where one encoder reads both sides the vision encoder's."""
        if not self.fusion.reads_words or encoded.features is None:
            return encoded
        first = int(self.fusion.drops_first)
        mask = encoded.mask
        return replace(
            encoded,
            states=encoded.features[:, first:],
            mask=mask if mask is None else mask[:, first:],
        )

    def forward(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits of pairs.

        Args:
            text_states: [K, L, W].
            text_mask: [K, L] bool, True keeps.
            image_states: [K, P, W'].
            image_mask: [K, P] bool, True keeps; None: all.

        Returns:
            [K, 2]: no match, match; or [K, 1].
        """
        fused = self.fusion(text_states, text_mask, image_states, image_mask)
        logits: Tensor = self.itm_head(fused[:, 0])
        return logits

    def score(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """One number a pair: the log-odds of a match, [K] float32."""
        logits: Tensor = self(text_states, text_mask, image_states, image_mask).float()
        if logits.shape[1] == 1:
            return logits[:, 0]
        return torch.sub(logits[:, 1], logits[:, 0])


class Captioner(SlowScorer):
    """How likely a title is as the image's caption, read forwards and backwards.

    ``h(x, y) = Σ_l log p(y_l | y_<l, x) + Σ_l log p(y_l | y_>l, x)`` (Thinking Fast and Slow,
    eq. 1). Two decoders over the same words: reading forwards begins at [CLS] and ends with
    predicting [SEP], reading backwards the other way round. Position l of the forward decoder sees
    positions up to l and predicts l + 1, that of the backward decoder sees those from l on and
    predicts l - 1.

    Args:
        config: Layers, and how much finer than the last map the image is looked at.
        text: Width, heads and the longest title.
        image: Its backbone decides where finer maps come from.
        dual: The towers whose image states are looked at.
        vocab_size: V.
    """

    def __init__(
        self,
        config: CrossConfig,
        text: TextConfig,
        image: ImageConfig,
        dual: DualEncoder,
        vocab_size: int,
    ) -> None:
        super().__init__()
        width = text.width
        vision: Any = dual.vision_encoder
        self.stem: ConvStem | None = None
        self.finer: FinerFeatures | None = None
        seen_width = dual.image_width
        if config.finer and image.regions is None:
            channels = vision.map_channels
            if not channels:  # a vision transformer
                self.stem = ConvStem(width)
                channels = self.stem.channels
            self.finer = FinerFeatures(dual.image_width, channels[: config.finer], width)
            seen_width = width
            dual.wants_maps = self.stem is None
        self.words = nn.Embedding(vocab_size, width)
        self.places = nn.Embedding(text.max_tokens, width)
        self.norm = nn.LayerNorm(width)
        self.forwards = FusionEncoder(text, config.layers, seen_width)
        self.backwards = FusionEncoder(text, config.layers, seen_width)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=text.options.get("initializer_range", 0.02))

    def see_texts(self, text: TextBatch, encoded: Encoded) -> Encoded:
        """Its states of titles are their ids, [B, L] int64."""
        return replace(encoded, states=text.input_ids, mask=text.attention_mask)

    def see_images(self, pixels: Tensor, encoded: Encoded) -> Encoded:
        """Its states of images are the cells of the refined map, [B, P, W]."""
        if self.finer is None:
            return encoded
        maps = encoded.maps if self.stem is None else self.stem(pixels)
        return replace(encoded, states=self.finer(encoded.states[:, 1:], maps), maps=[])

    def forward(
        self,
        ids: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of every token that is predicted.

        Args:
            ids: [K, L] int64, from [CLS] to [SEP], padding behind.
            text_mask: [K, L] bool, True keeps.
            image_states: [K, P, W'].
            image_mask: [K, P] bool, True keeps; None: all.

        Returns:
            Two [K, L - 1] float32: of tokens 1 ... L - 1 read forwards and of tokens 0 ... L - 2
            read backwards; 0 where that is padding.
        """
        ids = ids.long()
        length = ids.shape[1]
        places = torch.arange(length, device=ids.device)
        states = self.norm(self.words(ids) + self.places(places))
        before = places[:, None] >= places[None, :]
        itself = before & before.T  # rows of padding see themselves, so that no softmax is empty
        kept = text_mask[:, None, :]
        read = self.forwards(states, (before & kept) | itself, image_states, image_mask)
        ahead = self._likelihood(read[:, :-1], ids[:, 1:], text_mask[:, 1:])
        read = self.backwards(states, (before.T & kept) | itself, image_states, image_mask)
        behind = self._likelihood(read[:, 1:], ids[:, :-1], text_mask[:, 1:])
        return ahead, behind

    def _likelihood(self, states: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
        logits = F.linear(states, self.words.weight, self.bias).float()
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return -losses.view(wanted.shape) * mask

    def score(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """The sum of both readings' log-likelihoods, [K] float32."""
        ahead, behind = self(text_states, text_mask, image_states, image_mask)
        return torch.add(ahead.sum(dim=1), behind.sum(dim=1))
