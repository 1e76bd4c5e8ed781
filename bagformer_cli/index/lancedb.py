"""An index in LanceDB: files in a folder, or on shared storage (``s3://…``); no server.

Versions, filters, upserts, deletes, concurrent readers and safety against crashes are LanceDB's.
What it is slow at, late interaction over many lists, is done beside it: on a memory-mapped mirror
of the lists (``mirror.py``) by this project's kernel.

Its habits, which this file knows: one-vector search needs a selected ``_distance``, but no
``refine_factor``, which reads rows anew, where the index keeps whole vectors (``IvfFlat``); added
rows are searched slowly until ``optimize()``; IVF without product quantization is built in seconds
where PQ and HNSW take minutes; row ids survive compaction only in tables made with stable ones; a
table object stays at its version until ``checkout_latest()``.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import lancedb
import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from lancedb.index import BTree, IvfFlat
from numpy.typing import NDArray

from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.files import disk_errors
from bagformer_cli.index.engine import Engine, Found, Queries, Recall, damaged
from bagformer_cli.index.filters import lance_sql, parse_filter
from bagformer_cli.index.lancedb_folder import (
    CODEBOOK,
    TABLE,
    UNFINISHED,
    WRITE_LOCK,
    cached_mirror,
    is_remote,
    mirror_folder,
    new_place,
    not_an_index,
    taken,
)
from bagformer_cli.index.rows import Layout, Side, side_vectors
from bagformer_cli.index.vector_cache import Keys, Mirror
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook

NAME = b"xmr_index"
LISTS_AT_ONCE = 2048
ANN_FROM = 20_000
"""Rows from which the one-vector column gets an IVF index; below, a flat search is as quick."""
NPROBES = 32
SETTLED = 10 * 10**9
"""Nanoseconds after which what is written has another time than what was before. Disks keep time
in steps (FAT: of two seconds), and another machine's clock may be a little behind."""


class LanceEngine(Engine):
    """See the module.

    Args:
        uri: A folder, or ``s3://bucket/path``.
        table: The open table.
    """

    def __init__(self, uri: str, table: Any) -> None:
        self.uri, self._table = uri, table
        layout = Layout.of(table.schema)
        name = (table.schema.metadata or {}).get(NAME)
        if layout is None or name is None:
            raise not_an_index(uri)
        self.layout = layout
        self._name: str = name.decode()
        self._mirrors: dict[Side, Mirror] = {}
        self._seen: int | None = None
        self._version = -1

    @classmethod
    def create(
        cls, uri: str, layout: Layout, codebook: Codebook | None = None, **options: Any
    ) -> Self:
        """Make an empty index; the codebook lies in a table of its own beside the rows."""
        if layout.codebook:
            codebook = layout.codebook_of(codebook)
        schema = layout.schema
        schema = schema.with_metadata({**schema.metadata, NAME: uuid.uuid4().hex.encode()})

        def write(place: str) -> None:
            database = lancedb.connect(place)
            if codebook is not None:
                kept = pa.table({"data": pa.array([codebook.to_bytes()], pa.binary())})
                database.create_table(CODEBOOK, kept, mode="overwrite")
            database.create_table(
                TABLE, schema=schema, storage_options={"new_table_enable_stable_row_ids": "true"}
            )

        if not is_remote(uri):
            with _errors(uri), new_place(Path(uri)) as temporary:
                write(str(temporary))
            return cls.open(uri)
        with _errors(uri):
            if TABLE in lancedb.connect(uri).list_tables().tables:
                raise taken(uri)
            write(uri)
        return cls.open(uri)

    @classmethod
    def open(cls, uri: str, **options: Any) -> Self:
        """Open an index."""
        if not is_remote(uri):
            path = Path(uri)
            if not path.exists():
                raise InputError(
                    tr("There is no index here."),
                    where=uri,
                    hint=tr("Make one: xmr index build CATALOGUE {uri}", uri=uri),
                )
            if not (path / f"{TABLE}.lance").is_dir():
                raise not_an_index(uri)
        with _errors(uri):
            try:
                table = lancedb.connect(uri).open_table(TABLE)
            except (ValueError, FileNotFoundError) as error:
                if "not found" in str(error).lower():
                    raise not_an_index(uri) from None
                raise
        return cls(uri, table)

    @cached_property
    def codebook(self) -> Codebook | None:
        """What the codes mean, out of the table beside the rows."""
        if not self.layout.codebook:
            return None
        with _errors(self.uri):
            kept = lancedb.connect(self.uri).open_table(CODEBOOK).to_arrow()
            found = Codebook.from_bytes(kept["data"][0].as_py())
        return self.layout.codebook_of(found)

    # ------------------------------------------------------------------------------- writing

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Of an index in a folder, by a file that goes when all is done."""
        mark = Path(self.uri) / UNFINISHED
        if not is_remote(self.uri):
            mark.touch()
        yield
        mark.unlink(missing_ok=True)

    @property
    def unfinished(self) -> bool:
        """See :meth:`filling`."""
        return not is_remote(self.uri) and (Path(self.uri) / UNFINISHED).exists()

    def upsert(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows, replacing those of the same id."""
        self.check(rows)
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        with _errors(self.uri), disk_errors(Path(self.uri)), self._writing():
            self._table.checkout_latest()
            if self._table.count_rows() == 0:
                self._table.add(table)
                return
            merge = self._table.merge_insert("id")
            merge = merge.when_matched_update_all().when_not_matched_insert_all()
            # A product without title or image has no vector there: to LanceDB that is a bad one.
            merge.execute(table, on_bad_vectors="null")

    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> int:
        """Delete rows."""
        removed = 0
        condition = self._filter(where)
        with self._writing():
            self._table.checkout_latest()
            if condition is not None:
                removed += self._delete(condition)
            for begin in range(0, len(ids), 1000):
                listed = ", ".join(_quoted(name) for name in ids[begin : begin + 1000])
                removed += self._delete(f"id IN ({listed})")
        return removed

    def _delete(self, where: str) -> int:
        with _errors(self.uri):
            count = int(self._table.count_rows(where))
            if count:
                self._table.delete(where)
        return count

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time (local folders).

        Two upserts at once could both insert what neither saw; one beside a compaction would
        conflict with it.
        """
        if is_remote(self.uri):
            yield
            return
        with FileLock(Path(self.uri) / WRITE_LOCK):
            yield

    def optimize(self, progress: Progress = SILENT) -> None:
        """Compact, index the one-vector columns and the ids, bring the mirror up to date."""
        with _errors(self.uri):
            with progress.task(tr("Compacting and indexing"), None), self._writing():
                self._compact()
            for side in self.layout.sides:
                mirror = self._refreshed(side, progress)
                mirror.index_tokens(progress)

    def _compact(self) -> None:
        self._table.checkout_latest()
        count = int(self._table.count_rows())
        known = {index.name for index in self._table.list_indices()}
        if count >= ANN_FROM and "id_idx" not in known:
            self._table.create_index("id", config=BTree())
        for side in self.layout.sides:
            there = int(self._table.count_rows(f"{side}_count IS NOT NULL"))
            if there >= ANN_FROM and f"{side}_vector_idx" not in known:
                parts = max(16, min(4096, round(there**0.5)))
                config = IvfFlat(distance_type="cosine", num_partitions=parts)
                self._table.create_index(f"{side}_vector", config=config)
        self._table.optimize(cleanup_older_than=timedelta(days=1))

    # ------------------------------------------------------------------------------- reading

    def count(self, where: str | None = None) -> int:
        """Rows, or those that an expression is true of."""
        condition = self._filter(where)
        with _errors(self.uri):
            self._follow()
            return int(self._table.count_rows(condition))

    def recall(
        self,
        side: Side,
        queries: Queries,
        k: int,
        where: str | None,
        method: Recall,
        *,
        candidates: int,
    ) -> Found:
        """Results or candidates, at the table's newest version."""
        self.layout.require_side(side, self.uri)
        seconds: dict[str, float] = {}
        started = time.perf_counter()
        condition = self._filter(where)
        with _errors(self.uri):
            self._follow()
            if method == "vector":
                return self._by_vector(side, queries, candidates, condition)
            mirror = self._refreshed(side)
            seconds["open"] = time.perf_counter() - started
            started = time.perf_counter()
            allowed = mirror.allowed(None if condition is None else self._keys(condition))
        seconds["filter"] = time.perf_counter() - started
        return mirror.recall(queries.vectors, k, allowed, method, seconds)

    def _by_vector(self, side: Side, queries: Queries, k: int, where: str | None) -> Found:
        started = time.perf_counter()
        keys, scores = [], []
        there = f"{side}_count IS NOT NULL"
        for query in queries.one.float().cpu().numpy():
            search = (
                self._table.search(query, vector_column_name=f"{side}_vector")
                .distance_type("cosine")
                .where(there if where is None else f"{where} AND {there}", prefilter=True)
                .minimum_nprobes(NPROBES)
                .maximum_nprobes(0)  # ever more, until a narrow filter has its number
                .limit(k)
                .select(["_distance"])
                .with_row_id(True)
            )
            found = search.to_arrow()
            keys.append(found["_rowid"].to_numpy().astype(np.uint64))
            scores.append((1 - found["_distance"].to_numpy()).astype(np.float32))
        seconds = {"recall": time.perf_counter() - started}
        note = tr("one vector each, LanceDB's index; {n} candidates", n=k)
        return Found(keys, scores, False, "vector", note, seconds)

    def late(
        self, side: Side, queries: Queries, keys: Sequence[NDArray[np.uint64]]
    ) -> list[NDArray[np.float32]]:
        """Late interaction with candidates: out of the mirror where they are in it."""
        mirror = self._mirror(side)
        result = []
        for number, chosen in enumerate(keys):
            places = mirror.positions(chosen)
            query = queries.vectors[number]
            if (places >= 0).all():
                result.append(mirror.late(query, places))
            else:
                result.append(self._late_from_table(side, query, chosen))
        return result

    def _late_from_table(self, side: Side, query: MultiVectors, keys: Keys) -> NDArray[np.float32]:
        parts = list(TableSource(self, side).lists(keys))
        if not parts:
            return np.zeros(0, np.float32)
        lists = MultiVectors.concatenate(parts).to(dtype=torch.float32)
        scores: NDArray[np.float32] = score_texts(query, lists)[0].numpy()
        return scores

    def rows(self, keys: NDArray[np.uint64], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of rows, in order."""
        if not len(keys):
            return []
        with _errors(self.uri):
            found = self.take(keys, columns)
        return [dict(zip(columns, values, strict=True)) for values in zip(
            *(found[name].to_pylist() for name in columns), strict=True)]  # fmt: skip

    def take(self, keys: NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        """Columns of rows as Arrow, in the order of ``keys``."""
        query = self._table.take_row_ids(keys.tolist()).select(list(columns)).with_row_id()
        found = query.to_arrow()
        came = found["_rowid"].to_numpy()
        if np.array_equal(came, keys):
            return found
        if len(np.setdiff1d(keys, came)):
            raise InputError(
                tr("Some of these products were removed meanwhile."),
                where=self.uri,
                hint=tr("Run the command again."),
            )
        order = np.argsort(came)
        return found.take(order[np.searchsorted(came, keys, sorter=order)])

    def info(self) -> dict[str, Any]:
        """Rows, versions, bytes."""
        with _errors(self.uri):
            self._table.checkout_latest()
            stats = self._table.stats()
            sides = {
                side: int(self._table.count_rows(f"{side}_count IS NOT NULL"))
                for side in self.layout.sides
            }
            return {
                "engine": "lancedb",
                "unfinished": self.unfinished,
                "version": int(self._table.version),
                "sides": sides,
                "bytes": int(stats["total_bytes"]),
                "mirror_bytes": sum(_size(self._mirror(side).folder) for side in sides),
                "indices": [index.name for index in self._table.list_indices()],
            }

    # -------------------------------------------------------------------------------- inside

    def _follow(self) -> int:
        """Bring the open table to its newest version, and say which that is.

        Asking LanceDB takes a millisecond. Every version puts a file into one folder, so that
        nobody wrote as long as that folder's time is what it was when we asked.
        """
        changed = self._changed()
        if changed is None or changed != self._seen:
            self._table.checkout_latest()
            self._version, self._seen = int(self._table.version), changed
        return self._version

    def _changed(self) -> int | None:
        """When the folder of versions was changed last, ns; None where that says nothing.

        Just now says nothing: what is written a moment later may bear the same time.
        """
        try:
            changed = os.stat(Path(self.uri) / f"{TABLE}.lance" / "_versions").st_mtime_ns
        except OSError:  # on shared storage, or laid out otherwise
            return None
        return changed if time.time_ns() - changed > SETTLED else None

    def _filter(self, where: str | None) -> str | None:
        """Translate a filter to LanceDB's SQL; None stays None."""
        return None if where is None else lance_sql(parse_filter(where, self.layout))

    def _keys(self, where: str) -> Keys:
        found = self._table.search().where(where).select(["id"]).with_row_id(True).to_arrow()
        keys: Keys = found["_rowid"].to_numpy().astype(np.uint64)
        return keys

    def _mirror(self, side: Side) -> Mirror:
        self.layout.require_side(side, self.uri)
        if side not in self._mirrors:
            folder = mirror_folder(self.uri, self._name) / side
            self._mirrors[side] = Mirror(folder, TableSource(self, side))
        return self._mirrors[side]

    def _refreshed(self, side: Side, progress: Progress = SILENT) -> Mirror:
        """The mirror at the table's version; one of our own where we may only read."""
        try:
            self._mirror(side).refresh(progress)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            folder = cached_mirror(self.uri, self._name) / side
            self._mirrors[side] = Mirror(folder, TableSource(self, side))
            self._mirrors[side].refresh(progress)
        return self._mirrors[side]


class TableSource:
    """One side of a table, as a mirror sees it."""

    def __init__(self, engine: LanceEngine, side: Side) -> None:
        self._engine, self._side = engine, side

    def version(self) -> int:
        """The newest."""
        return self._engine._follow()

    def keys(self) -> Keys:
        """The rows that have this side, rising."""
        return np.sort(self._engine._keys(f"{self._side}_count IS NOT NULL"))

    def lists(self, keys: Keys) -> Iterator[MultiVectors]:
        """Their lists, a part at a time."""
        columns = [f"{self._side}_vectors"]
        if self._engine.layout.dtype == "int8":
            columns.append(f"{self._side}_scale")
        for begin in range(0, len(keys), LISTS_AT_ONCE):
            rows = self._engine.take(keys[begin : begin + LISTS_AT_ONCE], columns)
            yield side_vectors(rows, self._side, self._engine.codebook)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """What LanceDB raises, as this project's errors."""
    try:
        yield
    except (XmrError, KeyboardInterrupt, OSError):
        raise
    except (RuntimeError, ValueError) as error:
        raise damaged(uri, error) from error
