"""What published BagFormer weights need to give their own numbers (``compat: bagformer``).

Those weights were trained and measured with habits of their code that the normal path does not
have. They are reproduced for one title at a time, behind the seams of the normal path: a title
encoder (:mod:`bagformer_cli.original.text`), and here a dual encoder and a matching head. Which of
the two is used is decided by ``text.build.title_encoder`` and the two functions at the end of this
file; nothing else asks.

The habits (all measured against the original, see the tests):

- the empty bag between two entities becomes ``normalize(text_proj.bias)`` and counts;
- every title is 25 positions long; each [PAD] is a bag; [CLS] and [PAD] bags are zero vectors,
  which still take part in the image side's maxima;
- ``cls`` and ``tokenwise`` are normalised over the 25 positions, channel by channel, and nothing
  is masked; no [SEP] ends a title;
- early fusion embeds twice (positions, types and LayerNorm come on top of sums that had them),
  masks [CLS] in self-attention, and evaluation sums the bags a second time;
- the slow score is the match logit alone, on image features rounded to float16;
- the example in the original's README compares sums of unprojected states with raw image states.

Shapes: B titles, L positions (25), W width, D embedding dimension, G bags of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.joint import JointEncoder
from bagformer_cli.encoders.regions import RegionEncoder
from bagformer_cli.encoders.text import BagOfWords, TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.models.cross import MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded, one_each
from bagformer_cli.vectors.multi_vectors import MultiVectors

MASKED = -1e4  # what the original adds to the attention scores of a masked position
ABSENT = -1e9  # a position that the original's shorter batch does not have at all

# -------------------------------------------------------------------------------- bags → vectors


@dataclass
class Positions:
    """A batch as the original lays it out: every title L positions, every [PAD] a bag.

    Attributes:
        input_ids: [B, L].
        attention_mask: [B, L] bool, False for padding.
        present: [B, L] bool: bag j of the title exists.
        mask: [B, L] bool: it exists and is neither exactly [CLS] nor exactly [PAD].
        offsets: [G] where each bag begins in the flat [B * L] positions, for ``embedding_bag``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    present: Tensor
    mask: Tensor
    offsets: Tensor

    def sum_bags(self, states: Tensor) -> Tensor:
        """[B, L, W] positions to [B, L, W] bags, zeros where there is none."""
        flat = states.reshape(-1, states.shape[-1])
        index = torch.arange(len(flat), device=flat.device)
        bags = F.embedding_bag(index, flat, self.offsets, mode="sum")
        return torch.zeros_like(states).masked_scatter(self.present[:, :, None], bags)


def lay_out(text: TextBatch, length: int, pad_id: int) -> Positions:
    """Pad a batch to ``length`` positions and give each padding position a bag of its own.

    A batch whose ids fill ``length`` already, padding and all, is taken as it is.
    """
    device = text.input_ids.device
    missing = length - text.input_ids.shape[1]
    ids = F.pad(text.input_ids, (0, missing), value=pad_id)
    attention = F.pad(text.attention_mask.bool(), (0, missing), value=False)
    own = text.bag_offsets.diff()
    title = torch.arange(len(own), device=device)
    owner = title.repeat_interleave(own)
    rank = torch.arange(len(owner), device=device) - text.bag_offsets[owner]
    place = text.bag_starts - text.bag_starts[text.bag_offsets[:-1]][owner]
    last = torch.cat([text.bag_starts, text.bag_starts.new_tensor([len(text.token_index)])])
    covered = last[text.bag_offsets[1:]] - last[text.bag_offsets[:-1]]
    # bag j of title i begins at starts[i, j]; bags behind its own are the padding positions
    column = torch.arange(length, device=device)[None, :]
    starts = column - own[:, None] + covered[:, None]
    starts[owner, rank] = place
    present = column < (own + length - covered)[:, None]
    ends = F.pad(starts[:, 1:], (0, 1), value=length).where(F.pad(present[:, 1:], (0, 1)), length)
    first = ids.gather(1, starts.clamp(0, length - 1))
    special = (ends - starts == 1) & ((first == pad_id) | (first == ids[:, :1]))
    return Positions(
        ids, attention, present, present & ~special, (starts + title[:, None] * length)[present]
    )


class CompatDualEncoder(DualEncoder):
    """The dual encoder with the original's habits.

    In training mode the features are those of the original's losses (bags summed once, unit
    vectors everywhere), else those of its evaluation.

    Args:
        text: The text tower.
        vision: The image tower.
        config: The run's configuration.
    """

    def __init__(self, text: TextEncoder, vision: VisionEncoder, config: RunConfig) -> None:
        super().__init__(text, vision, config.model)
        self.length = config.text.max_tokens
        self.raw = config.compat == "bagformer-readme"
        self.pad_id = int(text.bert.config.pad_token_id or 0)

    def encode_texts(self, text: TextBatch) -> Encoded:
        """Titles to vectors, L of them each (``cls``: one); see :class:`Encoded`."""
        at = lay_out(text, self.length, self.pad_id)
        if self.early:
            states, mask = self._early(at), at.mask
        else:
            states, mask = self.text_encoder(at.input_ids, at.attention_mask), at.attention_mask
        cls = F.normalize(self.text_proj(states[:, 0]), dim=-1)
        vectors = self._vectors(states, at)
        late = None if self.interaction == "cls" else vectors
        return Encoded(vectors, cls, states, mask, late)

    def encode_images(self, pixels: Tensor) -> Encoded:
        """Images to vectors; the README's example takes them as the tower leaves them."""
        encoded = super().encode_images(pixels)
        if self.raw:
            encoded.vectors = MultiVectors.from_dense(encoded.states)
        return encoded

    def _early(self, at: Positions) -> Tensor:
        """Sums of whole embeddings go through the embeddings again, then through the layers."""
        bags = at.sum_bags(self.text_encoder.bert.embeddings(input_ids=at.input_ids))
        added = torch.full_like(at.mask, MASKED, dtype=bags.dtype)
        added = added.masked_fill(at.mask, 0.0).masked_fill(~at.present, ABSENT)
        states: Tensor = self.text_encoder(None, added[:, None, None, :], inputs_embeds=bags)
        return states.masked_fill(~at.present[:, :, None], 0.0)

    def _vectors(self, states: Tensor, at: Positions) -> MultiVectors:
        if self.raw:
            bags = F.normalize(at.sum_bags(states), dim=-1)
            offsets = F.pad(at.present.sum(dim=1).cumsum(0), (1, 0))
            return MultiVectors(bags[at.present], offsets)
        if self.interaction == "bagwise":
            twice = self.early and not self.training
            bags = states if self.early and not twice else at.sum_bags(states)
            units = F.normalize(self.text_proj(bags), dim=-1)
            return MultiVectors.from_dense(units * at.mask[:, :, None])
        over = -1 if self.early or self.training else 1
        units = F.normalize(self.text_proj(states), dim=over)
        return (
            one_each(units[:, 0]) if self.interaction == "cls" else MultiVectors.from_dense(units)
        )


class CompatMatchingHead(MatchingHead):
    """The matching head as the original's rerank uses it."""

    def forward(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits of pairs, [K, 2]; outside training on image states rounded to float16."""
        # adding the same number to every attention score, as the original does where all is
        # masked, changes nothing: such a title sees all of itself
        mask = text_mask | ~text_mask.any(dim=1, keepdim=True)
        if not self.training:
            image_states = image_states.half().to(image_states.dtype)
        logits: Tensor = super().forward(text_states, mask, image_states)
        return logits

    def score(
        self,
        text_states: Tensor,
        text_mask: Tensor,
        image_states: Tensor,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """The logit of a match, [K] float32."""
        logits: Tensor = self(text_states, text_mask, image_states)[:, 1]
        return logits.float()


# ----------------------------------------------------------------------------------- which of two


def dual_encoder(
    config: RunConfig, text: TextEncoder | BagOfWords, vision: VisionEncoder | RegionEncoder
) -> DualEncoder:
    """The fast scorer of this configuration."""
    if config.compat is None:
        return DualEncoder(text, vision, config.model)
    assert isinstance(text, TextEncoder)
    assert isinstance(vision, VisionEncoder)
    return CompatDualEncoder(text, vision, config)


def matching_head(
    config: RunConfig, fusion: FusionEncoder | JointEncoder, width: int
) -> MatchingHead:
    """The slow scorer of this configuration."""
    kind = MatchingHead if config.compat is None else CompatMatchingHead
    assert config.model.cross is not None
    return kind(fusion, width, config.model.cross.logits)
