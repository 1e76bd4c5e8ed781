"""What is wrong with a dictionary, and what it covers of a pile of titles."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.characters import fold
from bagformer_cli.text.dictionaries import Dictionary, parse_dictionary
from bagformer_cli.text.lexicon import HEAD, LONGEST, UNIT, Lexicon, fold_all
from bagformer_cli.text.lines import Problem, read_lines
from bagformer_cli.text.patterns import LEXICON, TOKEN
from bagformer_cli.text.segmenter import Segmenter

CHUNK = 20_000

Kind = Literal["broken", "same", "conflict", "unreachable"]
"""A line that cannot be used; an entry that is another one in other characters; an entry whose
type another dictionary contradicts; an entry that never becomes a bag."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at in a dictionary."""

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
    """Everything that is wrong or odd in dictionary files.

    An entry is unreachable when the segmenter does not even make one bag of it where it stands
    alone: its parts are entries, it is too long, or it begins or ends inside a word or number.

    Args:
        paths: The files.
        against: The dictionaries they are used with.
        progress: Where to report.
    """
    findings: list[Finding] = []
    types: dict[str, tuple[str, str]] = {}
    known = {e.word: e.type for e in Lexicon.load(against).entries() if e.type} if against else {}
    with progress.task(tr("Checking"), total=len(paths), unit=tr("files")) as task:
        for path in paths:
            dictionary = parse_dictionary(path)
            name = str(path)
            findings += [_broken(name, problem) for problem in dictionary.problems]
            findings += _same(name, dictionary)
            findings += _conflicts(name, dictionary, known, types)
            if not dictionary.problems:
                findings += _unreachable(name, dictionary, Lexicon.load([*against, path]))
            task.advance()
    return sorted(findings, key=lambda found: (found.file, found.line))


def _broken(name: str, problem: Problem) -> Finding:
    return Finding(name, problem.line, "broken", problem.found, problem.message)


def _rows(dictionary: Dictionary) -> Iterator[tuple[int, str, str, str | None]]:
    folded = fold_all(dictionary.words)
    yield from zip(dictionary.lines, dictionary.words, folded, dictionary.types, strict=True)


def _same(name: str, dictionary: Dictionary) -> Iterator[Finding]:
    seen: dict[tuple[str, str | None], tuple[int, str]] = {}
    for line, word, folded, kind in _rows(dictionary):
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
    dictionary: Dictionary,
    known: dict[str, str],
    types: dict[str, tuple[str, str]],
) -> Iterator[Finding]:
    for line, word, folded, kind in _rows(dictionary):
        if kind is None or kind in (UNIT, HEAD):
            continue
        place = f"{name}:{line}"
        elsewhere = known.get(folded)
        where, other = types.setdefault(folded, (place, kind))
        if where == place and elsewhere and elsewhere != kind:
            where, other = tr("the dictionaries it is used with"), elsewhere
        if other != kind:
            yield Finding(
                name,
                line,
                "conflict",
                word,
                tr(
                    "It is {kind} here and {other} in {where}.", kind=kind, other=other, where=where
                ),
            )


def _unreachable(name: str, dictionary: Dictionary, lexicon: Lexicon) -> Iterator[Finding]:
    rows = [row for row in _rows(dictionary) if row[3] not in (UNIT, HEAD)]
    packed = Segmenter(lexicon).segment_batch([row[2] for row in rows])
    counts = np.diff(packed.offsets)
    for i, (line, word, folded, _) in enumerate(rows):
        first = int(packed.offsets[i])
        length = len(folded.strip())
        one = counts[i] == 1 and int(packed.ends[first]) - int(packed.starts[first]) == length
        single = length == 1 and packed.kinds[first] in (LEXICON, TOKEN)
        if not (one and (single or packed.kinds[first] == LEXICON)):
            yield Finding(name, line, "unreachable", word, _why(folded, lexicon))


def _why(word: str, lexicon: Lexicon) -> str:
    if len(word) > LONGEST:
        return tr("It has more than {n} characters.", n=LONGEST)
    if any(unicodedata.category(character) in ("Cc", "Cf", "Mn") for character in word):
        return tr("It holds invisible characters.")
    for cut in range(2, len(word) - 1):
        if word[:cut] in lexicon.words and word[cut:] in lexicon.words:
            return tr(
                "Its parts {first} and {second} are entries (a weight of its own keeps it whole).",
                first=word[:cut],
                second=word[cut:],
            )
    return tr("A pattern or other entries make a cheaper cover of it.")


def repair(path: str | Path, out: str | Path) -> int:
    """Write a dictionary as UTF-8 without its broken lines; returns how many those were."""
    lines, _ = read_lines(path)
    problems = parse_dictionary(path).problems
    broken = {problem.line for problem in problems if not problem.whole_file}
    write_text(out, "".join(f"{line}\n" for i, line in enumerate(lines, 1) if i not in broken))
    return len(broken)


@dataclass(slots=True)
class Coverage:
    """What a lexicon covers of titles.

    Args:
        titles: How many titles.
        characters: Their characters by what covers them: ``lexicon``, ``pattern``, ``token``.
        bags: Their bags, likewise.
        types: Bags by type, of those that have one.
        used: How many different entries occurred.
        unknown: The pieces that no entry explains, with their counts.
    """

    titles: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    bags: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    used: int = 0
    unknown: Counter[str] = field(default_factory=Counter)


UNKNOWN_KEPT = 200_000
"""Different unknown pieces that are counted; the rarest half is forgotten beyond that."""


def coverage(
    segmenter: Segmenter, titles: Iterable[str], *, progress: Progress = SILENT
) -> Coverage:
    """Cut titles into bags and say what covers them; streams, in bounded memory."""
    found = Coverage()
    seen: set[str] = set()
    with progress.task(tr("Reading titles"), unit=tr("titles")) as task:
        for chunk in chunks(titles):
            for bag in chain.from_iterable(segmenter.unpack(chunk, segmenter.segment_batch(chunk))):
                found.bags[bag.source] += 1
                found.characters[bag.source] += bag.end - bag.start
                if bag.type:
                    found.types[bag.type] += 1
                if bag.source == "lexicon":
                    seen.add(bag.text)
                elif bag.source == "token" or bag.type == "name":
                    found.unknown[bag.text] += 1
            found.titles += len(chunk)
            if len(found.unknown) > UNKNOWN_KEPT:
                found.unknown = Counter(dict(found.unknown.most_common(UNKNOWN_KEPT // 2)))
            task.advance(len(chunk))
    found.used = len({fold(word) for word in seen})
    return found


def chunks(titles: Iterable[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Lists of ``size`` titles, the last one shorter."""
    chunk: list[str] = []
    for title in titles:
        chunk.append(title)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
