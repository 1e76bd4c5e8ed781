"""The bags of the original BagFormer (``compat: bagformer``), to which its weights were trained.

They differ from those of :mod:`bagformer_cli.text` in three ways, all compared with the original by
the tests:

- Entities are matched on token ids, and an entry of three or more tokens is only found if the
  entry without its last token can be found.
- An entity leaves both of its ends as boundaries, so two neighbours have an empty bag between them.
- Special tokens are in bags.

How the model reads these bags is in :mod:`bagformer_cli.original.model`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.assets import asset_folder
from bagformer_cli.files import write_text
from bagformer_cli.text.bags import TitleEncoder, TokenBags
from bagformer_cli.text.dictionaries import NEVER, read_dictionary
from bagformer_cli.text.segmenter import Bag, Segmenter, Source
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
        """Yield the entities of one title's ids, as (first position, one past the last)."""
        raw = ids.astype("<i4").tobytes()
        return entities(len(ids), lambda start, end: raw[4 * start : 4 * end] in self._found)

    def boundaries(self, ids: NDArray[np.int32]) -> list[int]:
        """Return where the bags of one title's ids begin (see :func:`boundaries`)."""
        return boundaries(self.entities(ids), len(ids))


def entities(length: int, is_entry: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
    """Run the original's matching loop over ``length`` tokens.

    A word begins with two tokens and grows by one while the word so far is an entry.

    Args:
        length: The number of tokens.
        is_entry: Whether the tokens from a start to an end (exclusive) are an entry.

    Yields:
        (first token, one past the last) of every entity, from left to right.
    """
    start = 0
    while start < length - 1:
        end = start + 2
        while end <= length and is_entry(start, end):
            end += 1
        if end > start + 2:
            yield start, end - 1
            start = end - 1
        else:
            start += 1


def boundaries(found: Iterable[tuple[int, int]], length: int) -> list[int]:
    """Return where bags begin: at both ends of an entity, and at every token outside of one.

    Two neighbouring entities repeat the position that they share. An entity that ends at the last
    token leaves ``length`` as a last boundary.

    >>> boundaries([(1, 3), (3, 5)], 6)
    [0, 1, 3, 3, 5]
    """
    starts: list[int] = []
    at = 0
    for first, last in [*found, (length, length)]:
        begin = at + (1 if starts and starts[-1] == at else 0)
        starts += range(begin, first)
        if first < length:
            starts += [first, last]
        at = last
    return starts


class WordList:
    """The entries of dictionary files, unchanged; takes the place of a :class:`.Lexicon`.

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
        """Identify the entries and their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write ``lexicon.txt``, one word a line."""
        write_text(path, "".join(f"{word}\n" for word in self.words))


class CompatSegmenter(Segmenter):
    """The original's matcher, with the characters of each bag for display.

    Args:
        lexicon: The entries.
        tokenizer: Cuts entries and titles into ids.
    """

    def __init__(self, lexicon: WordList, tokenizer: Tokenizer) -> None:
        self.lexicon: Any = lexicon
        self.tokenizer = tokenizer

    @cached_property
    def matcher(self) -> EntityMatcher:
        """The matcher, made at first use: tokenising a large dictionary takes a second."""
        return EntityMatcher(self.tokenizer.encode_batch(self.lexicon.words))

    @cached_property
    def fingerprint(self) -> str:
        """Identify the bags: equal fingerprints give equal bags."""
        return f"compat 1 {self.lexicon.fingerprint}"

    def segment(self, text: str) -> list[Bag]:
        """Return the bags of one title that hold characters, not cut to ``max_tokens``."""
        tokens = self.tokenizer.encode_batch([text])
        found = dict(self.matcher.entities(tokens.ids))
        bags: list[Bag] = []
        first = 0
        while first < len(tokens.ids):
            last = found.get(first, first + 1)
            start, end = int(tokens.starts[first]), int(tokens.ends[last - 1])
            source: Source = "lexicon" if first in found else "token"
            bags.append(Bag(start, end, text[start:end], source, None))
            first = last
        return bags


class CompatTitleEncoder(TitleEncoder):
    """Turns titles into the original's bags, which hold special tokens and may be empty.

    The dual encoder adds the padding.
    """

    segmenter: CompatSegmenter

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        """Encode titles, cut to ``max_tokens``, without padding."""
        _, tokens = self.read(titles)
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
        """Return the bags of each title that hold characters."""
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
