"""A small index in LanceDB, and a search in it."""

from __future__ import annotations

from pathlib import Path

from bagformer_cli.index.lancedb import LanceEngine
from tests.support.index_rows import LAYOUT, query, rows


def new_engine(folder: Path) -> LanceEngine:
    """Make an index of 40 products."""
    made = LanceEngine.create(str(folder / "index"), LAYOUT)
    made.upsert(rows(range(40)))
    return made


def found(engine: LanceEngine, method: str = "exact", k: int = 100) -> list[str]:
    """Return the ids of the products that a search finds, best first."""
    result = engine.recall("image", query(), k, None, method, candidates=k)  # type: ignore[arg-type]
    return [row["id"] for row in engine.fetch(result.keys[0], ["id"])]
