"""The original BagFormer's own bags (``compat: bagformer``): its matcher and what that leaves.

The habits, all measured against the original (see the tests):

- entities are matched on token ids, and only those entries are found whose every shorter
  beginning of two tokens or more is an entry itself;
- an entity leaves its end as a boundary: two neighbours have an empty bag between them;
- bags hold the special tokens.

What the model does with them is in :mod:`bagformer_cli.original.model`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.assets import asset_folder
from bagformer_cli.files import write_text
from bagformer_cli.text.bags import TitleEncoder, TokenBags
from bagformer_cli.text.dictionaries import read_dictionary
from bagformer_cli.text.lexicon import NEVER
from bagformer_cli.text.segmenter import Bag, Segmenter
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.text.wordpiece import PackedTokens


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
        words = {
            word: None
            for dictionary in map(read_dictionary, files)
            for word, kind in zip(dictionary.words, dictionary.types, strict=True)
            if kind != NEVER
        }
        return cls(list(words))

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
    """Titles to the original's bags; padding is left to the dual encoder.

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
