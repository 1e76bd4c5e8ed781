"""Cross-encoders: models that read a title and an image together and score the pair.

A cross-encoder says itself which states of either side it reads (:meth:`CrossEncoder.read_texts`,
:meth:`CrossEncoder.read_images`), so any of them can rerank the candidates of any dual encoder.

Shapes: K pairs, B items, L text positions, P image positions, W width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.config import CrossConfig, ImageConfig, TextConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.joint import JointEncoder, PredictionHead
from bagformer_cli.encoders.pyramid import ConvStem, FeaturePyramid
from bagformer_cli.encoders.states import States
from bagformer_cli.encoders.token_maxsim import TokenMaxSim
from bagformer_cli.models.dual import DualEncoder, Encoded


class CrossEncoder(nn.Module):
    """Base class of the matching head and the captioner."""

    def read_texts(self, text: TextBatch, encoded: Encoded) -> Encoded:
        """Set ``encoded.states`` of titles to what :meth:`score` reads."""
        return encoded

    def read_images(self, pixels: Tensor | States, encoded: Encoded) -> Encoded:
        """Set ``encoded.states`` of images to what :meth:`score` reads."""
        return encoded

    def score(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Score pairs.

        Args:
            texts: K titles as :meth:`read_texts` leaves them.
            images: B images as :meth:`read_images` leaves them.
            rows: [K] int64, the image of each title; None: title k belongs to image k. An image
                that several pairs share is then projected only once.

        Returns:
            [K] float32, higher for a better match.
        """
        raise NotImplementedError


class MatchingHead(CrossEncoder):
    """Image-text matching (ITM): an encoder of both sides and a classifier on position 0.

    ALBEF, section 3.2; with one logit as the winners of the QQ-browser challenge have it.

    Args:
        fusion: The layers in which a title attends to an image.
        width: Width of the text states.
        logits: 2: no match and match, trained with cross-entropy; 1: the log-odds of a match.
    """

    def __init__(self, fusion: FusionEncoder | JointEncoder, width: int, logits: int = 2) -> None:
        super().__init__()
        self.fusion: Any = fusion
        self.itm_head = nn.Linear(width, logits)
        self.mlm_head: PredictionHead | None = None  # set where masked modelling is trained
        self.mfm_head: PredictionHead | None = None
        self.token_maxsim: TokenMaxSim | None = None  # set where the configuration has it

    def read_texts(self, text: TextBatch, encoded: Encoded) -> Encoded:
        """Read the text tower's states; the joint encoder reads token ids."""
        if not self.fusion.reads_ids:
            return encoded
        return replace(encoded, states=States(text.input_ids, text.attention_mask))

    def read_images(self, pixels: Tensor | States, encoded: Encoded) -> Encoded:
        """Read the image tower's states; the joint encoder reads the vision encoder's."""
        if not self.fusion.reads_ids or encoded.features is None:
            return encoded
        features = encoded.features
        if self.fusion.drops_first:
            features = features.without_first()
        return replace(encoded, states=features)

    def text_states(self, dual: DualEncoder, text: TextBatch) -> States:
        """Encode titles to what :meth:`forward` reads."""
        if self.fusion.reads_ids:
            return States(text.input_ids, text.attention_mask)
        return dual.encode_texts(text).states

    def forward(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Compute the logits of K pairs: [K, 2] (no match, match), or [K, 1]; see :meth:`score`."""
        if self.token_maxsim is not None:
            texts = self.token_maxsim(texts, images, rows)
        fused = self.fusion(texts, images, rows)
        logits: Tensor = self.itm_head(fused[:, 0])
        return logits

    def score(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Score K pairs by the log-odds of a match, [K] float32."""
        logits: Tensor = self(texts, images, rows).float()
        if logits.shape[1] == 1:
            return logits[:, 0]
        # Cross-entropy determines only the difference: a single logit may drift with the pair.
        return torch.sub(logits[:, 1], logits[:, 0])


class Captioner(CrossEncoder):
    """Score a title by its log-likelihood as the image's caption, read in both directions.

    ``h(x, y) = Σ_l log p(y_l | y_<l, x) + Σ_l log p(y_l | y_>l, x)`` (Thinking Fast and Slow,
    eq. 1). Two decoders read the same tokens; for a title of two tokens::

        position l              0      1    2    3
        token                   [CLS]  红   裙   [SEP]
        forward decoder sees    0..l and predicts l + 1:   红  裙  [SEP]
        backward decoder sees   l..3 and predicts l - 1:   [CLS]  红  裙

    Args:
        config: Number of layers; number of steps of the feature pyramid (``finer``).
        text: Width, heads and the longest title.
        image: Regions have no finer maps.
        dual: The dual encoder whose image states are read.
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
        self.finer: FeaturePyramid | None = None
        image_width = dual.image_width
        if config.finer and image.regions is None:
            channels = vision.map_channels
            if not channels:  # a vision transformer: compute finer maps from the pixels
                self.stem = ConvStem(width)
                channels = self.stem.channels
            self.finer = FeaturePyramid(dual.image_width, channels[: config.finer], width)
            image_width = width
            dual.wants_maps = self.stem is None
        self.words = nn.Embedding(vocab_size, width)
        self.places = nn.Embedding(text.max_tokens, width)
        self.norm = nn.LayerNorm(width)
        self.forwards = FusionEncoder(text, config.layers, image_width)
        self.backwards = FusionEncoder(text, config.layers, image_width)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=text.options.get("initializer_range", 0.02))

    def read_texts(self, text: TextBatch, encoded: Encoded) -> Encoded:
        """Read token ids, [B, L] int64."""
        return replace(encoded, states=States(text.input_ids, text.attention_mask))

    def read_images(self, pixels: Tensor | States, encoded: Encoded) -> Encoded:
        """Read the image tower's states, or the cells of the feature pyramid, [B, P, W]."""
        if self.finer is None:
            return encoded
        maps = encoded.maps if self.stem is None else self.stem(cast(Tensor, pixels))
        cells = self.finer(encoded.states.values[:, 1:], maps)
        return replace(encoded, states=States(cells), maps=[])

    def forward(
        self, texts: States, images: States, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the log-likelihood of every predicted token.

        Args:
            texts: [K, L] token ids from [CLS] to [SEP], then padding.
            images: [B, P, W'] states.
            rows: [K] int64, the image of each title; None: title k belongs to image k.

        Returns:
            Two [K, L - 1] float32, 0 at padding: tokens 1 … L - 1 read forwards, and tokens
            0 … L - 2 read backwards.
        """
        ids, mask = texts.values.long(), texts.kept
        position = torch.arange(ids.shape[1], device=ids.device)
        states = self.norm(self.words(ids) + self.places(position))
        up_to = position[:, None] >= position[None, :]
        # Padding rows see themselves: a softmax over nothing would be NaN.
        itself = up_to & up_to.T
        kept = mask[:, None, :]
        read = self.forwards(States(states, (up_to & kept) | itself), images, rows)
        ahead = self._log_likelihood(read[:, :-1], ids[:, 1:], mask[:, 1:])
        read = self.backwards(States(states, (up_to.T & kept) | itself), images, rows)
        behind = self._log_likelihood(read[:, 1:], ids[:, :-1], mask[:, 1:])
        return ahead, behind

    def _log_likelihood(self, states: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
        logits = F.linear(states, self.words.weight, self.bias).float()
        # cross_entropy takes two dimensions; ONNX cannot express the way back from them.
        found = logits.log_softmax(dim=-1).gather(2, wanted[..., None])[..., 0]
        return found * mask

    def score(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Score K pairs by the sum of both directions' log-likelihoods, [K] float32."""
        ahead, behind = self(texts, images, rows)
        return torch.add(ahead.sum(dim=1), behind.sum(dim=1))
