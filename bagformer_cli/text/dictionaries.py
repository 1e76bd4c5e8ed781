"""Read dictionary files of four formats, with the line of every problem.

- ``typed``: this project's TSV, ``word<TAB>type<TAB>weight<TAB>origin``. Only the word is required;
  ``# type: brand`` and ``# weight: 5`` set defaults for the lines below. Other lines that begin
  with ``#`` are comments.
- ``jieba``: ``word count tag``.
- ``ranked``: BagFormer's format, one word per line, the most important first.
- ``marked``: titles with BIO tags (:mod:`.bio`). The marked words and their counts are the entries.

A weight is the expected number of times a word occurs in a million words of titles. An entry with a
weight on its line (or a marked one) is ``whole``: one bag, even if it consists of two entries.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bagformer_cli.messages import tr
from bagformer_cli.text.bio import looks_marked, parse_marked
from bagformer_cli.text.lines import Problem, raise_first, read_lines

UNTYPED = "-"
"""Written in a file for an entry without a type."""

FEWEST_COUNTS = 100_000
"""Counts are divided by their sum to become weights, but at least by this number."""

BACKGROUND = "jieba"
"""Name of jieba's general word list. Its entries are never ``whole``."""

RANKED_MASS, RANKED_FROM = 40_000.0, 1_000.0
"""A word of rank r has weight MASS / (r + FROM): Zipf's law, flattened at the top."""

TYPED_WEIGHT = 8.0
"""Weight of a typed entry without one."""

PLACE_TAGS = {"ns", "nsf"}

LABELS = {"HCCX": "category", "HPPX": "brand", "XH": "model", "MISC": None, "MISCX": None}
"""Types for the labels of the public e-commerce corpora."""

CHARACTERS_A_BAG = 2.0
"""Mean number of characters of a bag, to turn counts into weights."""


@dataclass(slots=True)
class Dictionary:
    """The entries of one file, in its order.

    Args:
        name: Origin of its entries.
        layout: ``"typed"``, ``"jieba"``, ``"ranked"`` or ``"marked"``.
        wholes: Whether an entry is one bag even if it consists of two entries.
    """

    name: str
    layout: str
    words: list[str] = field(default_factory=list)
    types: list[str | None] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    wholes: list[bool] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(
        self,
        line: int,
        word: str,
        kind: str | None,
        weight: float,
        *,
        whole: bool = False,
        origin: str | None = None,
    ) -> None:
        """Append one entry."""
        self.words.append(word)
        self.types.append(kind)
        self.weights.append(weight)
        self.wholes.append(whole)
        self.origins.append(origin or self.name)
        self.lines.append(line)


def read_dictionary(path: str | Path, *, name: str | None = None) -> Dictionary:
    """Read a dictionary file of any of the formats.

    Raises:
        InputError: There is no such file.
        DataError: A line is empty, there twice or malformed, or the file is not plain UTF-8.
    """
    dictionary = parse_dictionary(path, name=name)
    raise_first(
        path,
        dictionary.problems,
        tr("UTF-8 text without a byte-order mark, one entry a line, each once"),
        tr(
            "`xmr dict check {path}` lists every problem; with `--repair OUT` it writes a "
            "dictionary without them.",
            path=path,
        ),
    )
    return dictionary


def parse_dictionary(path: str | Path, *, name: str | None = None) -> Dictionary:
    """Read a dictionary file and collect its broken lines in ``problems``.

    Raises:
        InputError: There is no such file.
    """
    lines, problems = read_lines(path)
    dictionary = Dictionary(name or Path(path).name, _layout(lines), problems=problems)
    _READERS[dictionary.layout](dictionary, lines)
    if dictionary.layout in ("typed", "ranked"):  # jieba's own list repeats some words
        _find_duplicates(dictionary)
    dictionary.problems.sort(key=lambda problem: problem.line)
    return dictionary


_JIEBA_LINE = re.compile(r"\S+ \d+(?: [a-zA-Z]+)?\s*")


def _layout(lines: Sequence[str]) -> str:
    head = [line for line in lines[:1000] if line.strip()]
    if looks_marked(head):
        return "marked"
    if any("\t" in line or line.startswith(("# type:", "# weight:")) for line in head):
        return "typed"
    if head and all(_JIEBA_LINE.fullmatch(line) for line in head):
        return "jieba"
    return "ranked"


def _empty(dictionary: Dictionary, number: int, line: str) -> bool:
    if line and not line.isspace():
        return False
    dictionary.problems.append(Problem(number, tr("The line is empty."), repr(line)))
    return True


def _read_typed(dictionary: Dictionary, lines: Sequence[str]) -> None:
    default_type: str | None = None
    default_weight = TYPED_WEIGHT
    for number, line in enumerate(lines, 1):
        if line.startswith("#") and "\t" not in line:
            name, _, value = line[1:].partition(":")
            if name.strip() == "type":
                default_type = value.strip()
            elif name.strip() == "weight":
                default_weight = _weight(dictionary, number, value.strip(), TYPED_WEIGHT)
            continue
        if _empty(dictionary, number, line):
            continue
        fields = [part.strip() for part in line.split("\t")]
        if not fields[0] or len(fields) > 4:
            dictionary.problems.append(
                Problem(number, tr("The line is not `word<TAB>type<TAB>weight<TAB>origin`."), line)
            )
            continue
        fields += [""] * (4 - len(fields))
        kind = None if fields[1] == UNTYPED else fields[1] or default_type
        weight = default_weight
        if fields[2]:
            weight = _weight(dictionary, number, fields[2], default_weight)
        whole = bool(fields[2])
        dictionary.add(number, fields[0], kind, weight, whole=whole, origin=fields[3])


def _weight(dictionary: Dictionary, number: int, value: str, otherwise: float) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = 0.0
    if 0.0 < weight < float("inf"):
        return weight
    dictionary.problems.append(
        Problem(number, tr("The weight is not a number greater than 0."), value)
    )
    return otherwise


def _read_jieba(dictionary: Dictionary, lines: Sequence[str]) -> None:
    counts: list[int] = []
    for number, line in enumerate(lines, 1):
        if _empty(dictionary, number, line):
            continue
        word, count, tag = [*line.split(), "", ""][:3]
        if not count.isdigit():
            problem = Problem(number, tr("The line is not `word count tag`."), line)
            dictionary.problems.append(problem)
            continue
        counts.append(int(count))
        dictionary.words.append(word)
        dictionary.types.append("place" if tag in PLACE_TAGS else None)
        dictionary.lines.append(number)
    per_million = 1e6 / max(FEWEST_COUNTS, sum(counts))
    dictionary.weights = [(count or 0.5) * per_million for count in counts]
    dictionary.wholes = [dictionary.name != BACKGROUND] * len(counts)
    dictionary.origins = [dictionary.name] * len(counts)


def _read_ranked(dictionary: Dictionary, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines, 1):
        if not _empty(dictionary, number, line):
            weight = RANKED_MASS / (number + RANKED_FROM)
            dictionary.add(number, line.strip(), None, weight)


def _read_marked(dictionary: Dictionary, lines: Sequence[str]) -> None:
    counts: Counter[tuple[str, str | None]] = Counter()
    first_lines: dict[tuple[str, str | None], int] = {}
    characters = 0
    for title in parse_marked(lines, dictionary.problems):
        characters += len(title.text)
        for start, end, label in title.spans:
            key = title.text[start:end], LABELS.get(label, label.lower())
            counts[key] += 1
            first_lines.setdefault(key, title.line + start)
    per_million = 1e6 / max(1.0, characters / CHARACTERS_A_BAG)
    for (word, kind), times in counts.items():
        dictionary.add(first_lines[word, kind], word, kind, times * per_million, whole=True)


_READERS = {
    "typed": _read_typed,
    "jieba": _read_jieba,
    "ranked": _read_ranked,
    "marked": _read_marked,
}


def _find_duplicates(dictionary: Dictionary) -> None:
    if len(set(zip(dictionary.words, dictionary.types, strict=True))) == len(dictionary.words):
        return
    seen: dict[tuple[str, str | None], int] = {}
    for line, word, kind in zip(dictionary.lines, dictionary.words, dictionary.types, strict=True):
        first = seen.setdefault((word, kind), line)
        if first != line:
            dictionary.problems.append(
                Problem(line, tr("The entry is there already, in line {first}.", first=first), word)
            )
