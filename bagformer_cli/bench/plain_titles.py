"""Titles to bags in plain Python: the original's way, and a lower bound that makes no bags."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import ahocorasick

from bagformer_cli.original.text import boundaries, entities
from bagformer_cli.text.tokenizer import Tokenizer


class PlainTitles:
    """The original's way: the slow BERT tokenizer, then matching of token ids.

    A pyahocorasick automaton stores each entry under the text of its token ids. The original's
    loop looks up every candidate span there (:func:`bagformer_cli.original.text.entities`).

    Args:
        tokenizer: The vocabulary to use.
        words: The entries to match.
        length: Ids of a title, padding included.
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
        """Return the ids of an ordinary title's tokens."""
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
        """Return where bags begin, and which of them are more than [CLS] or [PAD]."""
        ids = [self._cls, *self.tokenize(text)][: self._length]
        ids += [self._pad] * (self._length - len(ids))
        found = entities(
            len(ids), lambda start, end: self._entries.match(str(tuple(ids[start:end])))
        )
        starts = boundaries(found, len(ids))
        ends = [*starts[1:], len(ids)]
        mask = [
            ids[start:end] not in ([self._cls], [self._pad])
            for start, end in zip(starts, ends, strict=True)
        ]
        return starts, mask

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
    """The least that a Python program has to do: the floor that `xmr bench titles` compares with.

    It remembers the ids of every word and runs pyahocorasick once. It makes no cover and no bags.

    Args:
        tokenizer: The vocabulary to use.
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
        """Return the ids of an ordinary title's tokens."""
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
        """Return (last character, index) of the leftmost longest entries."""
        return list(self._entries.iter_long(text))
