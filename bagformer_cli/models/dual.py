"""The dual encoder: two towers whose outputs meet in a late interaction.

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
    Codes,
    Packed,
    bags_as_tokens,
    content_tokens,
    first_of,
    join,
    pack,
    pooled_cells,
    sum_bags,
)
from bagformer_cli.encoders.regions import IntoText, RegionEncoder
from bagformer_cli.encoders.text import BagOfWords, TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.errors import ConfigError
from bagformer_cli.messages import tr
from bagformer_cli.vectors.multi_vectors import MultiVectors


@dataclass
class Encoded:
    """One side of a batch, encoded.

    Attributes:
        vectors: Unit vectors, what an item is searched and found by.
        cls: [B, D] unit vectors, one an item.
        states: [B, L, W] or [B, P, W], what the slow scorer sees.
        mask: [B, L] or [B, P] bool, True keeps; None: all.
        late: Unit vectors of the late interaction; ``vectors`` unless those are one an item; None
            where there is no late interaction.
        maps: Earlier, finer feature maps of an image, where a slow scorer wants them.
        features: [B, P, F] what the vision encoder says, before any shared encoder; None: a title.
    """

    vectors: MultiVectors
    cls: Tensor
    states: Tensor
    mask: Tensor | None = None
    late: MultiVectors | None = None
    maps: list[Tensor] = field(default_factory=list)
    features: Tensor | None = None


class DualEncoder(nn.Module):
    """Text and vision encoder, their projections, and the choice of vectors.

    Args:
        text: The text tower.
        vision: The image tower.
        config: Which vectors, how many, how long, and whether bags are made early or late.
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
        self.text_proj = nn.Linear(text.width, config.embed_dim)
        self.vision_proj = nn.Linear(self.image_width, config.embed_dim)
        self.interaction = config.interaction
        self.early = config.bag_fusion == "early"
        self.config = config
        self.wants_maps = False
        self.shared: IntoText | None = None
        self.text_codes: Codes | None = None
        self.image_codes: Codes | None = None
        self.head: SummaryHead | None = None
        if config.shared is not None:
            grid_width = vision.width if vision.has_class else None
            self.shared = IntoText(grid_width, text.width, config.shared.cells)
        if config.codes:
            self._require_room_for_codes()
            self.text_codes = Codes(config.codes, text.width)
            self.image_codes = Codes(config.codes, self.image_width)
        if config.head is not None:
            self.head = SummaryHead(config.head, text.width, self.image_width, config.embed_dim)
        if config.freeze_towers:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith("head."))

    def train(self, mode: bool = True) -> Self:
        """Training mode; frozen towers stay in evaluation mode."""
        super().train(mode)
        if mode and self.config.freeze_towers:
            for name, module in self.named_children():
                module.train(name == "head")
        return self

    def encode_texts(self, text: TextBatch) -> Encoded:
        """Titles to vectors; see :class:`Encoded`."""
        codes = None if self.text_codes is None else self.text_codes()
        extra = {} if codes is None else {"codes": codes}
        if self.early:
            words = self.text_encoder.word_embeddings(text.input_ids)
            inputs, mask, layout = bags_as_tokens(words, text)
            states = self.text_encoder(None, mask, inputs_embeds=inputs, **extra)
        else:
            layout, mask = text, text.attention_mask
            states = self.text_encoder(text.input_ids, mask, **extra)
        length = mask.shape[1]
        states, tail = states[:, :length], states[:, length:]
        if self.head is not None:
            cls = F.normalize(self.head.text(states, mask), dim=-1)
        else:
            cls = F.normalize(self.text_proj(states[:, 0]), dim=-1)
        late = None
        if self.config.late is not None:
            kept = self._text_vectors(self.config.late, states, layout, tail)
            values, offsets = kept
            late = MultiVectors(F.normalize(self.text_proj(values), dim=-1), offsets)
        return Encoded(self._searched(cls, late), cls, states, mask, late)

    def encode_images(self, pixels: Tensor) -> Encoded:
        """Normalised images [B, 3, H, W], or regions, to vectors; see :class:`Encoded`."""
        codes = None if self.image_codes is None else self.image_codes()
        mask = self.vision_encoder.mask(pixels)
        maps: list[Tensor] = []
        if self.wants_maps:
            states, maps = self.vision_encoder.forward_maps(pixels)
        elif codes is not None and self.shared is None:
            states = self.vision_encoder(pixels, codes)
        else:
            states = self.vision_encoder(pixels)
        features = states if codes is None or self.shared is not None else states[:, : -len(codes)]
        if self.shared is not None:
            states = self.text_encoder.layers(self.shared(states), mask, codes)
        length = states.shape[1] - (0 if codes is None else len(codes))
        states, tail = states[:, :length], states[:, length:]
        if self.head is not None:
            cls = F.normalize(self.head.image(states, mask), dim=-1)
        elif self.config.late is None:
            cls = F.normalize(self.vision_proj(states[:, 0]), dim=-1)
        late = None
        if self.config.late is not None:
            values, offsets = self._image_vectors(states, mask, tail)
            projected = F.normalize(self.vision_proj(values), dim=-1)
            late = MultiVectors(projected, offsets)
            if self.head is None and self._has_first:
                cls = projected[offsets[:-1].to(projected.device)]
            elif self.head is None:
                cls = F.normalize(self.vision_proj(states[:, 0]), dim=-1)
        return Encoded(self._searched(cls, late), cls, states, mask, late, maps, features)

    def _searched(self, cls: Tensor, late: MultiVectors | None) -> MultiVectors:
        return one_each(cls) if self.config.single or late is None else late

    def _text_vectors(
        self, interaction: Interaction, states: Tensor, layout: TextBatch, tail: Tensor
    ) -> Packed:
        """Which states of a title are scored, packed and not yet projected."""
        if interaction == "bagwise":
            kept = sum_bags(states, layout), layout.bag_offsets
        else:
            kept = content_tokens(states, layout)
        keep = self.config.keep
        if keep != "all" and keep > 1:
            kept = first_of(join(pack(states[:, :1]), kept), keep)
        return join(kept, pack(tail)) if tail.shape[1] else kept

    @property
    def _has_first(self) -> bool:
        """Whether the image's position 0 comes first among its vectors."""
        grid = self.vision_encoder.has_class and self.config.keep not in ("all", 1)
        return self.config.image_first and not grid

    def _image_vectors(self, states: Tensor, mask: Tensor | None, tail: Tensor) -> Packed:
        """Which states of an image are scored, packed and not yet projected."""
        keep = self.config.keep
        few = keep != "all" and keep > 1
        if few and self.vision_encoder.has_class:
            kept = pack(pooled_cells(states[:, 1:], int(keep)))
        else:
            first = 0 if self.config.image_first else 1
            kept = pack(states[:, first:], None if mask is None else mask[:, first:])
            if few:
                kept = first_of(kept, int(keep))
        return join(kept, pack(tail)) if tail.shape[1] else kept

    def image_cells(self, vectors: int) -> range:
        """Which of an image's ``vectors`` late vectors are the cells of its grid, row by row.

        The others, its class vector and learned codes, saw the whole image.
        """
        few = self.config.keep not in ("all", 1)
        first = 0 if few or not self.config.image_first else 1
        return range(first, vectors - (0 if self.image_codes is None else len(self.image_codes)))

    def _require_room_for_codes(self) -> None:
        if self.shared is None and not self.vision_encoder.takes_codes:
            raise ConfigError(
                tr("This image encoder has no sequence that codes could be appended to."),
                where="model.codes",
                expected=tr(
                    "a plain vision transformer as image.backbone, or model.shared: {{cells: 32}}"
                ),
            )


def one_each(rows: Tensor) -> MultiVectors:
    """[B, D] rows as lists of one vector."""
    return MultiVectors(rows, torch.arange(len(rows) + 1))
