"""Search several indexes as one: send each query to all of them, merge what they find.

A catalogue that does not fit one machine is built as several indexes, its shards, by one model.
The front encodes a query once; the shards search its vectors at the same time::

    query ─▶ front: encode ─┬─▶ shard 0 ─▶ its best k ─┬─▶ merge: the best k by score
                            ├─▶ shard 1 ─▶ its best k ─┤
                            └─▶ shard 2 ─▶ its best k ─┘

The score of a product depends on its own vectors and the query's only, so an exact search finds
what one index of all products finds, in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Protocol, cast

from bagformer_cli.errors import InputError
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.results import Results
from bagformer_cli.index.search import Index, SearchOptions
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import ItemEncoder

Waiting = Callable[[], list[Results]]
"""Waits for the results of a search that was started."""


class Shard(Protocol):
    """One of several indexes that are searched together."""

    def start(self, queries: Sequence[Any], options: SearchOptions, encoded: Queries) -> Waiting:
        """Start a search for encoded queries.

        Args:
            queries: The titles; None for each image.
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

    def start(self, queries: Sequence[Any], options: SearchOptions, encoded: Queries) -> Waiting:
        """See :class:`Shard`; the search begins when its results are waited for."""
        return partial(self.index.search_many, queries, options, encoded=encoded)

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
    front: Index,
    shards: Sequence[Shard],
    queries: Sequence[Any],
    options: SearchOptions,
    *,
    images: bool,
) -> list[Results]:
    """Search all shards for several queries with the same options.

    Args:
        front: Encodes the queries.
        shards: The shards, in the order that decides between products of one score.
        queries: Titles or images.
        options: How to search; without ``rerank``.
        images: Whether the queries are images.

    Raises:
        InputError: A query is empty or broken, or the filter is wrong.
    """
    started = time.perf_counter()
    encoded = front.encode(queries, images=images, of=options.of)
    encoding = time.perf_counter() - started
    sent = [None] * len(queries) if images else queries
    waiting = [shard.start(sent, options, encoded) for shard in shards]
    parts = [wait() for wait in waiting]
    found = [merged(part, options.k) for part in zip(*parts, strict=True)]
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
