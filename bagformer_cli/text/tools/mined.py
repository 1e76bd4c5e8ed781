"""A word that was mined from titles, and the file of such words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.text.dictionary_lines import UNTYPED


@dataclass(frozen=True, slots=True)
class MinedWord:
    """A candidate that passed.

    Args:
        word: Its characters, folded.
        count: Number of its occurrences.
        cohesion: Pointwise mutual information of its parts, in nats.
        freedom: Entropy of its neighbours on the side where it is smaller, in nats.
        type: The type that it seems to have, None: nothing speaks for one.
        example: A title in which it stands.
    """

    word: str
    count: int
    cohesion: float
    freedom: float
    type: str | None = None
    example: str = ""

    @property
    def score(self) -> float:
        """The product by which words are sorted."""
        return math.log(self.count) * self.cohesion * self.freedom


def write_mined(path: str | Path, words: Sequence[MinedWord], pieces: int, source: str) -> None:
    """Write mined words as a typed dictionary, weights per million of the ``pieces`` seen."""
    lines = [
        "# " + tr("Mined from {source} by `xmr dict mine`: look through it.", source=source),
        "# " + tr("word, type, weight, origin (occurrences, cohesion, freedom, an example)"),
        "# type: -",
    ]
    per_million = 1e6 / max(1, pieces)
    for word in words:
        example = " ".join(word.example.split())
        facts = f"mined {word.count} {word.cohesion:.1f} {word.freedom:.1f} {example}".rstrip()
        kind = word.type or UNTYPED
        lines.append(f"{word.word}\t{kind}\t{word.count * per_million:.4g}\t{facts}")
    write_text(path, "".join(f"{line}\n" for line in lines))
