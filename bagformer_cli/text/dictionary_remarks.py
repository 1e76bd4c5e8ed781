"""Say what a user should know about dictionaries that were read: left-out lines, two types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bagformer_cli.messages import tr
from bagformer_cli.text.dictionaries import RULES, Dictionary
from bagformer_cli.text.lines import BYTE_ORDER_MARK_HEX
from bagformer_cli.text.type_names import type_name

Read = tuple[Path, Dictionary]
"""A dictionary and its file."""


def remarks_on(dictionaries: Sequence[Read]) -> list[str]:
    """Return a sentence for each thing that may surprise; none if all lines were read as meant."""
    return [*_lines(dictionaries), *_types(dictionaries)]


def _lines(dictionaries: Sequence[Read]) -> Iterator[str]:
    for path, dictionary in dictionaries:
        for problem in dictionary.problems:
            if problem.whole_file and problem.found != BYTE_ORDER_MARK_HEX:
                yield tr("{place}: {message}", place=path, message=problem.message)
        lost = [problem for problem in dictionary.problems if not problem.harmless]
        if lost:
            yield tr(
                "{path}: {n} of its lines are left out or not read in full; the first "
                "is line {line}: {message} `xmr dict check {path}` lists them.",
                path=path,
                n=len(lost),
                line=lost[0].line,
                message=lost[0].message,
            )


def _types(dictionaries: Sequence[Read]) -> Iterator[str]:
    first: dict[str, tuple[str, str]] = {}
    conflicts: list[tuple[str, str, str, str, str]] = []
    for path, dictionary in dictionaries:
        rows = zip(dictionary.lines, dictionary.words, dictionary.types, strict=True)
        for line, word, kind in rows:
            if kind is None or kind in RULES:
                continue
            known, place = first.setdefault(word, (kind, f"{path}:{line}"))
            if known != kind:
                conflicts.append((word, known, place, kind, f"{path}:{line}"))
    if conflicts:
        word, known, place, kind, other = conflicts[0]
        yield tr(
            "{n} dictionary entries have two types; the first one counts. {word} is {known} in "
            "{place} and {kind} in {other}.",
            n=len(conflicts),
            word=word,
            known=type_name(known),
            place=place,
            kind=type_name(kind),
            other=other,
        )
