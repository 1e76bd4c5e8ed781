"""Search several indexes as one: send each query to all of them, merge what they find.

A catalogue that does not fit one machine is built as several indexes, its shards, by one model.
The front encodes a query once; the shards search its vectors at the same time::

    query ─▶ front: encode ─┬─▶ shard 0 ─▶ its best k ─┬─▶ merge: the best k by score
                            ├─▶ shard 1 ─▶ its best k ─┤
                            └─▶ shard 2 ─▶ its best k ─┘

The score of a product depends on its own vectors and the query's only, so an exact search finds
what one index of all products finds, in the same order. The front sorts and counts what was found
and takes a page of it; the thumbnails of that page come from a second search, for their ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Protocol, cast

from bagformer_cli.errors import InputError
from bagformer_cli.index.arrange import AS_FOUND, arrange
from bagformer_cli.index.combined import WEIGHT
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.probabilities import with_probabilities
from bagformer_cli.index.results import Hit, Results
from bagformer_cli.index.rows import Side
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import ItemEncoder

Waiting = Callable[[], list[Results]]
"""Waits for the results of a search that was started."""


class Query(NamedTuple):
    """A title, an image, or both.

    Attributes:
        title: The title; None: the image alone.
        image: The image, in any form that an index takes; None: the title alone.
        weight: Share of the image in the score of both, from 0 to 1.
    """

    title: str | None = None
    image: Any = None
    weight: float = WEIGHT

    @property
    def kind(self) -> tuple[bool, bool]:
        """The presence of a title and of an image; queries of one kind are searched together."""
        return self.title is not None, self.image is not None


class Encoded(NamedTuple):
    """The vectors of queries of one kind.

    Attributes:
        titles: Those of their titles; None: they have none.
        images: Those of their images; None: they have none.
    """

    titles: Queries | None
    images: Queries | None

    @classmethod
    def of(cls, index: Index, queries: Sequence[Query], side: Side) -> Encoded:
        """Encode queries of one kind.

        Args:
            index: Its model encodes.
            queries: The queries.
            side: The side of the products that they will be compared with.

        Raises:
            InputError: A title is empty, or an image cannot be read.
        """
        has_title, has_image = queries[0].kind
        titles = [query.title for query in queries]
        images = [query.image for query in queries]
        return cls(
            index.encode(titles, of=side) if has_title else None,
            index.encode(images, images=True, of=side) if has_image else None,
        )

    def first(self) -> Encoded:
        """Return the vectors of the first query."""
        return Encoded(*(None if part is None else part.one(0) for part in self))


class Shard(Protocol):
    """One of several indexes that are searched together."""

    def start(self, queries: Sequence[Query], options: SearchOptions, encoded: Encoded) -> Waiting:
        """Start a search for encoded queries of one kind.

        Args:
            queries: The queries, without the pixels of their images.
            options: How to search.
            encoded: The vectors of the queries.
        """

    def count(self) -> int:
        """Count the products."""

    def close(self) -> None:
        """Close files and connections."""


class LocalShard:
    """An index that this process searches.

    Args:
        index: The index.
    """

    def __init__(self, index: Index) -> None:
        self.index = index

    def start(self, queries: Sequence[Query], options: SearchOptions, encoded: Encoded) -> Waiting:
        """See :class:`Shard`; the search begins when its results are waited for."""
        titles, images = encoded
        if titles is None or images is None:
            known = images if titles is None else titles
            names = [query.title for query in queries]
            return partial(
                self.index.search_many, names, options, images=titles is None, encoded=known
            )
        return lambda: [
            self.index.search_combined(
                query.title, None, query.weight, options, encoded=(titles.one(n), images.one(n))
            )
            for n, query in enumerate(queries)
        ]

    def count(self) -> int:
        """See :class:`Shard`."""
        return self.index.engine.count()

    def close(self) -> None:
        """See :class:`Shard`."""
        self.index.engine.close()


@dataclass(frozen=True)
class _NoEncoder:
    """Stands for the model of a shard, which searches vectors that the front has encoded.

    The front also says how they are scored: :attr:`~bagformer_cli.index.engine.Queries.rule`.
    """

    fingerprint: str

    def encode_titles(self, titles: Sequence[str]) -> Any:
        """Fail: the front encodes."""
        raise NotImplementedError


def open_shard(uri: str) -> LocalShard:
    """Open an index without its model.

    Raises:
        InputError: There is no index, or it is damaged.
    """
    engine = open_engine(uri)
    return LocalShard(Index(engine, cast(ItemEncoder, _NoEncoder(engine.layout.model))))


def require_same_layout(front: Index, others: Sequence[str]) -> None:
    """Check that further indexes can be searched together with the first one.

    Args:
        front: The first index.
        others: The addresses of the others.

    Raises:
        InputError: One was built by another model, with vectors of another form, or with other
            attributes.
    """
    layout = front.engine.layout
    for uri in others:
        engine = open_engine(uri)
        layout.require_same(engine.layout, uri)
        if engine.layout.attributes != layout.attributes:
            raise InputError(
                tr("The indexes have different attributes, so they cannot be searched together."),
                where=uri,
                found=", ".join(engine.layout.attributes),
                expected=", ".join(layout.attributes),
            )
        engine.close()


def search_shards(
    front: Index, shards: Sequence[Shard], queries: Sequence[Query], options: SearchOptions
) -> list[Results]:
    """Search all shards for several queries of one kind with the same options.

    Args:
        front: Encodes the queries.
        shards: The shards, in the order that decides between products of one score.
        queries: The queries.
        options: How to search; without ``rerank``.

    Raises:
        InputError: A query is empty or broken, or the filter is wrong.
    """
    started = time.perf_counter()
    encoded = Encoded.of(front, queries, options.of)
    encoding = time.perf_counter() - started
    sent = [query._replace(image=None) for query in queries]
    if len(shards) == 1:  # the index sorts, cuts and fetches at one version
        found = shards[0].start(sent, options, encoded)()
    else:
        options.arrangement.check(front.engine.layout.attributes)
        deep = replace(
            options,
            k=options.arrangement.depth(options.k),
            arrangement=AS_FOUND,
            thumbnails=False,
        )
        waiting = [shard.start(sent, deep, encoded) for shard in shards]
        parts = zip(*[wait() for wait in waiting], strict=True)
        images = queries[0].title is None
        found = [_page(front, merged(part, deep.k), options, images) for part in parts]
        if options.thumbnails:
            found = _with_thumbnails(shards, found, sent, encoded.first(), options)
    return [replace(one, seconds={**one.seconds, "encode": encoding}) for one in found]


def merged(parts: Sequence[Results], k: int) -> Results:
    """Merge the results of one query from all shards; earlier shards win between equal scores."""
    hits = sorted(chain.from_iterable(parts), key=lambda hit: -hit.score)[:k]
    seconds: dict[str, float] = {}
    for part in parts:  # they work at the same time
        for name, value in part.seconds.items():
            seconds[name] = max(value, seconds.get(name, 0.0))
    ranked = [replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]
    return replace(parts[0], hits=ranked, seconds=seconds)


def _page(front: Index, found: Results, options: SearchOptions, images: bool) -> Results:
    """Arrange merged results as one index does, with the probabilities of the front's model."""
    hits = found.hits
    if front.calibration is not None:
        hits = with_probabilities([hits], front.calibration, images, options.of)[0]
    titles = front.encoder.titles if options.arrangement.without else None
    page = arrange(hits, options.arrangement, options.k, titles)
    return replace(found, hits=page.hits, total=page.total, facets=page.facets)


def _with_thumbnails(
    shards: Sequence[Shard],
    found: Sequence[Results],
    queries: Sequence[Query],
    encoded: Encoded,
    options: SearchOptions,
) -> list[Results]:
    """Fetch the thumbnails of pages of hits, by their ids, from all shards.

    A product that was removed since the search keeps its hit, without a thumbnail.
    """
    ids = list(dict.fromkeys(hit.id for one in found for hit in one))
    if not ids:
        return list(found)
    listed = ", ".join(quoted(name) for name in ids)
    wanted = SearchOptions(k=len(ids), where=f"id IN ({listed})", of=options.of, thumbnails=True)
    waiting = [shard.start(queries[:1], wanted, encoded) for shard in shards]
    images = {hit.id: hit.thumbnail for wait in waiting for hit in chain.from_iterable(wait())}

    def complete(hit: Hit) -> Hit:
        return replace(hit, thumbnail=images.get(hit.id))

    return [replace(one, hits=[complete(hit) for hit in one]) for one in found]


def quoted(text: str) -> str:
    """Return a text as a literal of a filter.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
