"""The lexical part of a Qdrant collection: a sparse vector for each title's terms.

BM25 is split: the client stores each term's frequency part, the server multiplies by the term's
inverse document frequency (modifier ``idf``)::

    红色 红色 连衣裙   ─▶   {4012…: 1.5, 77…: 1.1}
    tf · (k1 + 1) / (tf + k1 · (1 - b + b · n / AVERAGE)) for a title of n terms
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from qdrant_client import models as q

from bagformer_cli.index.qdrant_connection import Collection
from bagformer_cli.index.ranking import TermHits
from bagformer_cli.index.rows import TERMS

SATURATION, LENGTH_SHARE = 1.2, 0.75  # k1 and b: LanceDB's
AVERAGE = 12
"""Terms of an average title. The client must know it before it has seen the catalogue."""
POINTS_AT_ONCE = 1000


def sparse_config() -> q.SparseVectorParams:
    """Return the configuration of the sparse vectors."""
    return q.SparseVectorParams(modifier=q.Modifier.IDF)


def title_vector(terms: str | None) -> q.SparseVector | None:
    """Return the sparse vector of a title's terms; None if it has none."""
    counts = Counter((terms or "").split())
    if not counts:
        return None
    norm = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * counts.total() / AVERAGE)
    values = {
        _number(term): times * (SATURATION + 1) / (times + norm) for term, times in counts.items()
    }
    return q.SparseVector(indices=list(values), values=list(values.values()))


def term_requests(
    queries: Sequence[Mapping[str, float]], k: int, narrow: q.Filter
) -> list[q.QueryRequest]:
    """Return a request for each query."""
    return [
        q.QueryRequest(
            query=q.SparseVector(
                indices=[_number(term) for term in terms], values=[*terms.values()]
            ),
            using=TERMS,
            filter=narrow,
            limit=k,
        )
        for terms in queries
    ]


def term_hits(answer: q.QueryResponse) -> TermHits:
    """Return the rows of an answer."""
    keys = np.array([str(point.id) for point in answer.points], object)
    return TermHits(keys, np.array([point.score for point in answer.points], np.float32))


def fill_terms(collection: Collection, make: Callable[[list[str]], list[str | None]]) -> int:
    """Add the terms of titles that have none yet; return how many."""
    client, name = collection
    known = client.get_collection(name).config.params.sparse_vectors or {}
    if TERMS not in known:
        config = q.SparseVectorNameConfig(sparse=q.SparseVectorConfig(modifier=q.Modifier.IDF))
        client.create_vector_name(name, TERMS, config)
    missing = q.Filter(must=[q.IsNullCondition(is_null=q.PayloadField(key=TERMS))])
    absent = q.Filter(must=[q.IsEmptyCondition(is_empty=q.PayloadField(key=TERMS))])
    filled = 0
    for narrow in (missing, absent):
        for points in collection.pages(POINTS_AT_ONCE, narrow, payload=["title"]):
            named = [(point.id, point.payload["title"]) for point in points if point.payload]
            titled = [(key, title) for key, title in named if title is not None]
            made = make([title for _, title in titled])
            vectors = []
            for (key, _), terms in zip(titled, made, strict=True):
                if (vector := title_vector(terms)) is not None:
                    vectors.append(q.PointVectors(id=key, vector={TERMS: vector}))
                client.set_payload(name, {TERMS: terms}, [key])
            if vectors:
                client.update_vectors(name, vectors)
            filled += len(titled)
    return filled


def term_counts(collection: Collection) -> dict[str, int]:
    """Count the titles that have each term; reads the whole collection."""
    counts: Counter[str] = Counter()
    for points in collection.pages(POINTS_AT_ONCE, payload=[TERMS]):
        for point in points:
            counts.update(set(((point.payload or {}).get(TERMS) or "").split()))
    return dict(counts)


def _number(term: str) -> int:
    """Return the dimension of a term: 32 bits of a hash, as Qdrant's own models do."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "little")
