"""Divide the rows of a table into splits that share no title and no image."""

from __future__ import annotations

import hashlib

from bagformer_cli.data.importing.rows import Row
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.muge import SPLITS
from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr

_STEPS = 10_000  # resolution of the shares of validation and test


def divide(
    rows: list[Row], left_out: LeftOut, default: str, valid: float, test: float
) -> dict[str, list[Row]]:
    """Divide rows into splits.

    Titles and images are the nodes of a graph, rows its edges; a connected component goes to one
    split. Components are found with a disjoint-set forest: ``parent`` leads each node to the root
    that names its component.

    Args:
        rows: The rows.
        left_out: Receives rows that name another split than earlier rows of their component.
        default: Split of components without one.
        valid: Share of those components that goes to validation instead.
        test: The same for test.

    Returns:
        Split to its rows; splits without rows are left out.
    """
    parent: dict[str, str] = {}

    def component(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]  # path halving keeps later walks short
            node = parent[node]
        return node

    for row in rows:
        parent[component(f"t{row.title}")] = component(f"i{row.image}")
    given: dict[str, str] = {}
    kept = []
    for row in rows:
        own = component(f"t{row.title}")
        if row.split is None or given.setdefault(own, row.split) == row.split:
            kept.append(row)
            continue
        message = tr(
            "This row belongs to another split: it shares a title or an image with earlier rows."
        )
        left_out(DataError(message, where=row.where, found=row.split, expected=given[own]))
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in kept:
        own = component(f"t{row.title}")
        # A hash, not a random number: the same component is drawn to the same split every time.
        digest = hashlib.blake2b(own.encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") % _STEPS / _STEPS
        drawn = "valid" if draw < valid else "test" if draw < valid + test else default
        found[given.get(own, drawn)].append(row)
    return {split: own for split, own in found.items() if own}
