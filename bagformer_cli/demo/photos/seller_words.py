"""Titles for the names of image classes: the words that sellers put around a name.

The words come from the built-in dictionary, by their types. No title of a photograph is read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from bagformer_cli.text.lexicon import Lexicon

BEFORE = (("colour", 0.5), ("material", 0.35), ("style", 0.25))
"""Types of the words before a name, and how often one is there."""
AFTER = ("audience", "scene", "function", "selling", "style")
MOST_AFTER = 3
_LONGEST = 5  # characters of a word


def seller_titles(names: Sequence[str], seed: int = 0) -> list[str]:
    """Write a title for each name: 草莓 → 红色草莓 当季 家用.

    Args:
        names: Names of things.
        seed: Random seed of the words.
    """
    words: dict[str, list[str]] = {}
    for entry in Lexicon.load().entries():
        if entry.type is not None and len(entry.word) <= _LONGEST:
            words.setdefault(entry.type, []).append(entry.word)
    draw = random.Random(seed)
    titles = []
    for name in names:
        before = [draw.choice(words[kind]) for kind, share in BEFORE if draw.random() < share]
        count = draw.randint(1, MOST_AFTER)
        after = [draw.choice(words[draw.choice(AFTER)]) for _ in range(count)]
        titles.append(" ".join(["".join(before) + name, *after]))
    return titles
