"""Titles with marked spans (BIO tags): read from a file, compared with bags.

One ``character tag`` a line (``B-…``, ``I-…``, ``O``), an empty line after each title.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bagformer_cli.messages import tr
from bagformer_cli.text.lines import Problem, raise_first, read_lines

_LINE = re.compile(r"(.) (O|[BI]-\S+)\s*")


@dataclass(frozen=True, slots=True)
class MarkedTitle:
    """A title and its marked spans (start, end, label); ``line`` is where it begins."""

    line: int
    text: str
    spans: tuple[tuple[int, int, str], ...]


def looks_marked(lines: Sequence[str]) -> bool:
    """Whether these first lines of a file are marked characters."""
    filled = [line for line in lines if line.strip()]
    return bool(filled) and all(_LINE.fullmatch(line) for line in filled)


def parse_marked(lines: Sequence[str], problems: list[Problem]) -> Iterator[MarkedTitle]:
    """The titles of a file of marked characters; what is wrong with a line goes to ``problems``."""
    characters: list[str] = []
    tags: list[str] = []
    begin = 1
    for number, line in enumerate([*lines, ""], 1):
        found = _LINE.fullmatch(line)
        if found:
            characters.append(found[1])
            tags.append(found[2])
        elif line.strip():
            problems.append(Problem(number, tr("The line is not `character tag`."), line))
        else:
            if characters:
                yield MarkedTitle(begin, "".join(characters), tuple(_spans(tags)))
            characters, tags, begin = [], [], number + 1


def _spans(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    start = 0
    label = ""
    for at, tag in enumerate([*tags, "O"]):
        inside = tag[:2] == "I-" and tag[2:] == label
        if label and not inside:
            yield start, at, label
            label = ""
        if tag != "O" and not inside:
            start, label = at, tag[2:]


def read_marked(path: str | Path) -> list[MarkedTitle]:
    """Read a file of marked titles.

    Raises:
        InputError: There is no such file.
        DataError: A line is broken, or there is no title.
    """
    lines, problems = read_lines(path)
    titles = list(parse_marked(lines, problems))
    if not titles and not problems:
        problems.append(Problem(1, tr("The file holds no title."), ""))
    raise_first(path, problems, tr("`character tag` a line, an empty line after each title"))
    return titles


class Span(Protocol):
    """What a bag is here: a stretch of characters."""

    @property
    def start(self) -> int:
        """First character."""

    @property
    def end(self) -> int:
        """One past the last."""


Miss = Literal["split", "inside", "shifted"]
"""Why a marked span is no bag: several bags make it up exactly, it lies in a larger one, or a
boundary is elsewhere."""


@dataclass(slots=True)
class Quality:
    """How bags compare with marked spans.

    Args:
        spans: Marked spans by label.
        exact: Those of them that one bag covers exactly, by label.
        bags: Bags of more than one character.
        crossing: Those of them with a marked boundary inside.
        missed: The other spans by label and reason.
        examples: Title number, start and end of every miss by reason, and of every crossing bag.
    """

    spans: Counter[str] = field(default_factory=Counter)
    exact: Counter[str] = field(default_factory=Counter)
    bags: int = 0
    crossing: int = 0
    missed: Counter[tuple[str, Miss]] = field(default_factory=Counter)
    examples: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)

    @property
    def exact_share(self) -> float:
        """Share of marked spans that are exactly one bag, in [0, 1]."""
        return self.exact.total() / max(1, self.spans.total())

    @property
    def crossing_share(self) -> float:
        """Share of bags of several characters that cross a marked boundary, in [0, 1]."""
        return self.crossing / max(1, self.bags)


def measure(titles: Iterable[MarkedTitle], bags: Iterable[Iterable[Span]]) -> Quality:
    """Compare the bags of each title with what is marked in it."""
    quality = Quality()
    for number, (title, found) in enumerate(zip(titles, bags, strict=True)):
        stretches = [(bag.start, bag.end) for bag in found]
        known = set(stretches)
        boundaries = {place for start, end, _ in title.spans for place in (start, end)}
        for start, end, label in title.spans:
            quality.spans[label] += 1
            if (start, end) in known:
                quality.exact[label] += 1
            else:
                reason = _reason(start, end, stretches)
                quality.missed[label, reason] += 1
                quality.examples.setdefault(reason, []).append((number, start, end))
        for start, end in stretches:
            if end - start > 1:
                quality.bags += 1
                if any(place in boundaries for place in range(start + 1, end)):
                    quality.crossing += 1
                    quality.examples.setdefault("crossing", []).append((number, start, end))
    return quality


def _reason(start: int, end: int, stretches: Sequence[tuple[int, int]]) -> Miss:
    if any(first <= start and end <= last for first, last in stretches):
        return "inside"
    edges = {place for stretch in stretches for place in stretch}
    return "split" if start in edges and end in edges else "shifted"
