"""Results of searches as files for other programs: JSON lines, or a TREC run.

A TREC run, which ``trec_eval`` and its successors read, has a line for each hit::

    query id   Q0   product id   rank   score     name of the run
    7          Q0   sku-31       1      0.83421   xmr
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bagformer_cli.data.query_files import TextQuery
from bagformer_cli.errors import InputError
from bagformer_cli.index.results import Hit, Results
from bagformer_cli.messages import tr
from bagformer_cli.outputs import output_file

JSON_LINES, TREC = ".jsonl", ".trec"
RUN_FILES = (JSON_LINES, TREC)
"""Endings of file names, which decide the form."""

NAME = "xmr"
"""Name of the run, the last column."""


def write_run(path: Path, queries: Sequence[TextQuery], results: Sequence[Results]) -> int:
    """Write the results of queries; the ending of ``path`` decides the form.

    Args:
        path: The output; it is replaced only when all is written.
        queries: The queries; only their id and text are written.
        results: Their results.

    Returns:
        The number of hits written.

    Raises:
        InputError: The output cannot be written, or an id has a space, which no TREC run can hold.
    """
    lines = _json_line if path.suffix.lower() == JSON_LINES else _trec_lines
    with output_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, found in zip(queries, results, strict=True):
            file.write(lines(query, found.hits))
    return sum(len(found.hits) for found in results)


def _json_line(query: TextQuery, hits: Sequence[Hit]) -> str:
    found = {"query_id": query.id, "query": query.text, "hits": [hit.to_json() for hit in hits]}
    return json.dumps(found, ensure_ascii=False) + "\n"


def _trec_lines(query: TextQuery, hits: Sequence[Hit]) -> str:
    """Return the lines of one query.

    Programs that read a run order it by the scores. Where these do not fall from hit to hit (equal
    scores, a rerank of the first ones, hits sorted by an attribute) 1 / rank stands for them.
    """
    # Nine digits tell any two float32 numbers apart, as the programs read them.
    scores = [f"{hit.score:.9g}" for hit in hits]
    if any(float(first) <= float(second) for first, second in pairwise(scores)):
        scores = [f"{1 / hit.rank:.9g}" for hit in hits]
    for hit in hits:
        if len(hit.id.split()) != 1:
            raise InputError(
                tr("A TREC run cannot hold an id with a space."),
                found=repr(hit.id),
                hint=tr("Write JSON lines: --output NAME.jsonl"),
            )
    return "".join(
        f"{query.id} Q0 {hit.id} {hit.rank} {score} {NAME}\n"
        for hit, score in zip(hits, scores, strict=True)
    )
