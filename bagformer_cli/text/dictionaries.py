"""Read dictionary files, with the line of every problem.

The forms of lines are described in :mod:`.dictionary_lines`. Besides:

- ``# type: brand`` and ``# weight: 5`` set type and weight of the lines below that have none. Other
  lines that begin with ``#`` and have no tab are comments.
- A file of titles with BIO tags (:mod:`.bio`) is a dictionary, too: the marked words and their
  counts are the entries.

A weight is the expected number of times a word occurs in a million words of titles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr
from bagformer_cli.text.bio import looks_marked, parse_marked
from bagformer_cli.text.characters import without_invisible
from bagformer_cli.text.dictionary_lines import (
    PLACE_TAGS,
    TAGS,
    UNTYPED,
    form_of,
    has_fields,
    has_unread_comma,
    is_comment,
    known_type,
    read_row,
)
from bagformer_cli.text.lines import Problem, read_lines

LONGEST = 64
"""Characters of an entry at most."""

FEWEST_COUNTS = 100_000
"""Counts are divided by their sum to become weights, but at least by this number."""

BACKGROUND = "jieba"
"""Name of jieba's general word list."""

RANKED_MASS, RANKED_FROM = 40_000.0, 1_000.0
"""A word without type and count in line r has weight MASS / (r + FROM): Zipf's law, flattened at
the top, for lists that have the most important words first."""

TYPED_WEIGHT = 8.0
"""Weight of a typed entry without one."""

LEAST_WEIGHT, MOST_WEIGHT = 1e-9, 1e9
"""Weights beyond are taken as these."""

LABELS = {"HCCX": "category", "HPPX": "brand", "XH": "model", "MISC": None, "MISCX": None}
"""Types for the labels of the public e-commerce corpora."""

MOST_COUNT = 1e12
"""Counts beyond are taken as this."""

UNIT, HEAD, SUFFIX, NEVER = "unit", "head", "suffix", "never"
"""Types that are parts of rules and not entries: units follow a number, heads make a product of the
word before them, suffixes belong to the word before them, and words of type never are removed from
jieba's list."""

RULES = frozenset({UNIT, HEAD, SUFFIX, NEVER})

CHARACTERS_A_BAG = 2.0
"""Mean number of characters of a bag, to turn counts into weights."""


@dataclass(slots=True)
class Dictionary:
    """The entries of one file, in its order.

    Args:
        name: Origin of its entries.
        words: The words, without invisible characters.
        types: The type of each, None: it has none.
        weights: The weight of each.
        weighed: Whether the line of each gives its weight, or it was counted in marked titles.
        complete: Whether the weight of each is used as it stands: it was counted in marked titles,
            or the line has weight and origin, as in a saved lexicon and from ``xmr dict mine``.
        origins: Where each comes from.
        lines: The line of each, counted from 1.
        problems: Everything unusual, by line.
    """

    name: str
    words: list[str] = field(default_factory=list)
    types: list[str | None] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    weighed: list[bool] = field(default_factory=list)
    complete: list[bool] = field(default_factory=list)
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
        weighed: bool = False,
        complete: bool = False,
        origin: str | None = None,
    ) -> None:
        """Append one entry."""
        self.words.append(word)
        self.types.append(kind)
        self.weights.append(weight)
        self.weighed.append(weighed)
        self.complete.append(complete)
        self.origins.append(origin or self.name)
        self.lines.append(line)

    def report(self, line: int, message: str, found: str, *, harmless: bool = False) -> None:
        """Append a problem."""
        self.problems.append(Problem(line, message, found, harmless=harmless))


def read_dictionary(path: str | Path, *, name: str | None = None) -> Dictionary:
    """Read a dictionary file of any form. Its broken lines are left out and named in ``problems``.

    Raises:
        InputError: There is no such file.
        DataError: The encoding is unknown, or no line of the file is an entry.
    """
    dictionary = parse_dictionary(path, name=name)
    losses = [problem for problem in dictionary.problems if not problem.harmless]
    fatal = [problem for problem in losses if problem.fatal]
    if fatal or (losses and not dictionary.words):
        first = (fatal or losses)[0]
        raise DataError(
            first.message,
            where=f"{path}:{first.line}",
            found=first.found,
            expected=tr("UTF-8 text, one entry a line"),
            hint=tr("`xmr dict check {path}` lists every problem.", path=path),
        )
    return dictionary


def parse_dictionary(path: str | Path, *, name: str | None = None) -> Dictionary:
    """Read a dictionary file and collect its problems.

    Raises:
        InputError: There is no such file.
    """
    lines, problems = read_lines(path)
    dictionary = Dictionary(name or Path(path).name, problems=problems)
    if looks_marked([line for line in lines[:1000] if line.strip()]):
        _read_marked(dictionary, lines)
    else:
        _read_lines(dictionary, lines)
        if dictionary.name != BACKGROUND:  # which repeats some words
            _find_repeated(dictionary)
    dictionary.problems.sort(key=lambda problem: problem.line)
    return dictionary


def _read_lines(dictionary: Dictionary, lines: Sequence[str]) -> None:
    form = form_of(lines)
    default_type = ""
    default_weight: float | None = None
    counts: list[tuple[int, float]] = []  # index of an entry, its count
    heading = bool(form.headings)  # the first line that is no comment
    unreadable = {problem.line for problem in dictionary.problems if not problem.whole_file}
    for number, line in enumerate(lines, 1):
        if is_comment(line):
            name, _, value = line[1:].partition(":")
            if name.strip() == "type":
                default_type = value.strip()
            elif name.strip() == "weight":
                default_weight = _weight(dictionary, number, value.strip())
            continue
        if not line.strip():
            if number not in unreadable:
                dictionary.report(number, tr("The line is empty."), repr(line), harmless=True)
            continue
        if heading:
            heading = False
            continue
        row = read_row(line, form)
        if isinstance(row, str):
            dictionary.report(number, row, line)
            continue
        if has_unread_comma(line, form):
            dictionary.report(
                number,
                tr("Most lines have no comma, so this one is a single entry with its comma."),
                line,
            )
        word = " ".join(without_invisible(row.word).split())
        if not word or len(word) > LONGEST:
            message = (
                tr("The entry has more than {n} characters.", n=LONGEST)
                if word
                else tr("The line has no character that can be seen.")
            )
            dictionary.report(number, message, repr(row.word[: LONGEST + 1]))
            continue
        kind = _type_of(row.type or default_type)
        typed = default_type or has_fields(line, form)
        weight = default_weight or (TYPED_WEIGHT if typed else RANKED_MASS / (number + RANKED_FROM))
        given = _weight(dictionary, number, row.weight) if row.weight else None
        if row.times:
            counts.append((len(dictionary.words), float(row.times)))
        dictionary.add(
            number,
            word,
            kind,
            given or weight,
            weighed=given is not None,
            complete=given is not None and bool(row.origin),
            origin=row.origin,
        )
    _weigh_counts(dictionary, counts)


def _type_of(given: str) -> str | None:
    """Return the type that a field names; a tag of jieba names one for places only.

    A known type may have its Chinese name. Any other text is a type of the user's own.
    """
    if given.lower() in PLACE_TAGS:
        return "place"
    if given == UNTYPED or not given or given.lower() in TAGS:
        return None
    return known_type(given) or given


def _weight(dictionary: Dictionary, number: int, value: str) -> float | None:
    """Read a weight; report one that is none and return None."""
    try:
        weight = float(value)
    except ValueError:
        weight = 0.0
    if 0.0 < weight < float("inf"):
        return min(max(weight, LEAST_WEIGHT), MOST_WEIGHT)
    dictionary.report(number, tr("The weight is not a number greater than 0."), value)
    return None


def _weigh_counts(dictionary: Dictionary, counts: Sequence[tuple[int, float]]) -> None:
    """Turn the counts of entries into weights."""
    total = sum(min(count, MOST_COUNT) for _, count in counts)
    per_million = 1e6 / max(FEWEST_COUNTS, total)
    for index, count in counts:
        weight = (min(count, MOST_COUNT) or 0.5) * per_million
        dictionary.weights[index] = max(weight, LEAST_WEIGHT)


def _read_marked(dictionary: Dictionary, lines: Sequence[str]) -> None:
    counts: Counter[tuple[str, str | None]] = Counter()
    first_lines: dict[tuple[str, str | None], int] = {}
    characters = 0
    for title in parse_marked(lines, dictionary.problems):
        characters += len(title.text)
        for start, end, label in title.spans:
            key = title.text[start:end], LABELS.get(label, known_type(label) or label.lower())
            counts[key] += 1
            first_lines.setdefault(key, title.line + start)
    per_million = 1e6 / max(1.0, characters / CHARACTERS_A_BAG)
    for (word, kind), times in counts.items():
        weight = times * per_million
        dictionary.add(first_lines[word, kind], word, kind, weight, weighed=True, complete=True)


def _find_repeated(dictionary: Dictionary) -> None:
    """Report words that are there twice. Two types of one word are not reported here."""
    if len(set(dictionary.words)) == len(dictionary.words):
        return
    seen: dict[tuple[str, str | None], int] = {}
    for line, word, kind in zip(dictionary.lines, dictionary.words, dictionary.types, strict=True):
        first = seen.setdefault((word, kind), line)
        if first != line:
            message = tr("The entry is there already, in line {first}.", first=first)
            dictionary.report(line, message, word, harmless=True)
