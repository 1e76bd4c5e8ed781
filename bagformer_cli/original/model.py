"""Habits of the published BagFormer code that its weights need (``compat: bagformer``).

The published weights were trained and evaluated by code that deviates from the paper. With
``compat``, a title encoder (:mod:`bagformer_cli.original.text`) and the dual encoder and matching
head of this file reproduce it, one title at a time. ``text.from_config.title_encoder`` and the two
functions at the end of this file choose between these and the normal classes; nothing else does.

The habits, all measured against the original (see the tests):

- the empty bag between two entities becomes ``normalize(text_proj.bias)`` and counts;
- every title has 25 positions; each [PAD] is a bag; bags of [CLS] and [PAD] are zero vectors,
  which still take part in the image side's maxima;
- ``cls`` and ``tokenwise`` are normalised over the 25 positions, channel by channel, without a
  mask; no [SEP] ends a title;
- early fusion embeds twice (positions, types and LayerNorm are added to sums that contain them),
  masks [CLS] in self-attention, and sums the bags twice in evaluation;
- the cross-encoder's score is the match logit alone, on image states rounded to float16;
- the example in the original's README compares sums of unprojected text states with raw image
  states (``compat: bagformer-readme``).

The title 电动车头盔 with the entities 动车 and 头盔, in the original's layout of 8 positions::

    position   0      1   2   3   4   5   6      7
    token      [CLS]  电  动  车  头  盔  [PAD]  [PAD]
    bag        0      1   2   2   4   4   5      6       bag 3, between the entities, is empty
    offsets    0, 1, 2, 4, 4, 6, 7                       first position of each bag

Shapes: B titles, L positions (25), W width, D embedding dimension, G bags of the batch, K pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.joint import JointEncoder
from bagformer_cli.encoders.regions import RegionEncoder
from bagformer_cli.encoders.states import States, TitleStates
from bagformer_cli.encoders.text import BagOfWords, TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.models.cross_encoders import MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded, one_each
from bagformer_cli.transfer import to_device
from bagformer_cli.vectors.multi_vectors import MultiVectors

MASKED = -1e4
"""The original adds this to the attention scores of a masked position."""
ABSENT = -1e9
"""Added for a position that the original's shorter batch does not have."""

# ---------------------------------------------------------------------------------------- layout


@dataclass
class Positions:
    """A batch in the original's layout: every title has L positions, every [PAD] is a bag.

    Attributes:
        input_ids: [B, L] int64.
        attention_mask: [B, L] bool, False for padding.
        present: [B, L] bool, whether bag j of the title exists.
        mask: [B, L] bool, whether it exists and is neither exactly [CLS] nor exactly [PAD].
        offsets: [G] int64, first position of each bag in the flat [B * L] positions.
    """

    input_ids: Tensor
    attention_mask: Tensor
    present: Tensor
    mask: Tensor
    offsets: Tensor

    def sum_bags(self, states: Tensor) -> Tensor:
        """Sum positions [B, L, W] to bags [B, L, W], zeros where a bag does not exist."""
        flat = states.reshape(-1, states.shape[-1])
        index = torch.arange(len(flat), device=flat.device)
        bags = F.embedding_bag(index, flat, self.offsets, mode="sum")
        return torch.zeros_like(states).masked_scatter(self.present[:, :, None], bags)


def lay_out(text: TextBatch, length: int, pad_id: int) -> Positions:
    """Pad a batch to ``length`` positions and make each padding position a bag.

    Args:
        text: A batch of at most ``length`` positions.
        length: L.
        pad_id: Id of [PAD].
    """
    device = text.input_ids.device
    missing = length - text.input_ids.shape[1]
    ids = F.pad(text.input_ids, (0, missing), value=pad_id)
    attention = F.pad(text.attention_mask.bool(), (0, missing), value=False)
    bag_offsets = to_device(text.bag_offsets, device)
    bags = bag_offsets.diff()  # [B] bags of each title
    title = torch.arange(len(bags), device=device)
    owner = title.repeat_interleave(bags)
    rank = torch.arange(len(owner), device=device) - bag_offsets[owner]
    first_position = text.bag_starts - text.bag_starts[bag_offsets[:-1]][owner]
    bounds = torch.cat([text.bag_starts, text.bag_starts.new_tensor([len(text.token_index)])])
    covered = bounds[bag_offsets[1:]] - bounds[bag_offsets[:-1]]  # [B] positions in bags
    # starts[i, j]: first position of bag j of title i. Bags after its own are the padding
    # positions: bag `bags` starts at position `covered`, and so on one by one.
    column = torch.arange(length, device=device)[None, :]
    starts = column - bags[:, None] + covered[:, None]
    starts[owner, rank] = first_position
    present = column < (bags + length - covered)[:, None]
    ends = F.pad(starts[:, 1:], (0, 1), value=length).where(F.pad(present[:, 1:], (0, 1)), length)
    first = ids.gather(1, starts.clamp(0, length - 1))
    special = (ends - starts == 1) & ((first == pad_id) | (first == ids[:, :1]))
    return Positions(
        ids, attention, present, present & ~special, (starts + title[:, None] * length)[present]
    )


# ---------------------------------------------------------------------------------------- models


class CompatDualEncoder(DualEncoder):
    """The dual encoder with the original's habits.

    In training mode the vectors are those of the original's losses (bags summed once, all of unit
    length), otherwise those of its evaluation.

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

    def encode_texts(self, titles: TextBatch | TitleStates) -> Encoded:
        """Encode titles to L vectors each (``cls``: one)."""
        text = titles.text if isinstance(titles, TitleStates) else titles
        at = lay_out(text, self.length, self.pad_id)
        if self.early:
            states = States(self._encode_early(at), at.mask)
        else:
            output = self.text_encoder(at.input_ids, at.attention_mask)
            states = States(output, at.attention_mask)
        cls = F.normalize(self.text_proj(states.values[:, 0]), dim=-1)
        vectors = self._score_vectors(states.values, at)
        return Encoded(vectors, cls, states, None if self.interaction == "cls" else vectors)

    def encode_images(self, pixels: Tensor | States) -> Encoded:
        """Encode images; the README's example compares the tower's output unprojected."""
        encoded = super().encode_images(pixels)
        if self.raw:
            encoded.vectors = MultiVectors.from_dense(encoded.states.values)
        return encoded

    def _encode_early(self, at: Positions) -> Tensor:
        """Embed the sums of complete embeddings once more, then run the layers."""
        bags = at.sum_bags(self.text_encoder.bert.embeddings(input_ids=at.input_ids))
        added = torch.full_like(at.mask, MASKED, dtype=bags.dtype)
        added = added.masked_fill(at.mask, 0.0).masked_fill(~at.present, ABSENT)
        states: Tensor = self.text_encoder(None, added[:, None, None, :], inputs_embeds=bags)
        return states.masked_fill(~at.present[:, :, None], 0.0)

    def _score_vectors(self, states: Tensor, at: Positions) -> MultiVectors:
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
    """The matching head as the original reranks with it."""

    def forward(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Compute logits [K, 2]; outside training, on image states rounded to float16."""
        # The original masks by adding a number to the attention scores. If all positions are
        # masked, all get the same number and nothing changes: the title attends to all of itself.
        kept = texts.kept | ~texts.kept.any(dim=1, keepdim=True)
        values = images.values
        if not self.training:
            values = values.half().to(values.dtype)
        logits: Tensor = super().forward(replace(texts, mask=kept), States(values), rows)
        return logits

    def score(self, texts: States, images: States, rows: Tensor | None = None) -> Tensor:
        """Score K pairs by the match logit, [K] float32."""
        logits: Tensor = self(texts, images, rows)[:, 1]
        return logits.float()


# ---------------------------------------------------------------------------------------- choice


def build_dual_encoder(
    config: RunConfig, text: TextEncoder | BagOfWords, vision: VisionEncoder | RegionEncoder
) -> DualEncoder:
    """Build the dual encoder that ``config.compat`` asks for."""
    if config.compat is None:
        return DualEncoder(text, vision, config.model)
    assert isinstance(text, TextEncoder)
    assert isinstance(vision, VisionEncoder)
    return CompatDualEncoder(text, vision, config)


def build_matching_head(
    config: RunConfig, fusion: FusionEncoder | JointEncoder, width: int
) -> MatchingHead:
    """Build the matching head that ``config.compat`` asks for."""
    kind = MatchingHead if config.compat is None else CompatMatchingHead
    assert config.model.cross is not None
    return kind(fusion, width, config.model.cross.logits)
