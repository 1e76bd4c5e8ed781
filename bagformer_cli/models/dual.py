"""The dual encoder: a text tower and an image tower that turn items into unit vectors.

::

    titles ─▶ text_encoder ─▶ states [B, L, W] ─▶ choose ─▶ text_proj ─▶ normalise ─┐
                                                                                   ├▶ MultiVectors
    images ─▶ vision_encoder ─▶ states [B, P, W] ─▶ choose ─▶ vision_proj ─▶ norm. ─┘

``choose`` picks the states that are scored: position 0 (``cls``), tokens, bags, patches, the first
``keep`` of them, code tokens. Every paper here differs in that choice only.

Shapes: B batch, L text positions, P image positions, W width of a tower, D embedding dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagformer_cli.config import Interaction, ModelConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.fusion import SummaryHead
from bagformer_cli.encoders.pooling import (
    CodeTokens,
    bags_as_tokens,
    content_tokens,
    pool_grid,
    sum_bags,
)
from bagformer_cli.encoders.regions import RegionEncoder, SharedInput
from bagformer_cli.encoders.states import States, TitleStates
from bagformer_cli.encoders.text import BagOfWords, TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass
class Encoded:
    """One side of a batch, encoded: B titles or B images.

    Attributes:
        vectors: Unit vectors that an item is retrieved by: ``late``, or ``cls`` if the model is
            single-vector.
        cls: [B, D] unit vectors, one per item.
        states: The states that the cross-encoder reads.
        late: Unit vectors of the late interaction; None: the model has none.
        maps: Finer feature maps of an image, coarsest first; only for a captioner that wants them.
        features: States of the vision encoder before a shared text encoder; None for titles.
    """

    vectors: MultiVectors
    cls: Tensor
    states: States
    late: MultiVectors | None = None
    maps: list[Tensor] = field(default_factory=list)
    features: States | None = None


class DualEncoder(nn.Module):
    """Two towers, their projections, and the choice of the states that are scored.

    Args:
        text: The text tower.
        vision: The image tower.
        config: Interaction, bag fusion, number and length of the vectors.

    Raises:
        ConfigError: The configuration has code tokens, but the image tower reads no sequence.
    """

    def __init__(
        self,
        text: TextEncoder | BagOfWords,
        vision: VisionEncoder | RegionEncoder,
        config: ModelConfig,
    ) -> None:
        super().__init__()
        self.text_encoder: Any = text
        self.vision_encoder: Any = vision
        self.image_width = vision.width if config.shared is None else text.width
        self.text_proj = nn.Linear(text.width, config.embed_dim, bias=config.projection_bias)
        self.vision_proj = nn.Linear(
            self.image_width, config.embed_dim, bias=config.projection_bias
        )
        self.interaction = config.interaction
        self.early = config.bag_fusion == "early"
        self.config = config
        self.wants_maps = False
        self.shared: SharedInput | None = None
        self.text_codes: CodeTokens | None = None
        self.image_codes: CodeTokens | None = None
        self.head: SummaryHead | None = None
        self.text_single_proj: nn.Linear | None = None
        self.vision_single_proj: nn.Linear | None = None
        if config.single_projection == "own" and config.late is not None and config.head is None:
            bias = config.projection_bias
            self.text_single_proj = nn.Linear(text.width, config.embed_dim, bias=bias)
            self.vision_single_proj = nn.Linear(self.image_width, config.embed_dim, bias=bias)
        if config.shared is not None:
            grid_width = vision.width if vision.has_class else None
            self.shared = SharedInput(grid_width, text.width, config.shared.cells)
        if config.codes:
            self._require_room_for_codes()
            self.text_codes = CodeTokens(config.codes, text.width, config.code_gain)
            self.image_codes = CodeTokens(config.codes, self.image_width, config.code_gain)
        if config.head is not None:
            self.head = SummaryHead(config.head, text.width, self.image_width, config.embed_dim)
        if config.freeze_towers:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith("head."))

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen towers stay in evaluation mode."""
        super().train(mode)
        if mode and self.config.freeze_towers:
            for name, module in self.named_children():
                module.train(name == "head")
        return self

    def encode_texts(self, titles: TextBatch | TitleStates) -> Encoded:
        """Encode titles; from the text tower's output on, if it is given."""
        text = titles.text if isinstance(titles, TitleStates) else titles
        codes = None if self.text_codes is None else self.text_codes()
        extra = {} if codes is None else {"codes": codes}
        if self.early:
            words = self.text_encoder.word_embeddings(text.input_ids)
            inputs, mask, layout = bags_as_tokens(words, text)
            output = self.text_encoder(None, mask, inputs_embeds=inputs, **extra)
        else:
            layout, mask = text, text.attention_mask
            if isinstance(titles, TitleStates):
                output = titles.values
            else:
                output = self.text_encoder(text.input_ids, mask, **extra)
        # The encoder appends the code tokens to the title: [title positions | code tokens].
        length = mask.shape[1]
        states, code_states = States(output[:, :length], mask), output[:, length:]
        if self.head is not None:
            cls = F.normalize(self.head.summarise_texts(states), dim=-1)
        else:
            cls = self.project_single_text(states.values[:, 0])
        late = None
        if self.config.late is not None:
            chosen = self._choose_text_states(self.config.late, states, layout, code_states)
            late = _projected(chosen, self.text_proj)
        return Encoded(self._retrieved_by(cls, late), cls, states, late)

    def encode_images(self, pixels: Tensor | States) -> Encoded:
        """Encode normalised images [B, 3, S, S], or regions [B, R, F + 5].

        Args:
            pixels: The images, or the image tower's output for them.
        """
        codes = None if self.image_codes is None else self.image_codes()
        kept = pixels if isinstance(pixels, States) else None
        mask = self.vision_encoder.mask(pixels) if kept is None else kept.mask
        maps: list[Tensor] = []
        count = 0 if codes is None else len(codes)
        # Code tokens enter the encoder that all image positions pass last: the vision transformer,
        # or the shared BERT. Its output is [image positions | code tokens].
        if kept is not None:
            output = kept.values
        elif self.wants_maps:
            output, maps = self.vision_encoder.forward_maps(pixels)
        elif codes is None or self.shared is not None:
            output = self.vision_encoder(pixels)
        else:
            output = self.vision_encoder(pixels, codes)
        # `features` are what masked-patch modelling predicts: the vision encoder's output, before
        # a shared BERT has mixed it with other positions.
        features = output
        if self.shared is not None:
            output = self.text_encoder.layers(self.shared(output), mask, codes)
        else:
            features = output[:, : output.shape[1] - count]
        length = output.shape[1] - count
        states, code_states = States(output[:, :length], mask), output[:, length:]
        cls = None
        if self.head is not None:
            cls = F.normalize(self.head.summarise_images(states), dim=-1)
        late = None
        if self.config.late is not None:
            chosen = self._choose_image_states(states, code_states)
            late = _projected(chosen, self.vision_proj)
        shared = self.vision_single_proj is None
        if cls is None and late is not None and shared and self._begins_with_class:
            # Position 0 was projected with the others: take it from there.
            cls = late.values.index_select(0, to_device(late.offsets[:-1], late.device))
        elif cls is None:
            cls = self.project_single_image(states.values[:, 0])
        retrieved_by = self._retrieved_by(cls, late)
        return Encoded(retrieved_by, cls, states, late, maps, States(features, mask))

    def project_single_text(self, state: Tensor) -> Tensor:
        """Project the first state of titles [B, W] to their single vectors [B, D]."""
        own = self.text_single_proj
        return F.normalize((self.text_proj if own is None else own)(state), dim=-1)

    def project_single_image(self, state: Tensor) -> Tensor:
        """Project the first state of images [B, W] to their single vectors [B, D]."""
        own = self.vision_single_proj
        return F.normalize((self.vision_proj if own is None else own)(state), dim=-1)

    def _retrieved_by(self, cls: Tensor, late: MultiVectors | None) -> MultiVectors:
        return one_each(cls) if self.config.single or late is None else late

    def _choose_text_states(
        self, interaction: Interaction, states: States, layout: TextBatch, code_states: Tensor
    ) -> MultiVectors:
        """Choose the states of each title that are scored; they are not projected yet."""
        if interaction == "bagwise":
            chosen = MultiVectors(sum_bags(states.values, layout), layout.bag_offsets)
        else:
            chosen = content_tokens(states.values, layout)
        keep = self.config.keep
        if keep != "all" and keep > 1:
            # Inflate and Shrink keeps position 0 ([CLS]) and the vectors that follow it.
            first = MultiVectors.from_dense(states.values[:, :1])
            chosen = MultiVectors.join([first, chosen]).truncate(keep)
        return _with_codes(chosen, code_states)

    def _choose_image_states(self, states: States, code_states: Tensor) -> MultiVectors:
        """Choose the states of each image that are scored; they are not projected yet."""
        keep = self.config.keep
        few = keep != "all" and keep > 1
        if few and self.vision_encoder.has_class:
            # A patch grid has no order of importance: average its cells instead of truncating.
            chosen = MultiVectors.from_dense(pool_grid(states.values[:, 1:], int(keep)))
        else:
            kept = states if self.config.image_first else states.without_first()
            chosen = MultiVectors.from_dense(kept.values, kept.mask)
            if few:
                chosen = chosen.truncate(int(keep))
        return _with_codes(chosen, code_states)

    @property
    def _begins_with_class(self) -> bool:
        """True if the image's position 0 is the first of its late vectors."""
        grid = self.vision_encoder.has_class and self.config.keep not in ("all", 1)
        return self.config.image_first and not grid

    def grid_vectors(self, vectors: int) -> range:
        """Return which of an image's ``vectors`` late vectors are cells of its grid, row by row.

        The others, class token and code tokens, have seen the whole image.
        """
        few = self.config.keep not in ("all", 1)
        first = 0 if few or not self.config.image_first else 1
        return range(first, vectors - (0 if self.image_codes is None else len(self.image_codes)))

    def _require_room_for_codes(self) -> None:
        if self.shared is None and not self.vision_encoder.takes_codes:
            raise ConfigError(
                tr("This image encoder cannot take code tokens."),
                where="model.codes",
                expected=tr(
                    "a plain vision transformer as image.backbone, or model.shared.cells=32"
                ),
            )


def _with_codes(chosen: MultiVectors, code_states: Tensor) -> MultiVectors:
    """Append the states [B, n, W] of the code tokens to each item's vectors."""
    if not code_states.shape[1]:
        return chosen
    return MultiVectors.join([chosen, MultiVectors.from_dense(code_states)])


def _projected(states: MultiVectors, projection: nn.Module) -> MultiVectors:
    """Project states to unit vectors of the embedding space."""
    return MultiVectors(F.normalize(projection(states.values), dim=-1), states.offsets)


def one_each(rows: Tensor) -> MultiVectors:
    """Turn rows [B, D] into B items of one vector."""
    return MultiVectors(rows, torch.arange(len(rows) + 1))
