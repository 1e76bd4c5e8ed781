"""Titles a second to tokens and bags, beside the plain way of doing the same in Python."""

from __future__ import annotations

import re
import statistics
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ahocorasick

from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Row:
    """One way from titles to tokens and bags.

    Attributes:
        name: Which.
        titles_per_second: Median over the rounds.
        speedup: Times as many as the plain way.
    """

    name: str
    titles_per_second: float
    speedup: float


class PlainTitles:
    """WordPiece character by character, then BagFormer's matching loop over ids, as text keys.

    Args:
        tokenizer: Whose vocabulary is used.
        words: The entries to match.
    """

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str]) -> None:
        self._ids = {piece: number for number, piece in enumerate(tokenizer.vocabulary)}
        self._unk, self._cls = tokenizer.unk_id, tokenizer.cls_id
        self._entries = ahocorasick.Automaton()
        for word in words:
            self._entries.add_word(str(tuple(self.tokenize(word))), word)
        self._entries.make_automaton()

    def tokenize(self, text: str) -> list[int]:
        """BERT's tokens, in Python."""
        clean = unicodedata.normalize("NFD", text.lower())
        spaced = []
        for character in clean:
            if unicodedata.category(character) == "Mn":
                continue
            alone = "\u4e00" <= character <= "\u9fff" or unicodedata.category(character)[0] == "P"
            spaced.append(f" {character} " if alone else character)
        ids: list[int] = []
        for word in "".join(spaced).split():
            ids += self._pieces(word)
        return ids

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if piece in self._ids:
                    found.append(self._ids[piece])
                    start = end
                    break
            else:
                return [self._unk]
        return found

    def bags(self, text: str) -> list[int]:
        """Where bags begin: a word grows token by token while it is an entry."""
        ids = [self._cls, *self.tokenize(text)]
        starts = []
        place = 0
        while place < len(ids):
            starts.append(place)
            end = place + 2
            while end <= len(ids) and self._entries.match(str(tuple(ids[place:end]))):
                end += 1
            place = max(place + 1, end - 1)
        return starts


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
        """Where entries end, and which."""
        return list(self._entries.iter(text))


def run(
    encoder: TitleEncoder,
    titles: Sequence[str],
    *,
    rounds: int = 3,
    progress: Progress = SILENT,
) -> list[Row]:
    """Every way over the same titles, taking turns, in processor time; building is not counted.

    Args:
        encoder: Ours, with its dictionary.
        titles: What to cut.
        rounds: Times each way goes over all of them.
        progress: Where to report.
    """
    words = [entry.word for entry in encoder.segmenter.lexicon.entries()]
    plain = PlainTitles(encoder.tokenizer, words)
    cached = CachedTitles(encoder.tokenizer, words)
    oracle = encoder.tokenizer.oracle
    ways: dict[str, Callable[[], object]] = {
        tr("plain: slow tokenizer, matching loop"): lambda: [plain.bags(t) for t in titles],
        tr("tokens alone: tokenizers (Rust), ids as lists"): lambda: [
            found.ids for found in oracle.encode_batch(titles, add_special_tokens=False)
        ],
        tr("tokens alone: cached WordPiece"): lambda: [cached.tokenize(t) for t in titles],
        tr("tokens alone: xmr"): lambda: encoder.tokenizer.encode_batch(titles),
        tr("matches alone: pyahocorasick"): lambda: [cached.matches(t) for t in titles],
        tr("matches and best cover: xmr"): lambda: encoder.segmenter.segment_batch(titles),
        tr("cached WordPiece and pyahocorasick"): lambda: [
            (cached.tokenize(t), cached.matches(t)) for t in titles
        ],
        tr("xmr: tokens, cover, packed bags"): lambda: encoder(titles),
    }
    for way in ways.values():  # caches filled, kernels compiled
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with progress.task(tr("Titles to bags"), rounds * len(ways)) as task:
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.process_time()
                way()
                seconds[name].append(time.process_time() - start)
                task.advance(1)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    slowest = next(iter(medians.values()))
    return [Row(name, len(titles) / median, slowest / median) for name, median in medians.items()]
