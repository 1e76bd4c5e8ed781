"""Read titles with marked spans (BIO tags).

A file has one ``character tag`` a line and an empty line after each title. The tag is ``B-label``
at the beginning of a span, ``I-label`` inside it and ``O`` outside:

    红 O
    色 O
    连 B-HCCX
    衣 I-HCCX
    裙 I-HCCX

:mod:`.tools.quality` compares the spans with bags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.messages import tr
from bagformer_cli.text.lines import Problem, raise_first, read_lines

_LINE = re.compile(r"(.) (O|[BI]-\S+)\s*")


@dataclass(frozen=True, slots=True)
class MarkedTitle:
    """A title and its marked spans (start, end, label); it begins at ``line`` of the file."""

    line: int
    text: str
    spans: tuple[tuple[int, int, str], ...]


def looks_marked(lines: Sequence[str]) -> bool:
    """Return whether these first lines of a file are marked characters."""
    filled = [line for line in lines if line.strip()]
    return bool(filled) and all(_LINE.fullmatch(line) for line in filled)


def parse_marked(lines: Sequence[str], problems: list[Problem]) -> Iterator[MarkedTitle]:
    """Yield the titles of a marked file; broken lines are appended to ``problems``."""
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
