"""Synonyms of a lexical search: a file in the form of Solr's and Elasticsearch's.

    # a comment
    番茄, 西红柿, 小番茄          each finds the others
    苹果手机 => iphone           the word on the left also finds those on the right, not vice versa

Words are separated by commas, also Chinese ones. They are cut into terms as queries are, so they
may be written in any case or width and in traditional characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bagformer_cli.errors import DataError
from bagformer_cli.index.terms import query_terms
from bagformer_cli.messages import tr
from bagformer_cli.text.lines import read_lines
from bagformer_cli.text.segmenter import Segmenter

WEIGHT = 0.8
"""Weight of a synonym's terms; those of the query itself have 1."""

_Terms = tuple[str, ...]


class Synonyms:
    """Further words for those of a query.

    Args:
        others: The terms of each word to the terms of its synonyms.
    """

    def __init__(self, others: dict[_Terms, list[_Terms]]) -> None:
        self._others = others
        self._longest = max(map(len, others), default=0)

    def __len__(self) -> int:
        return len(self._others)

    def expand(self, terms: Sequence[str]) -> dict[str, float]:
        """Return the terms of a query with weight 1, and those of synonyms with a lower one."""
        weighted = dict.fromkeys(terms, 1.0)
        # With joined codes, for "iPhone15", and without, for the "pro max" of "15 pro max".
        for words in (tuple(terms), _without_codes(terms)):
            for begin in range(len(words)):
                for end in range(begin + 1, min(len(words), begin + self._longest) + 1):
                    for other in self._others.get(words[begin:end], ()):
                        for term in other:
                            weighted.setdefault(term, WEIGHT)
        return weighted


def read_synonyms(path: str | Path, segmenter: Segmenter) -> Synonyms:
    """Read a file of synonyms.

    Args:
        path: The file.
        segmenter: Cuts the words into terms; that of the index's model.

    Raises:
        InputError: There is no such file.
        DataError: A line is not text, or names no two words; the error names it.
    """
    lines, problems = read_lines(path)
    for problem in problems:
        if not problem.harmless:
            raise DataError(problem.message, where=f"{path}:{problem.line}", found=problem.found)
    others: dict[_Terms, list[_Terms]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        left, arrow, right = line.partition("=>")
        sources = _words(left, segmenter)
        targets = _words(right, segmenter) if arrow else sources
        if not sources or not targets or "=>" in right or (not arrow and len(set(sources)) < 2):
            raise DataError(
                tr("This line does not name synonyms."),
                where=f"{path}:{number}",
                found=line.strip()[:60],
                expected="番茄, 西红柿  /  苹果手机 => iphone",
            )
        for source in sources:
            for form in {_without_codes(source), source[-1:] if _is_code(source) else source}:
                own = others.setdefault(form, [])
                own += [word for word in targets if word != source and word not in own]
    if not others:
        raise DataError(
            tr("The file names no synonyms."),
            where=path,
            expected="番茄, 西红柿  /  苹果手机 => iphone",
        )
    return Synonyms(others)


def _words(text: str, segmenter: Segmenter) -> list[_Terms]:
    parts = text.replace("，", ",").split(",")
    return [terms for part in parts if (terms := tuple(query_terms(segmenter, part)))]


def _without_codes(terms: Sequence[str]) -> _Terms:
    """Leave out the terms that ``terms.py`` joins of the two before them.

    >>> _without_codes(["iphone", "15", "iphone15", "pro", "15pro", "max"])
    ('iphone', '15', 'pro', 'max')
    """
    kept: list[str] = []
    for term in terms:
        if "".join(kept[-2:]) != term or len(kept) < 2:
            kept.append(term)
    return tuple(kept)


def _is_code(terms: _Terms) -> bool:
    """Tell whether a word is two bags and the code that they form: iphone, 15, iphone15."""
    return len(terms) == 3 and terms[2] == terms[0] + terms[1]
