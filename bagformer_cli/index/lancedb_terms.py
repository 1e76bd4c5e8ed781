"""The lexical part of a LanceDB table: full-text search over the column of terms.

LanceDB splits the column at spaces only; all folding is done in ``terms.py``. Its full-text search
also reads rows that were written after the index was made, so a lexical search sees every row of
the table's version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import FTS
from lancedb.query import BooleanQuery, MatchQuery, Occur

from bagformer_cli.index.postings import Postings
from bagformer_cli.index.ranking import TermHits
from bagformer_cli.index.rows import TERMS

INDEX_NAME = f"{TERMS}_idx"
ROWS_AT_ONCE = 20_000
MOST_ROWS = 1_000_000
"""Rows whose terms are read for a suggestion, at most: a second's work."""


def create_terms_index(table: Any) -> None:
    """Create the full-text index of a table of the ``lancedb`` library."""
    config = FTS(
        base_tokenizer="whitespace",
        max_token_length=None,
        lower_case=False,
        stem=False,
        remove_stop_words=False,
        ascii_folding=False,
    )
    table.create_index(TERMS, config=config)


def find_terms(table: Any, terms: Mapping[str, float], k: int, condition: str | None) -> TermHits:
    """Find the rows with the highest BM25 scores.

    Args:
        table: A table of the ``lancedb`` library.
        terms: The terms of a query and their weights.
        k: Rows at most.
        condition: A condition in SQL; None: all rows.
    """
    search = table.search(_query(terms), query_type="fts").limit(k).select(["_score"])
    if condition is not None:
        search = search.where(condition, prefilter=True)
    found = search.with_row_id(True).to_arrow()
    keys, scores = found["_rowid"].to_numpy(), found["_score"].to_numpy()
    order = np.lexsort((keys, -scores))  # rows of one score in a fixed order
    return TermHits(keys[order].astype(np.uint64), scores[order].astype(np.float32))


def read_postings(table: Any) -> Postings:
    """Read the terms of all titles of a table into memory."""
    rows = table.search().select([TERMS]).with_row_id(True).to_arrow()
    return Postings.of_titles(
        rows["_rowid"].to_numpy().astype(np.uint64), rows[TERMS].combine_chunks()
    )


def _query(terms: Mapping[str, float]) -> Any:
    groups: dict[float, list[str]] = {}
    for term, weight in terms.items():
        groups.setdefault(weight, []).append(term)
    make: Any = MatchQuery  # mypy misses the defaults of its fields
    parts = [make(" ".join(own), TERMS, boost=weight) for weight, own in groups.items()]
    return parts[0] if len(parts) == 1 else BooleanQuery([(Occur.SHOULD, one) for one in parts])


def term_counts(table: Any) -> dict[str, int]:
    """Count the titles that have each term, in the first ``MOST_ROWS`` rows."""
    column = table.search().select([TERMS]).limit(MOST_ROWS).to_arrow()[TERMS]
    counted = pc.value_counts(pc.list_flatten(pc.split_pattern(pc.drop_null(column), " ")))
    counts = dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))
    counts.pop("", None)
    return counts


def fill_terms(table: Any, make: Callable[[list[str]], list[str | None]]) -> int:
    """Add the terms of titles that have none yet, and the column and its index; return how many.

    Args:
        table: A table of the ``lancedb`` library, open for writing.
        make: Makes the terms of titles.
    """
    if TERMS not in table.schema.names:
        table.add_columns(pa.field(TERMS, pa.string()))
    missing = f"title IS NOT NULL AND {TERMS} IS NULL"
    rows = table.search().where(missing).select(["id", "title"]).to_arrow()
    for begin in range(0, rows.num_rows, ROWS_AT_ONCE):
        part = rows.slice(begin, ROWS_AT_ONCE)
        terms = pa.array(make(part["title"].to_pylist()), pa.string())
        merge = table.merge_insert("id").when_matched_update_all()
        merge.execute(pa.table({"id": part["id"], TERMS: terms}))
    if INDEX_NAME not in {index.name for index in table.list_indices()}:
        create_terms_index(table)
    return int(rows.num_rows)
