"""The LanceDB table of an index: its newest version, one writer at a time, rows by row id.

Versions, upserts, deletes, concurrent readers and safety against crashes are LanceDB's work. This
file relies on these properties of LanceDB:

- An open table stays at its version until ``checkout_latest()``. A :class:`LanceTable` never moves;
  :meth:`LanceTable.newest` returns another one. Writes open the table separately.
- Row ids survive compaction only in tables created with stable row ids. A row that is written again
  keeps its id; ``_row_last_updated_at_version`` is then the version of that write.
- ``IvfFlat`` is built in seconds and keeps whole vectors, so searching it needs no
  ``refine_factor`` (which would read the rows again); product quantization and HNSW take minutes.
- Search over single vectors must select ``_distance``.
- Added rows are searched slowly until ``optimize()``.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import lancedb
import numpy as np
import pyarrow as pa
from filelock import FileLock
from lancedb.index import BTree, IvfFlat
from numpy.typing import NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.files import disk_errors
from bagformer_cli.index.lancedb_conditions import has_side, id_conditions
from bagformer_cli.index.lancedb_folder import (
    CODEBOOK,
    TABLE,
    WRITE_LOCK,
    already_exists,
    is_remote,
    mark,
    new_folder,
    not_an_index,
    on_disk,
    unfinished_sources,
)
from bagformer_cli.index.lancedb_opening import index_folder, lance_errors, open_table
from bagformer_cli.index.lancedb_remote import is_whole, mark_remote, remote_sources
from bagformer_cli.index.lancedb_terms import (
    create_terms_index,
    fill_terms,
    find_terms,
    read_postings,
    term_counts,
)
from bagformer_cli.index.postings import Postings
from bagformer_cli.index.ranking import TermHits
from bagformer_cli.index.rows import Layout, Side
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook

Keys = NDArray[np.uint64]

WRITTEN = "_row_last_updated_at_version"  # a column that LanceDB computes
NAME = b"xmr_index"  # metadata: the unique name of the index
MIN_INDEXED_ROWS = 20_000
"""Rows from which single vectors and ids are indexed; below, scanning them is as fast."""
MIN_PROBES = 32  # partitions of the vector index that every search reads
MTIME_SETTLED_NS = 10 * 10**9
"""Age in nanoseconds from which a modification time is trusted. File systems store times in steps
(FAT: two seconds), and another machine's clock may differ a little."""


class LanceTable:
    """An open table of rows.

    Args:
        uri: A folder, or an address on shared storage (``s3://bucket/path``).
        table: The open table of the ``lancedb`` library.

    Raises:
        InputError: It is not a table of an index.
    """

    def __init__(self, uri: str, table: Any) -> None:
        self.uri, self._table = uri, table
        layout = Layout.from_schema(table.schema)
        name = (table.schema.metadata or {}).get(NAME, b"").decode()
        if layout is None or not name.isalnum():  # the name becomes the name of a folder
            raise not_an_index(uri)
        self.layout, self.name = layout, name
        self.version = int(table.version)
        self._seen: int | None = None
        self._probe: Any = None  # learns of newer versions

    @classmethod
    def create(cls, uri: str, layout: Layout, codebook: Codebook | None) -> Self:
        """Create an empty table, and a second one for the codebook if there is one.

        Raises:
            InputError: The place already holds something.
        """
        schema = layout.schema
        schema = schema.with_metadata({**schema.metadata, NAME: uuid.uuid4().hex.encode()})

        def write(place: str) -> None:
            database = lancedb.connect(place)
            if codebook is not None:
                content = pa.table({"data": pa.array([codebook.to_bytes()], pa.binary())})
                database.create_table(CODEBOOK, content, mode="overwrite")
            database.create_table(
                TABLE,
                schema=schema,
                # on shared storage: over what an interrupted creation left
                mode="overwrite" if is_remote(uri) else "create",
                storage_options={"new_table_enable_stable_row_ids": "true"},
            )
            if layout.terms:
                create_terms_index(database.open_table(TABLE))

        with lance_errors(uri):
            if not is_remote(uri):
                with new_folder(Path(uri)) as temporary:
                    write(str(temporary))
            elif is_whole(uri):
                raise already_exists(uri)
            else:
                write(uri)
        return cls.open(uri)

    @classmethod
    def open(cls, uri: str) -> Self:
        """Open the table of an index.

        Raises:
            InputError: There is no index here, or it is damaged.
        """
        if not is_remote(uri):
            uri = index_folder(uri)
        return cls(uri, open_table(uri))

    @cached_property
    def codebook(self) -> Codebook | None:
        """The codebook; None if the index stores no residual codes."""
        if not self.layout.codebook:
            return None
        with lance_errors(self.uri):
            content = lancedb.connect(self.uri).open_table(CODEBOOK).to_arrow()
            from bagformer_cli.vectors.residual_codes import Codebook

            codebook = Codebook.from_bytes(content["data"][0].as_py())
        return self.layout.require_codebook(codebook)

    # ------------------------------------------------------------------------------- versions

    def newest(self) -> LanceTable:
        """Return the table at its newest version: this object if it is at it.

        Asking LanceDB takes a millisecond. Every new version adds a file to one folder, so nothing
        was written while that folder's modification time stays the same.
        """
        changed = self._changed()
        if changed is not None and changed == self._seen:
            return self
        with lance_errors(self.uri):
            self._probe = self._probe or open_table(self.uri)
            self._probe.checkout_latest()
            if int(self._probe.version) == self.version:
                self._seen = changed
                return self
            table = type(self)(self.uri, self._probe)
        table._seen = changed
        if "codebook" in vars(self):
            vars(table)["codebook"] = self.codebook
        return table

    def _changed(self) -> int | None:
        """Return the modification time of the folder of versions; None if it cannot be trusted.

        A very recent time cannot: something written a moment later may have the same time.
        """
        try:
            changed = os.stat(Path(self.uri) / f"{TABLE}.lance" / "_versions").st_mtime_ns
        except OSError:  # on shared storage
            return None
        return changed if time.time_ns() - changed > MTIME_SETTLED_NS else None

    # -------------------------------------------------------------------------------- writing

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Yield the newest version for writing; in local folders to one writer at a time.

        All files that the block wrote are on the disk when it ends.

        Two upserts at once could both insert an id that neither of them saw, and an upsert during a
        compaction would conflict with it.
        """
        if is_remote(self.uri):
            yield open_table(self.uri)
            return
        folder = Path(self.uri)
        lock = FileLock(folder / WRITE_LOCK)
        with disk_errors(folder), lock, on_disk(folder / f"{TABLE}.lance"):
            yield open_table(self.uri)

    def upsert(self, rows: pa.Table) -> int:
        """Add rows, replacing those of the same id; return how many were replaced."""
        with lance_errors(self.uri), self.writing() as table:
            if table.count_rows() == 0:
                table.add(rows)
                return 0
            merge = table.merge_insert("id")
            merge = merge.when_matched_update_all().when_not_matched_insert_all()
            # A product without title or image has a null vector, which LanceDB calls a bad one.
            return int(merge.execute(rows, on_bad_vectors="null").num_updated_rows)

    def remove(self, ids: Sequence[str], condition: str | None) -> int:
        """Delete rows by id, and those that match a condition; return how many were deleted."""
        conditions = [*([] if condition is None else [condition]), *id_conditions(ids)]
        removed = 0
        with lance_errors(self.uri), self.writing() as table:
            for one in conditions:
                count = int(table.count_rows(one))
                if count:
                    table.delete(one)
                removed += count
        return removed

    def compact(self) -> None:
        """Merge small files, and index ids and single vectors once there are enough rows."""
        with lance_errors(self.uri), self.writing() as table:
            existing = {index.name for index in table.list_indices()}
            if table.count_rows() >= MIN_INDEXED_ROWS and "id_idx" not in existing:
                table.create_index("id", config=BTree())
            for side in self.layout.sides:
                count = int(table.count_rows(has_side(side)))
                if count >= MIN_INDEXED_ROWS and f"{side}_vector_idx" not in existing:
                    partitions = max(16, min(4096, round(count**0.5)))
                    config = IvfFlat(distance_type="cosine", num_partitions=partitions)
                    table.create_index(f"{side}_vector", config=config)
            table.optimize(cleanup_older_than=timedelta(days=1))

    def unfinished_sources(self) -> set[str]:
        """Return the sources that are being added: in a file, or in a table on shared storage."""
        if not is_remote(self.uri):
            return unfinished_sources(Path(self.uri))
        with lance_errors(self.uri):
            return remote_sources(self.uri)

    def mark(self, source: str, *, unfinished: bool) -> None:
        """Store that a source is being added, or that it is complete."""
        if not is_remote(self.uri):
            mark(Path(self.uri), source, unfinished=unfinished)
            return
        with lance_errors(self.uri):
            mark_remote(self.uri, source, unfinished=unfinished)

    def fill_terms(self, make: Callable[[list[str]], list[str | None]]) -> int:
        """Add the terms of titles that have none yet; return how many."""
        with lance_errors(self.uri), self.writing() as table:
            return fill_terms(table, make)

    # -------------------------------------------------------------------------------- reading

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that rows have."""
        found: set[str] = set()
        with lance_errors(self.uri):
            for condition in id_conditions(ids):
                rows = self._table.search().where(condition).select(["id"]).to_arrow()
                found.update(rows["id"].to_pylist())
        return found

    def count(self, condition: str | None = None) -> int:
        """Count the rows, or those that match a condition."""
        with lance_errors(self.uri):
            return int(self._table.count_rows(condition))

    def keys(self, condition: str) -> Keys:
        """Return the row ids of the rows that match a condition, unsorted."""
        with lance_errors(self.uri):
            found = self._table.search().where(condition).select(["id"]).with_row_id(True)
            keys: Keys = found.to_arrow()["_rowid"].to_numpy().astype(np.uint64)
            return keys

    def keys_and_versions(self, condition: str) -> tuple[Keys, NDArray[np.int64]]:
        """Return the row ids of the rows that match a condition, and when they were last written.

        The latter are versions of the table.
        """
        with lance_errors(self.uri):
            search = self._table.search().where(condition).select([WRITTEN]).with_row_id(True)
            found = search.to_arrow()
        keys: Keys = found["_rowid"].to_numpy().astype(np.uint64)
        return keys, found[WRITTEN].to_numpy().astype(np.int64)

    def nearest(
        self, side: Side, vector: NDArray[np.float32], k: int, condition: str | None
    ) -> tuple[Keys, NDArray[np.float32]]:
        """Find the rows with the nearest single vectors: row ids and cosines, falling."""
        where = has_side(side) if condition is None else f"{condition} AND {has_side(side)}"
        search = (
            self._table.search(vector, vector_column_name=f"{side}_vector")
            .distance_type("cosine")
            .where(where, prefilter=True)
            .minimum_nprobes(MIN_PROBES)
            .maximum_nprobes(0)  # no limit: a narrow filter reads on until it has k rows
            .limit(k)
            .select(["_distance"])
            .with_row_id(True)
        )
        with lance_errors(self.uri):
            found = search.to_arrow()
        keys = found["_rowid"].to_numpy().astype(np.uint64)
        return keys, (1 - found["_distance"].to_numpy()).astype(np.float32)

    def find_terms(self, terms: Mapping[str, float], k: int, condition: str | None) -> TermHits:
        """Find the rows with the highest BM25 scores."""
        with lance_errors(self.uri):
            return find_terms(self._table, terms, k, condition)

    @cached_property
    def postings(self) -> Postings:
        """The terms of all titles of this version, in memory."""
        with lance_errors(self.uri):
            return read_postings(self._table)

    def term_counts(self) -> dict[str, int]:
        """Count the titles that have each term."""
        with lance_errors(self.uri):
            return term_counts(self._table)

    def take(self, keys: Keys, columns: Sequence[str]) -> pa.Table:
        """Return columns of rows, in the order of ``keys``.

        Raises:
            InputError: Some rows were removed after their keys were found.
        """
        query = self._table.take_row_ids(keys.tolist()).select(list(columns)).with_row_id()
        with lance_errors(self.uri):
            found = query.to_arrow()
        order = found["_rowid"].to_numpy()
        if np.array_equal(order, keys):
            return found
        if len(np.setdiff1d(keys, order)):
            raise InputError(
                tr("Some of these products were removed during the search."),
                where=self.uri,
                hint=tr("Run the command again."),
            )
        sorter = np.argsort(order)
        return found.take(sorter[np.searchsorted(order, keys, sorter=sorter)])

    def facts(self) -> dict[str, Any]:
        """Return version, rows by side, bytes and indexes."""
        with lance_errors(self.uri):
            return {
                "version": self.version,
                "sides": {
                    side: int(self._table.count_rows(has_side(side))) for side in self.layout.sides
                },
                "bytes": int(self._table.stats()["total_bytes"]),
                "indices": [index.name for index in self._table.list_indices()],
            }
