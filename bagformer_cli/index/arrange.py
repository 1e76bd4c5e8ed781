"""Arrange the hits of a search: leave out, group, sort, count, take a page.

The steps, in this order, on the best hits of a query (``DEPTH`` of them, or more for a late page)::

    threshold   leave out hits below a probability or a mean score
    without     leave out products whose title has a word, as one or more whole bags
    group       keep the best hit of each value of an attribute: several images of one product
    facets      count the values of each text attribute
    sort        by an attribute, else by score
    page        hits offset … offset + k

A late page needs further hits. They are neither counted nor sorted, but follow the sorted ones by
score: otherwise each page would be cut from another order, and some hits would be on two pages,
others on none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bagformer_cli.errors import InputError, listed, nearest
from bagformer_cli.index.results import Hit
from bagformer_cli.index.terms import term_form, term_of
from bagformer_cli.messages import tr
from bagformer_cli.text.bags import TitleEncoder

DEPTH = 200
"""Best hits that are grouped, counted and sorted."""

FACET_VALUES = 12
"""Most frequent values of an attribute that a facet lists."""

MOST_DISTINCT = 50
"""An attribute with more distinct values (a name, an id) makes no facet."""

Facets = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Arrangement:
    """Settings of :func:`arrange`.

    Args:
        threshold: Least probability; needs a calibrated model.
        threshold_score: Least mean score.
        without: Words that a product's title must not have.
        group_by: Attribute whose values name the products; hits without it stay alone.
        facets: Whether the values of text attributes are counted.
        sort: Attribute to sort by, with ``-`` for the largest value first. None: by score.
        offset: Hits before the page.
    """

    threshold: float | None = None
    threshold_score: float | None = None
    without: Sequence[str] = ()
    group_by: str | None = None
    facets: bool = False
    sort: str | None = None
    offset: int = 0

    def depth(self, k: int) -> int:
        """Return how many hits a search has to find for a page of ``k``."""
        choices = (self.threshold, self.threshold_score, self.group_by, self.sort)
        chosen = any(one is not None for one in choices) or self.facets or bool(self.without)
        return max(self.offset + k, DEPTH if chosen else 0)

    def check(self, attributes: Mapping[str, str]) -> None:
        """Check that the attributes exist.

        Args:
            attributes: Attributes of the index, by name.

        Raises:
            InputError: One is missing.
        """
        by = None if self.sort is None else self.sort.removeprefix("-")
        for option, known in (("--group-by", self.group_by), ("--sort", by)):
            if known is not None and known not in attributes:
                close = nearest(known, attributes)
                raise InputError(
                    tr("The index has no such attribute."),
                    where=option,
                    found=known,
                    expected=listed(attributes) or tr("an index with attributes"),
                    hint=tr("Did you mean {name}?", name=close) if close else None,
                )


AS_FOUND = Arrangement()
"""All hits, by score, from the first."""


@dataclass(frozen=True)
class Arranged:
    """A page of hits.

    Attributes:
        hits: The page, with ranks from ``offset`` + 1.
        total: Hits that the page was taken from, at most :data:`DEPTH` unless the page is later.
        facets: Counts of the values of each text attribute, the most frequent first.
    """

    hits: list[Hit]
    total: int
    facets: Facets


def arrange(
    hits: Sequence[Hit], how: Arrangement, k: int, titles: TitleEncoder | None = None
) -> Arranged:
    """Take a page of hits; see the steps above.

    Args:
        hits: The hits of one query, best first, with their ranks.
        how: The settings.
        k: Hits of the page.
        titles: Cuts titles into bags; required with ``without``.

    Raises:
        InputError: There is a threshold on the probability, and the hits have none.
    """
    left = _above(hits, how)
    if how.without and titles is not None:
        left = _without(left, how.without, titles)
    if how.group_by is not None:
        left = grouped(left, how.group_by)
    best = max(DEPTH, k)
    first = [hit for hit in left if hit.rank <= best]
    counts = facets(first) if how.facets else {}
    if how.sort is not None:
        left = sorted_by(first, how.sort) + left[len(first) :]
    page = left[how.offset : how.offset + k]
    ranked = [replace(hit, rank=how.offset + at) for at, hit in enumerate(page, 1)]
    return Arranged(ranked, len(left), counts)


def _above(hits: Sequence[Hit], how: Arrangement) -> list[Hit]:
    """Leave out hits below the thresholds."""
    left = list(hits)
    if how.threshold is not None:
        if any(hit.probability is None for hit in left):
            if all(hit.stage == "late" for hit in left):
                hint = tr("Fit one with `xmr eval --calibrate`, or use --threshold-score.")
            else:
                hint = tr(
                    "Reranked, fused and combined scores never have one. Use --threshold-score, "
                    "which compares the mean score."
                )
            raise InputError(
                tr("These results have no probability, so there is nothing to compare."),
                found=f"--threshold {how.threshold:g}",
                hint=hint,
            )
        left = [hit for hit in left if (hit.probability or 0.0) >= how.threshold]
    if how.threshold_score is not None:
        left = [hit for hit in left if hit.mean >= how.threshold_score]
    return left


def _without(hits: Sequence[Hit], words: Sequence[str], titles: TitleEncoder) -> list[Hit]:
    """Leave out hits whose title has one of the words; hits without a title stay.

    A word is cut into bags as the titles are, and must match whole bags: 包 leaves 面包 in. Bags
    are compared in the form of a lexical search, so 紅色 leaves out what 红色 leaves out.
    """
    unwanted = _cut(words, titles)
    having = [hit for hit in hits if hit.title]
    found = _cut([str(hit.title) for hit in having], titles)
    bags = {hit.id: own for hit, own in zip(having, found, strict=True)}
    return [
        hit for hit in hits if not any(_contains(bags.get(hit.id, []), one) for one in unwanted)
    ]


def _cut(texts: Sequence[str], titles: TitleEncoder) -> list[list[str]]:
    """Cut texts into bags, and write them as terms."""
    found = titles.bags_batch([term_form(text) for text in texts], whole=True)
    return [[term for bag in own if (term := term_of(bag.text))] for own in found]


def _contains(bags: list[str], wanted: list[str]) -> bool:
    size = len(wanted)
    return size > 0 and any(bags[i : i + size] == wanted for i in range(len(bags) - size + 1))


def grouped(hits: Sequence[Hit], name: str) -> list[Hit]:
    """Keep the best hit of each value of an attribute, and count the others in ``group_size``."""
    sizes = Counter(hit.attributes[name] for hit in hits if name in hit.attributes)
    seen: set[Any] = set()
    kept = []
    for hit in hits:
        value = hit.attributes.get(name)
        if value is None:
            kept.append(replace(hit, group_size=1))
        elif value not in seen:
            seen.add(value)
            kept.append(replace(hit, group_size=sizes[value]))
    return kept


def sorted_by(hits: Sequence[Hit], sort: str) -> list[Hit]:
    """Sort hits by an attribute; equal ones keep their order, those without it come last.

    Args:
        hits: The hits.
        sort: The attribute; with a ``-`` before it the largest value comes first.
    """
    name, falling = sort.removeprefix("-"), sort.startswith("-")
    known = [hit for hit in hits if name in hit.attributes]
    known.sort(key=lambda hit: hit.attributes[name], reverse=falling)
    return known + [hit for hit in hits if name not in hit.attributes]


def facets(hits: Sequence[Hit]) -> Facets:
    """Count the values of each text attribute of the hits, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for hit in hits:
        for name, value in hit.attributes.items():
            if isinstance(value, str):
                counts.setdefault(name, Counter())[value] += 1
    return {
        name: [{"value": value, "count": n} for value, n in own.most_common(FACET_VALUES)]
        for name, own in counts.items()
        if 1 < len(own) <= MOST_DISTINCT
    }
