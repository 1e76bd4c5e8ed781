"""Check dictionaries for problems, and measure their coverage of titles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from bagformer_cli.messages import tr
from bagformer_cli.outputs import write_output
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.characters import fold
from bagformer_cli.text.dictionaries import RULES, parse_dictionary
from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.lines import Problem, read_lines
from bagformer_cli.text.merging import fold_all
from bagformer_cli.text.patterns import LEXICON, TOKEN
from bagformer_cli.text.segmenter import Segmenter
from bagformer_cli.text.type_names import as_written

CHUNK = 20_000

Row = tuple[int, str, str, str | None]
"""An entry of a dictionary: its line, the word, folded, its type."""

Kind = Literal["broken", "untidy", "same", "conflict", "unreachable"]
"""broken: the line cannot be used and is left out. untidy: nothing is lost (an empty line, an entry
that is there twice, another encoding). same: the entry equals another one after folding. conflict:
another line or dictionary gives it another type. unreachable: the entry never becomes a bag."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a dictionary."""

    file: str
    line: int
    kind: Kind
    entry: str
    message: str


def check_dictionaries(
    paths: Sequence[str | Path],
    *,
    against: Sequence[str | Path] = ("builtin",),
    progress: Progress = SILENT,
) -> list[Finding]:
    """Find the problems of dictionary files.

    An entry is unreachable if the segmenter does not make one bag of it even when it is the whole
    title: its parts are entries with a lower cost, or a pattern is cheaper.

    Args:
        paths: The files.
        against: The dictionaries they are used with.
        progress: Receives the progress.
    """
    findings: list[Finding] = []
    types: dict[str, tuple[str, str]] = {}
    known = {e.word: e.type for e in Lexicon.load(against).entries()} if against else {}
    with progress.task(tr("Checking"), total=len(paths), amount=tr("{n} files", n="{n}")) as task:
        for path in paths:
            dictionary = parse_dictionary(path)
            name = str(path)
            rows = list(
                zip(
                    dictionary.lines,
                    dictionary.words,
                    fold_all(dictionary.words),
                    dictionary.types,
                    strict=True,
                )
            )
            findings += [_broken(name, problem) for problem in dictionary.problems]
            findings += _same(name, rows)
            findings += _conflicts(name, rows, known, types)
            if rows and not any(problem.fatal for problem in dictionary.problems):
                findings += _unreachable(name, rows, known, Lexicon.load([*against, path]))
            task.advance()
    return sorted(findings, key=lambda found: (found.file, found.line))


def _broken(name: str, problem: Problem) -> Finding:
    kind: Kind = "untidy" if problem.harmless else "broken"
    return Finding(name, problem.line, kind, problem.found, problem.message)


def _same(name: str, rows: Sequence[Row]) -> Iterator[Finding]:
    seen: dict[tuple[str, str | None], tuple[int, str]] = {}
    for line, word, folded, kind in rows:
        first_line, first = seen.setdefault((folded, kind), (line, word))
        if first_line != line and first != word:
            yield Finding(
                name,
                line,
                "same",
                word,
                tr("The same as {entry} in line {line}.", entry=first, line=first_line),
            )


def _conflicts(
    name: str,
    rows: Sequence[Row],
    known: dict[str, str | None],
    types: dict[str, tuple[str, str]],
) -> Iterator[Finding]:
    for line, word, folded, kind in rows:
        if kind is None or kind in RULES:
            continue
        place = f"{name}:{line}"
        elsewhere = known.get(folded)
        where, other = types.setdefault(folded, (place, kind))
        if where == place and elsewhere and elsewhere != kind:
            where, other = tr("the built-in dictionaries"), elsewhere
        if other != kind:
            yield Finding(
                name,
                line,
                "conflict",
                word,
                tr(
                    "It is {kind} here and {other} in {where}.",
                    kind=as_written(kind),
                    other=as_written(other),
                    where=where,
                ),
            )


def _unreachable(
    name: str, rows: Sequence[Row], known: Container[str], lexicon: Lexicon
) -> Iterator[Finding]:
    rows = [row for row in rows if row[3] not in RULES]
    words = [row[2].strip() for row in rows]
    own = set(words)
    packed = Segmenter(lexicon).segment_batch(words)
    alone = np.diff(packed.offsets) == 1
    kinds = packed.kinds[np.minimum(packed.offsets[:-1], len(packed.kinds) - 1)]
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    reached = alone & ((kinds == LEXICON) | ((lengths == 1) & (kinds == TOKEN)))
    for i in np.flatnonzero(~reached):
        line, word, _, _ = rows[i]
        yield Finding(name, line, "unreachable", word, _why(words[i], known, own))


def _why(word: str, known: Container[str], own: Container[str]) -> str:
    for cut in range(2, len(word) - 1):
        first, second = word[:cut], word[cut:]
        if (first in own or first in known) and (second in own or second in known):
            return tr(
                "It never matches: its parts {first} and {second} are entries with a lower cost. "
                "A weight on its line keeps it whole.",
                first=first,
                second=second,
            )
    return tr("It never matches: a pattern or other entries have a lower cost.")


def repair(path: str | Path, out: str | Path) -> int:
    """Write a dictionary as UTF-8, without broken, empty and repeated lines.

    Returns:
        How many lines were left out.
    """
    lines, _ = read_lines(path)
    problems = parse_dictionary(path).problems
    broken = {problem.line for problem in problems if not problem.whole_file}
    write_output(out, "".join(f"{line}\n" for i, line in enumerate(lines, 1) if i not in broken))
    return len(broken)


@dataclass(slots=True)
class Coverage:
    """The coverage of titles by a lexicon.

    Args:
        titles: Number of titles.
        characters: Number of characters by the source of their bag: lexicon, pattern or token.
        bags: Number of bags by source.
        types: Number of bags by type, for bags that have one.
        used: Number of different entries that occurred.
        unknown: Counts of the strings that no entry explains, without punctuation and symbols.
    """

    titles: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    bags: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    used: int = 0
    unknown: Counter[str] = field(default_factory=Counter)


UNKNOWN_KEPT = 200_000
"""Different unknown strings that are counted at most. Beyond, the rarest half is dropped."""


def coverage(
    segmenter: Segmenter, titles: Iterable[str], *, progress: Progress = SILENT
) -> Coverage:
    """Cut titles into bags and count their sources. Memory does not grow with the titles."""
    found = Coverage()
    seen: set[str] = set()
    with progress.task(tr("Reading titles"), amount=tr("{n} titles", n="{n}")) as task:
        for chunk in chunks(titles):
            for bag in chain.from_iterable(segmenter.unpack(chunk, segmenter.segment_batch(chunk))):
                found.bags[bag.source] += 1
                found.characters[bag.source] += bag.end - bag.start
                if bag.type:
                    found.types[bag.type] += 1
                if bag.source == "lexicon":
                    seen.add(bag.text)
                elif bag.type == "name" or (
                    bag.source == "token" and any(map(str.isalnum, bag.text))
                ):
                    found.unknown[bag.text] += 1
            found.titles += len(chunk)
            if len(found.unknown) > UNKNOWN_KEPT:
                found.unknown = Counter(dict(found.unknown.most_common(UNKNOWN_KEPT // 2)))
            task.advance(len(chunk))
    found.used = len({fold(word) for word in seen})
    return found


def chunks(titles: Iterable[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Yield lists of ``size`` titles; the last one may be shorter."""
    chunk: list[str] = []
    for title in titles:
        chunk.append(title)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
