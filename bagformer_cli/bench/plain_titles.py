"""Titles to bags without our kernels: as the original does it, and as fast as Python can."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import ahocorasick

from bagformer_cli.text.tokenizer import Tokenizer


class PlainTitles:
    """The slow BERT tokenizer, one character and one piece after the other, then matching of ids.

    Matching is the original's: entries are keys of an automaton, ids written out as text, and a
    word grows by one token while the ids so far are an entry. Only its steps were kept; the code
    was written for this comparison.

    Args:
        tokenizer: Whose vocabulary is used.
        words: The entries to match.
        length: How many ids a title has, padding included.
    """

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str], length: int = 25) -> None:
        self._ids = {piece: number for number, piece in enumerate(tokenizer.vocabulary)}
        self._unk, self._cls, self._pad = tokenizer.unk_id, tokenizer.cls_id, tokenizer.pad_id
        self._length = length
        self._entries = ahocorasick.Automaton()
        for word in words:
            self._entries.add_word(str(tuple(self.tokenize(word))), word)
        self._entries.make_automaton()

    def tokenize(self, text: str) -> list[int]:
        """BERT's tokens of an ordinary title."""
        spaced = "".join(
            f" {character} " if "\u4e00" <= character <= "\u9fff" else character
            for character in self._clean(text)
        )
        ids: list[int] = []
        for word in spaced.split():
            for part in self._split_on_punctuation(self._without_accents(word.lower())):
                ids += [self._ids.get(piece, self._unk) for piece in self._pieces(part)]
        return ids

    def bags(self, text: str) -> tuple[list[int], list[bool]]:
        """Where bags begin, and which are more than [CLS] or [PAD]."""
        ids = [self._cls, *self.tokenize(text)][: self._length]
        ids += [self._pad] * (self._length - len(ids))
        starts: list[int] = []
        place = 0
        for first, last in self._entities(ids):
            begin = place + (1 if starts and starts[-1] == place else 0)
            starts += [*range(begin, first), first, last]
            place = last
        begin = place + (1 if starts and starts[-1] == place else 0)
        starts += range(begin, len(ids))
        ends = [*starts[1:], len(ids)]
        mask = [
            ids[start:end] not in ([self._cls], [self._pad])
            for start, end in zip(starts, ends, strict=True)
        ]
        return starts, mask

    def _entities(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        place = 0
        while place < len(ids) - 1:
            end = place + 2
            while end <= len(ids) and self._entries.match(str(tuple(ids[place:end]))):
                end += 1
            if end > place + 2:
                yield place, end - 1
                place = end - 1
            else:
                place += 1

    def _clean(self, text: str) -> Iterator[str]:
        for character in text:
            category = unicodedata.category(character)
            if character in "\t\n\r " or category == "Zs":
                yield " "
            elif character not in "\0\ufffd" and category[0] != "C":
                yield character

    def _without_accents(self, word: str) -> str:
        bare = unicodedata.normalize("NFD", word)
        return "".join(c for c in bare if unicodedata.category(c) != "Mn")

    def _split_on_punctuation(self, word: str) -> Iterator[str]:
        part = ""
        for character in word:
            symbol = character.isascii() and not character.isalnum()
            if symbol or unicodedata.category(character)[0] == "P":
                if part:
                    yield part
                part = ""
                yield character
            else:
                part += character
        if part:
            yield part

    def _pieces(self, word: str) -> list[str]:
        if len(word) > 100:
            return ["[UNK]"]
        found: list[str] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if piece in self._ids:
                    found.append(piece)
                    start = end
                    break
            else:
                return ["[UNK]"]
        return found


class CachedTitles:
    """What is left of the work when nothing is wasted: the least a Python program does.

    WordPiece by pieces that are remembered, one automaton pass; no cover, no bags, no arrays.

    Args:
        tokenizer: Whose vocabulary is used.
        words: The entries to find.
    """

    _PIECES = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff_]+|[^\w\s]|_")

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        self._oracle = tokenizer.oracle
        self._known: dict[str, list[int]] = {}
        self._entries = ahocorasick.Automaton()
        for number, word in enumerate(words):
            self._entries.add_word(word, number)
        self._entries.make_automaton()

    def tokenize(self, text: str) -> list[int]:
        """BERT's tokens of an ordinary title."""
        ids: list[int] = []
        for piece in self._PIECES.findall(text.lower()):
            found = self._known.get(piece)
            if found is None:
                found = self._known[piece] = self._oracle.encode(
                    piece, add_special_tokens=False
                ).ids
            ids += found
        return ids

    def matches(self, text: str) -> list[tuple[int, int]]:
        """Where the leftmost longest entries end, and which they are."""
        return list(self._entries.iter_long(text))
