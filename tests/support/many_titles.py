"""Titles by the million, drawn from the shipped dictionaries: what long runs are measured with.

python -m tests.support.many_titles FOLDER 10000000   # a MUGE folder with queries alone
python -m tests.support.many_titles titles.txt 2000000
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bagformer_cli.text.lexicon import Lexicon

SLOTS = ("brand", "season", "audience", "style", "colour", "material", "function", "category")
LEFT_OUT = 0.35
"""How often a title does without one of the slots (never without its category)."""

CHUNK = 100_000


def many_titles(count: int, seed: int = 0) -> Iterator[str]:
    """``count`` titles; one in twenty holds a made-up name that no dictionary has."""
    words: dict[str, list[str]] = {slot: [] for slot in SLOTS}
    for entry in Lexicon.load().entries():
        if entry.type in words and entry.origin.endswith(".tsv"):
            words[entry.type].append(entry.word)
    rng = np.random.default_rng(seed)
    names = ["".join(map(chr, row)) for row in rng.integers(0x5000, 0x9000, (20_000, 3)).tolist()]
    for begin in range(0, count, CHUNK):
        size = min(CHUNK, count - begin)
        columns = []
        for slot in SLOTS:
            chosen = np.array(words[slot], object)[rng.integers(0, len(words[slot]), size)]
            if slot != "category":
                chosen[rng.random(size) < LEFT_OUT] = ""
            columns.append(chosen.tolist())
        named = rng.random(size) < 0.05
        which = rng.integers(0, len(names), size)
        sizes = rng.integers(1, 500, size)
        for i, parts in enumerate(zip(*columns, strict=True)):
            name = names[which[i]] if named[i] else ""
            yield f"{name}{''.join(parts)} {sizes[i]}g"


def main(target: Path, count: int) -> None:
    """Write the titles: a line each, or (where ``target`` is no .txt) as a split of queries."""
    if target.suffix == ".txt":
        with open(target, "w", encoding="utf-8") as stream:
            stream.writelines(f"{title}\n" for title in many_titles(count))
        return
    target.mkdir(parents=True, exist_ok=True)
    with open(target / "MR_train_queries.jsonl", "w", encoding="utf-8") as stream:
        for number, title in enumerate(many_titles(count)):
            text = json.dumps(title, ensure_ascii=False)
            stream.write(f'{{"query_id": {number}, "query_text": {text}, "item_ids": [1]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
