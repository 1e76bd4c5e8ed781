"""Conditions in LanceDB's SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bagformer_cli.index.rows import Side

IDS_AT_ONCE = 1000


def has_side(side: Side) -> str:
    """Return the condition that a row has a side."""
    return f"{side}_count IS NOT NULL"


def id_conditions(ids: Sequence[str]) -> Iterator[str]:
    """Yield conditions that together match the rows with these ids."""
    for begin in range(0, len(ids), IDS_AT_ONCE):
        yield f"id IN ({', '.join(map(_quoted, ids[begin : begin + IDS_AT_ONCE]))})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
