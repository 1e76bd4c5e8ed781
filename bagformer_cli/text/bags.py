"""Titles to token-aligned bags: the input of every text encoder.

:class:`TitleEncoder` joins the tokens of :mod:`.tokenizer` and the bags of :mod:`.segmenter` (with
the kernels in :mod:`.alignment`) into :class:`TokenBags`. For 红色裙 and 帽, with [SEP]:

    ids            [CLS] 红 色 裙 [SEP] [CLS] 帽 [SEP]      end to end, nothing is padded
    token_offsets  0                   5               8
    bag_starts           1     3             6
    bag_ends                   3  4             7
    bag_offsets    0           2             3
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.alignment import Frame
from bagformer_cli.text.cover_arrays import PackedBags
from bagformer_cli.text.cut_titles import CutTitles
from bagformer_cli.text.jit import kernels
from bagformer_cli.text.segmenter import Bag, Segmenter
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.text.wordpiece import PackedTokens


@dataclass(frozen=True, slots=True)
class TokenBags:
    """Tokens and bags of n titles, end to end, as ``embedding_bag`` takes them.

    Args:
        ids: [T] int32, the tokens of each title, [CLS] first and [SEP] last (if it is added).
        token_offsets: [n+1] int64; title i owns ``ids[token_offsets[i]:token_offsets[i+1]]``.
        bag_starts: [G] int64, index into ``ids`` of each bag's first token.
        bag_ends: [G] int64, one past its last.
        bag_offsets: [n+1] int64; title i owns bags ``bag_offsets[i]:bag_offsets[i+1]``, at
            least one: a title without any content token has one bag, its [CLS].
    """

    ids: npt.NDArray[np.int32]
    token_offsets: npt.NDArray[np.int64]
    bag_starts: npt.NDArray[np.int64]
    bag_ends: npt.NDArray[np.int64]
    bag_offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.token_offsets) - 1

    def select(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> TokenBags:
        """Return the titles at ``indices`` in that order; an index may occur several times."""
        chosen = np.asarray(indices, np.int64).reshape(-1)
        token_offsets, tokens = _gather(self.token_offsets, chosen)
        bag_offsets, bags = _gather(self.bag_offsets, chosen)
        moved = np.repeat(
            token_offsets[:-1] - self.token_offsets[:-1][chosen], np.diff(bag_offsets)
        )
        return TokenBags(
            np.asarray(self.ids[tokens]),
            token_offsets,
            self.bag_starts[bags] + moved,
            self.bag_ends[bags] + moved,
            bag_offsets,
        )

    @staticmethod
    def concatenate(parts: Sequence[TokenBags]) -> TokenBags:
        """Join the titles of all ``parts`` in order (no parts: no titles)."""
        tokens = np.cumsum([0, *(len(part.ids) for part in parts)])
        bags = np.cumsum([0, *(len(part.bag_starts) for part in parts)])
        none = np.zeros(1, np.int64)
        return TokenBags(
            np.concatenate([np.zeros(0, np.int32), *(p.ids for p in parts)]),
            _stack([none, *(p.token_offsets[1:] for p in parts)], [0, *tokens]),
            _stack([p.bag_starts for p in parts], tokens),
            _stack([p.bag_ends for p in parts], tokens),
            _stack([none, *(p.bag_offsets[1:] for p in parts)], [0, *bags]),
        )


def _gather(
    offsets: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return new offsets for the chosen rows, and the old position of each of their elements."""
    begins = offsets[:-1][chosen]
    lengths = offsets[1:][chosen] - begins
    new = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(lengths, out=new[1:])
    return new, np.repeat(begins - new[:-1], lengths) + np.arange(new[-1])


def _stack(
    arrays: Sequence[npt.NDArray[np.int64]], shifts: Sequence[int] | npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    shifted = [array + shift for array, shift in zip(arrays, shifts, strict=False)]
    return np.concatenate([np.zeros(0, np.int64), *shifted]).astype(np.int64)


CHARACTERS_A_TOKEN = 40
"""Characters of a title that are read for each token of ``max_tokens``. Further ones are ignored
without a look, so that a title of a million characters costs no more than a long one."""

_COUNTING = Lock()  # titles are encoded by several threads


class TitleEncoder:
    """Turns titles into token-aligned bags.

    Args:
        tokenizer: Cuts titles into tokens.
        segmenter: Cuts titles into bags.
        max_tokens: Tokens of a title at most, special tokens included. Longer titles are cut.
        add_sep: Whether [SEP] ends each title.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        segmenter: Segmenter,
        max_tokens: int = 25,
        add_sep: bool = True,
    ) -> None:
        if max_tokens < 2 + add_sep:
            raise ValueError("max_tokens leaves no room for a token")
        self.tokenizer = tokenizer
        self.segmenter = segmenter
        self.max_tokens = max_tokens
        self.add_sep = add_sep
        self._cut = CutTitles()

    @property
    def room(self) -> int:
        """Tokens of a title that are kept at most, special tokens not counted."""
        return self.max_tokens - 1 - self.add_sep

    @cached_property
    def fingerprint(self) -> str:
        """Identify the whole encoder: equal fingerprints give equal ids and bags."""
        parts = (
            self.tokenizer.fingerprint,
            self.segmenter.fingerprint,
            str(self.max_tokens),
            str(self.add_sep),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        """Encode titles. No title depends on another.

        A title of more than ``max_tokens`` tokens is cut, and its last bag with it
        (:meth:`take_cut` counts them).
        """
        titles, tokens = self.read(titles)
        return self.assemble(tokens, self.segmenter.segment_batch(titles))

    def read(self, titles: Sequence[str]) -> tuple[Sequence[str], PackedTokens]:
        """Cut titles into tokens, and count those that have more than the model reads.

        Returns:
            The titles, without what is certainly beyond ``max_tokens``, and all their tokens.
        """
        given = titles
        most = CHARACTERS_A_TOKEN * self.max_tokens
        if max(map(len, titles), default=0) > most:
            # Blanks before the first character do not count, as they are no tokens.
            titles = [
                title if len(title) <= most else title[: len(title) - len(title.lstrip()) + most]
                for title in titles
            ]
        tokens = self.tokenizer.encode_batch(titles)
        cut = np.diff(tokens.offsets) > self.room
        if titles is not given:
            cut |= [len(short) < len(long) for short, long in zip(titles, given, strict=True)]
        self._count(CutTitles.among(given, cut))
        return titles, tokens

    def _count(self, cut: CutTitles) -> None:
        if cut.number:
            with _COUNTING:
                self._cut = self._cut.plus(cut)

    def warn_of_cut(self, warn: Callable[[str], None]) -> None:
        """Pass a sentence to ``warn`` if titles were cut since the last call."""
        if sentence := self.take_cut().sentence(self.max_tokens):
            warn(sentence)

    def take_cut(self) -> CutTitles:
        """Return the titles that were cut since the last call."""
        with _COUNTING:
            found, self._cut = self._cut, CutTitles()
        return found

    def assemble(self, tokens: PackedTokens, bags: PackedBags) -> TokenBags:
        """Join the tokens and the character bags of the same titles."""
        frame = Frame(self.room, self.tokenizer.cls_id, self.tokenizer.sep_id, self.add_sep)
        titles = len(tokens.offsets) - 1
        return TokenBags(*kernels(titles).assemble(tokens, bags, frame))

    def bags(self, title: str, *, whole: bool = False) -> list[Bag]:
        """Return the bags that a score uses, with their characters in the title.

        They are the segmenter's bags, grown where one would end inside a token. A bag without a
        token (a control character) is joined to its neighbour.

        Args:
            title: The title.
            whole: Also return the bags after the cut at ``max_tokens``, so that all bags together
                cover everything but whitespace.
        """
        return self.bags_batch([title], whole=whole)[0]

    def bags_batch(self, titles: Sequence[str], *, whole: bool = False) -> list[list[Bag]]:
        """Return :meth:`bags` of many titles at once."""
        if whole:
            tokens = self.tokenizer.encode_batch(titles)
        else:
            titles, tokens = self.read(titles)
        packed = self.align(tokens, self.segmenter.segment_batch(titles))
        found = self.segmenter.unpack(titles, packed)
        if whole:
            return found
        for i in np.flatnonzero(np.diff(tokens.offsets) > self.room):
            cut = int(tokens.ends[tokens.offsets[i] + self.room - 1])
            found[i] = [_until(bag, cut) for bag in found[i] if bag.start < cut]
        return found

    def align(self, tokens: PackedTokens, bags: PackedBags) -> PackedBags:
        """Move the edges of character bags to edges of tokens."""
        return PackedBags(*kernels(len(tokens.offsets) - 1).align(tokens, bags))


def _until(bag: Bag, cut: int) -> Bag:
    if bag.end <= cut:
        return bag
    return Bag(bag.start, cut, bag.text[: cut - bag.start], bag.source, bag.type)
