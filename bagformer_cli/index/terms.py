"""Titles and queries as the terms of a lexical search (BM25): their entity bags in one form.

    title    【青禾里】 夏季 連衣裙 ＸＬ RX-580S 32 GB
    bags     【 │ 青禾里 │ 】 │ 夏季 │ 連衣裙 │ ＸＬ │ RX-580S │ 32 │ GB
    terms    青禾里 夏季 连衣裙 xl rx580s 32 gb 32gb

Characters are made simplified, of half width, of lower case and without accents. Hyphens inside a
bag and bags of punctuation are dropped. Letters and a number after them, and a number and letters
after it, are also one term, so that "iPhone 15" finds "iPhone15" and "32GB" finds "32 GB". Titles
and queries are cut by the same segmenter, that of the model.

An index keeps the terms that it was built with: a change of these rules needs a new index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from bagformer_cli.text.characters import fold, without_invisible
from bagformer_cli.text.segmenter import Segmenter

_DROPPED = re.compile(r"[\s\-_/·'’]+")  # inside a bag: WH-1000 XM5
_JOINED = re.compile(r"[a-z]+ [0-9][0-9a-z.]*|[0-9][0-9.]* [a-z]+", re.ASCII)
_MOST_TERMS = 256
"""Terms of a title or query at most: a text of a million characters costs no more."""
_MOST_CHARACTERS = 4096


def title_terms(segmenter: Segmenter, titles: Sequence[str | None]) -> list[str | None]:
    """Return the terms of each title, separated by spaces; None for a missing title.

    Args:
        segmenter: Cuts titles into bags.
        titles: n titles.
    """
    present = [title for title in titles if title is not None]
    cut = iter(_cut(segmenter, present))
    return [None if title is None else " ".join(next(cut)) for title in titles]


def query_terms(segmenter: Segmenter, query: str) -> list[str]:
    """Return the terms of a query, in order; a term may occur twice."""
    return _cut(segmenter, [query])[0]


def simplified(text: str) -> str:
    """Return a text with simplified characters, as OpenCC converts them.

    >>> simplified("紅色連衣裙")
    '红色连衣裙'
    """
    return text if text.isascii() else str(_converter().convert(text))


def term_form(text: str) -> str:
    """Return a text in the form that terms are cut from: simplified, half width, lower case.

    >>> term_form("【紅色】 ＲＸ－５８０Ｓ Café")
    '【红色】 rx-580s cafe'
    """
    return fold(simplified(text if text.isprintable() else without_invisible(text)))


def term_of(bag: str) -> str:
    """Return the term of a bag of a text in :func:`term_form`: without blanks and hyphens.

    >>> term_of("rx-580s")
    'rx580s'
    """
    return _DROPPED.sub("", bag)


@cache
def _converter() -> Any:
    from opencc import OpenCC  # loading its tables takes 0.1 s

    return OpenCC("t2s")


def _cut(segmenter: Segmenter, texts: Sequence[str]) -> list[list[str]]:
    if not texts:
        return []
    plain = [term_form(text[:_MOST_CHARACTERS]) for text in texts]
    packed = segmenter.segment_batch(plain)
    starts, ends, offsets = packed.starts.tolist(), packed.ends.tolist(), packed.offsets.tolist()
    return [
        _joined([text[starts[at] : ends[at]] for at in range(offsets[i], offsets[i + 1])])
        for i, text in enumerate(plain)
    ]


def _joined(bags: list[str]) -> list[str]:
    """Make terms of the folded bags of one text, and of neighbours that form one code."""
    terms: list[str] = []
    before = ""
    for bag in bags[:_MOST_TERMS]:
        term = term_of(bag)
        if any(map(str.isalnum, term)):
            terms.append(term)
            if before and _JOINED.fullmatch(f"{before} {term}"):
                terms.append(before + term)
            before = term
        elif bag != "-":
            before = ""
    return terms
