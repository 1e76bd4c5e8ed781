"""What published BagFormer weights need to give their own numbers (``compat: bagformer``).

Those weights were trained and measured with habits of their code that the normal path does not
have. They are reproduced here, for one title at a time, behind the seams of the normal path: a
title encoder, a dual encoder, a matching head. Which of the two is used is decided by the three
functions at the end of this file; no other file asks.

The habits (all measured against the original, see the tests):

- entities are matched on token ids, and only those entries are found whose every shorter
  beginning of two tokens or more is an entry itself;
- an entity leaves its end as a boundary: two neighbours have an empty bag between them, which
  becomes ``normalize(text_proj.bias)`` and counts;
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

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bagformer_cli.assets import asset_folder
from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import TextBatch
from bagformer_cli.encoders.fusion import FusionEncoder
from bagformer_cli.encoders.text import TextEncoder
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.files import write_text
from bagformer_cli.interaction.vectors import MultiVectors
from bagformer_cli.models.cross import MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded, one_each
from bagformer_cli.text.bags import TitleEncoder, TokenBags
from bagformer_cli.text.dictionaries import read_dictionary
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Bag, Segmenter
from bagformer_cli.text.tokenizer import PackedTokens, Tokenizer

MASKED = -1e4  # what the original adds to the attention scores of a masked position
ABSENT = -1e9  # a position that the original's shorter batch does not have at all

# ---------------------------------------------------------------------------------- title → bags


class EntityMatcher:
    """Leftmost-longest matching over those entries of a word list that the original can find.

    An entry of two tokens can be found; a longer one if the entry without its last token can.
    (The original extends a word by one token while the word so far is an entry.)

    Args:
        entries: Token ids of the entries.
    """

    def __init__(self, entries: PackedTokens) -> None:
        lengths = np.diff(entries.offsets)
        ids = entries.ids.astype("<i4").tobytes()
        starts = entries.offsets[:-1] * 4
        self._found: set[bytes] = set()
        for length in range(2, int(lengths.max(initial=0)) + 1):
            size = 4 * length
            words = (ids[start : start + size] for start in starts[lengths == length].tolist())
            if length == 2:
                self._found.update(words)
            else:
                self._found.update(word for word in words if word[:-4] in self._found)

    def __len__(self) -> int:
        return len(self._found)

    def entities(self, ids: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
        """The entities of one title's ids, as (first position, one past the last)."""
        raw = ids.astype("<i4").tobytes()
        place = 0
        while place < len(raw) - 4:
            end = place + 8
            while end <= len(raw) and raw[place:end] in self._found:
                end += 4
            if end > place + 8:
                yield place // 4, end // 4 - 1
                place = end - 4
            else:
                place += 4

    def boundaries(self, ids: NDArray[np.int32]) -> list[int]:
        """Where bags begin: an entity leaves both its ends, other tokens their position.

        Two neighbouring entities repeat the position they share. An entity that ends the ids
        leaves their length as a last boundary.
        """
        starts: list[int] = []
        place = 0
        for first, last in self.entities(ids):
            begin = place + (1 if starts and starts[-1] == place else 0)
            starts += [*range(begin, first), first, last]
            place = last
        begin = place + (1 if starts and starts[-1] == place else 0)
        return [*starts, *range(begin, len(ids))]


class WordList:
    """Entries as they stand in dictionary files; in place of a :class:`Lexicon`.

    Args:
        words: The entries.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    @classmethod
    def load(cls, sources: Sequence[str | Path]) -> WordList:
        """Read dictionary files (``"builtin"``: those that ship with the project)."""
        files: list[Path] = []
        for source in sources:
            own = sorted(asset_folder("entity_dicts").glob("*.tsv")) if source == "builtin" else []
            files += own or [Path(source)]
        words = [word for file in files for word in read_dictionary(file).words]
        return cls(list(dict.fromkeys(words)))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def fingerprint(self) -> str:
        """Names the entries and their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write ``lexicon.txt``, a word a line."""
        write_text(path, "".join(f"{word}\n" for word in self.words))


class CompatSegmenter(Segmenter):
    """The original's matcher with the characters its bags stand for.

    Args:
        lexicon: The entries.
        tokenizer: What makes ids of entries and titles.
    """

    def __init__(self, lexicon: WordList, tokenizer: Tokenizer) -> None:
        self.lexicon: Any = lexicon
        self.tokenizer = tokenizer

    @cached_property
    def matcher(self) -> EntityMatcher:
        """Made when first needed: tokenising a large dictionary takes a second."""
        return EntityMatcher(self.tokenizer.encode_batch(self.lexicon.words))

    @cached_property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal bags."""
        return f"compat 1 {self.lexicon.fingerprint}"

    def segment(self, text: str) -> list[Bag]:
        """The bags of one title that hold a character of it; uncut."""
        tokens = self.tokenizer.encode_batch([text])
        entities = dict(self.matcher.entities(tokens.ids))
        bags: list[Bag] = []
        place = 0
        while place < len(tokens.ids):
            last = entities.get(place, place + 1)
            start, end = int(tokens.starts[place]), int(tokens.ends[last - 1])
            bags.append(
                Bag(start, end, text[start:end], "lexicon" if place in entities else "token", None)
            )
            place = last
        return bags


class CompatTitleEncoder(TitleEncoder):
    """Titles to the original's bags; padding is left to :class:`CompatDualEncoder`.

    Unlike the normal bags these hold the special tokens and may be empty.
    """

    segmenter: CompatSegmenter

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        """Ids and bags of each title, cut to ``max_tokens``, without padding."""
        tokens = self.tokenizer.encode_batch(titles)
        head = np.array([self.tokenizer.cls_id], np.int32)
        tail = np.array([self.tokenizer.sep_id] if self.add_sep else [], np.int32)
        ids: list[NDArray[np.int32]] = []
        starts: list[NDArray[np.int64]] = []
        ends: list[NDArray[np.int64]] = []
        total = 0
        for i in range(len(titles)):
            content = tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]][: self.room]
            own = np.concatenate([head, content, tail])
            bounds = np.array(self.segmenter.matcher.boundaries(own), np.int64)
            if bounds[-1] == len(own) < self.max_tokens:
                bounds = bounds[:-1]  # the first [PAD] will begin there
            ids.append(own)
            starts.append(bounds + total)
            ends.append(np.append(bounds[1:], len(own)) + total)
            total += len(own)
        offsets = [np.cumsum([0, *map(len, parts)], dtype=np.int64) for parts in (ids, starts)]
        return TokenBags(
            np.concatenate([np.zeros(0, np.int32), *ids]),
            offsets[0],
            np.concatenate([np.zeros(0, np.int64), *starts]),
            np.concatenate([np.zeros(0, np.int64), *ends]),
            offsets[1],
        )

    def bags_batch(self, titles: Sequence[str], *, whole: bool = False) -> list[list[Bag]]:
        """The bags of each title that hold characters of it."""
        shown = []
        for title in titles:
            tokens = self.tokenizer.encode_batch([title])
            bags = self.segmenter.segment(title)
            if not whole and len(tokens.ids) > self.room:
                cut = int(tokens.ends[self.room - 1])
                bags = [
                    Bag(bag.start, min(bag.end, cut), title[bag.start : min(bag.end, cut)],
                        bag.source, bag.type)
                    for bag in bags
                    if bag.start < cut
                ]  # fmt: skip
            shown.append(bags)
        return shown


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
        return Encoded(self._vectors(states, at), cls, states, mask)

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

    def forward(self, text_states: Tensor, text_mask: Tensor, image_states: Tensor) -> Tensor:
        """Logits of pairs, [K, 2]; outside training on image states rounded to float16."""
        # adding the same number to every attention score, as the original does where all is
        # masked, changes nothing: such a title sees all of itself
        mask = text_mask | ~text_mask.any(dim=1, keepdim=True)
        if not self.training:
            image_states = image_states.half().to(image_states.dtype)
        logits: Tensor = super().forward(text_states, mask, image_states)
        return logits

    def score(self, text_states: Tensor, text_mask: Tensor, image_states: Tensor) -> Tensor:
        """The logit of a match, [K] float32."""
        logits: Tensor = self(text_states, text_mask, image_states)[:, 1]
        return logits.float()


# ----------------------------------------------------------------------------------- which of two


def title_encoder(
    config: RunConfig, tokenizer: Tokenizer, lexicons: Sequence[str | Path]
) -> TitleEncoder:
    """What makes tokens and bags for this configuration, over the given dictionaries."""
    text = config.text
    if config.compat is None:
        segmenter = Segmenter(Lexicon.load(lexicons))
        return TitleEncoder(tokenizer, segmenter, text.max_tokens, text.add_sep)
    compat = CompatSegmenter(WordList.load(lexicons), tokenizer)
    return CompatTitleEncoder(tokenizer, compat, text.max_tokens, text.add_sep)


def dual_encoder(config: RunConfig, text: TextEncoder, vision: VisionEncoder) -> DualEncoder:
    """The fast scorer of this configuration."""
    if config.compat is None:
        return DualEncoder(text, vision, config.model)
    return CompatDualEncoder(text, vision, config)


def matching_head(config: RunConfig, fusion: FusionEncoder, width: int) -> MatchingHead:
    """The slow scorer of this configuration."""
    kind = MatchingHead if config.compat is None else CompatMatchingHead
    return kind(fusion, width)
