"""One side of a LanceDB table, as the vector cache reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.index.lancedb_conditions import has_side
from bagformer_cli.index.lancedb_table import Keys, LanceTable
from bagformer_cli.index.row_vectors import side_vectors
from bagformer_cli.index.rows import Side

if TYPE_CHECKING:
    from bagformer_cli.vectors.multi_vectors import MultiVectors

ROWS_AT_ONCE = 2048  # rows whose vectors are read together


class TableSource:
    """One side of a table, as the vector cache reads it."""

    def __init__(self, table: LanceTable, side: Side) -> None:
        self._table, self._side = table, side

    def version(self) -> int:
        """Return the table's version."""
        return self._table.version

    def keys(self) -> tuple[Keys, NDArray[np.int64]]:
        """Return the row ids of the rows that have this side, rising, and their versions."""
        keys, written = self._table.keys_and_versions(has_side(self._side))
        order = np.argsort(keys)
        return keys[order], written[order]

    def vectors(self, keys: Keys) -> Iterator[MultiVectors]:
        """Yield the embeddings of rows, in order, a part at a time."""
        columns = [f"{self._side}_vectors"]
        if self._table.layout.dtype == "int8":
            columns.append(f"{self._side}_scale")
        for begin in range(0, len(keys), ROWS_AT_ONCE):
            rows = self._table.take(keys[begin : begin + ROWS_AT_ONCE], columns)
            yield side_vectors(rows, self._side, self._table.codebook)
