"""Benchmark tokens and bags per second against the original's way and the least Python can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.bench.plain_titles import CachedTitles, PlainTitles
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TitleEncoder
from bagformer_cli.text.lexicon import Lexicon


@dataclass(frozen=True)
class Row:
    """The speed of one way from titles to tokens and bags, or of a part of it.

    Attributes:
        name: Name of the way.
        titles_per_second: Median over the rounds, per CPU second.
        speedup: Its titles per second divided by those of the original's way.
        time_of_floor: Its time divided by that of cached WordPiece and a bare automaton pass.
    """

    name: str
    titles_per_second: float
    speedup: float
    time_of_floor: float


@dataclass(frozen=True)
class Opening:
    """The time to open a dictionary.

    Attributes:
        entries: Number of its entries.
        seconds: Median time, with its arrays in the cache.
    """

    entries: int
    seconds: float


def opening(lexicons: Sequence[str | Path], *, rounds: int = 5) -> Opening:
    """Open a dictionary several times. The first time builds its cache and is not counted."""
    lexicon = Lexicon.load(lexicons)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        Lexicon.load(lexicons)
        seconds.append(time.perf_counter() - start)
    return Opening(len(lexicon), statistics.median(seconds))


def run(
    encoder: TitleEncoder,
    titles: Sequence[str],
    words: Sequence[str] | None = None,
    *,
    rounds: int = 3,
    progress: Progress = SILENT,
) -> list[Row]:
    """Measure every way on the same titles in turns, in CPU seconds, without building.

    Args:
        encoder: Ours, with its dictionary.
        titles: The titles to cut.
        words: The entries for the other ways. None: those of ``encoder``.
        rounds: Passes of each way over all titles. The median counts.
        progress: Receives the progress.
    """
    if words is None:
        words = [entry.word for entry in encoder.segmenter.lexicon.entries()]
    plain = PlainTitles(encoder.tokenizer, words, encoder.max_tokens)
    cached = CachedTitles(encoder.tokenizer, words)
    oracle = encoder.tokenizer.oracle
    original = tr("the original's way: slow tokenizer, matching loop")
    floor = tr("cached WordPiece and a bare automaton pass (iter_long)")
    ways: dict[str, Callable[[], object]] = {
        original: lambda: [plain.bags(t) for t in titles],
        floor: lambda: [(cached.tokenize(t), cached.matches(t)) for t in titles],
        tr("xmr: tokens, cover, packed bags"): lambda: encoder(titles),
        tr("tokens alone: slow tokenizer"): lambda: [plain.tokenize(t) for t in titles],
        tr("tokens alone: tokenizers (Rust), ids as lists"): lambda: [
            found.ids for found in oracle.encode_batch(titles, add_special_tokens=False)
        ],
        tr("tokens alone: cached WordPiece"): lambda: [cached.tokenize(t) for t in titles],
        tr("tokens alone: xmr"): lambda: encoder.tokenizer.encode_batch(titles),
        tr("matches alone: pyahocorasick, iter_long"): lambda: [cached.matches(t) for t in titles],
        tr("matches and best cover: xmr"): lambda: encoder.segmenter.segment_batch(titles),
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
    return [
        Row(name, len(titles) / median, medians[original] / median, median / medians[floor])
        for name, median in medians.items()
    ]
