"""Titles a second to tokens and bags, beside the plain way of doing the same in Python."""

from __future__ import annotations

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


def run(
    encoder: TitleEncoder,
    titles: Sequence[str],
    *,
    rounds: int = 3,
    progress: Progress = SILENT,
) -> list[Row]:
    """Both ways over the same titles, taking turns; building dictionaries is not counted.

    Args:
        encoder: Ours, with its dictionary.
        titles: What to cut.
        rounds: Times each way goes over all of them.
        progress: Where to report.
    """
    words = [entry.word for entry in encoder.segmenter.lexicon.entries()]
    plain = PlainTitles(encoder.tokenizer, words)

    def one_by_one() -> None:
        for title in titles:
            plain.bags(title)

    ways: dict[str, Callable[[], object]] = {
        "plain": one_by_one,
        "xmr": lambda: encoder(titles),
    }
    encoder(titles[:1000])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with progress.task(tr("Titles to bags"), rounds * len(ways)) as task:
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
                task.advance(1)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        Row(name, len(titles) / median, medians["plain"] / median)
        for name, median in medians.items()
    ]
