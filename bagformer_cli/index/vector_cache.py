"""The vector cache: a memory-mapped copy of one side's vectors, in the form that a scan reads.

The copy is derived from a table (``source``) and follows its versions. New rows are appended as a
segment; deleted and replaced rows are masked. It can be deleted at any time::

    table, version 6                     files in the cache's folder
    row id  product  written in version  segments.json        [["segment-a1", CRC-32, 4], …]
      3     p1       5                   segment-a1/          vectors, as of version 4
      5     p2       2                   segment-a1.keys.npy  row ids 3, 5, 7
      7     p3       deleted             segment-b2/          vectors, as of version 6
                                         segment-b2.keys.npy  row id 3
                                         tokens/              centroids (centroids.py)

    position   0      1     2      3        place in all segments, one after the other
    keys       3      5     7      3
    alive      False  True  False  True     0: p1 was written after version 4; 2: p3 is gone

A product that is written again keeps its row id, so the table's version in which each row was
written decides whether a copy is still right. A segment's name is never used twice, so centroids
computed from one segment cannot be taken for another's.

A damaged cache is found when it is opened (``segments.py``), and copied from the table again.

Shapes: Q queries, n rows in the cache, k results.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.index.segment_scan import SegmentScanner, select_rows
from bagformer_cli.index.segments import Keys, Segment, open_segments, read_list, write_list
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    from bagformer_cli.index.centroids import CentroidIndex
    from bagformer_cli.index.engine import Queries
    from bagformer_cli.vectors.multi_vectors import MultiVectors

CENTROIDS = "tokens"  # the folder of the centroid index
MAX_SEGMENTS = 8  # one more, and all are written again as one
MAX_DEAD_SHARE = 0.3  # of rows that are no longer alive, before all are written again

CENTROIDS_FROM_BYTES = 128 << 20
"""Bytes of vectors from which a centroid index is computed."""
MAX_NEW_SHARE = 0.2
"""Share of rows newer than the centroid index, which are all scanned, before it is built again."""
RESIDUAL_COST = 8
"""Decoding and multiplying one dimension of residual codes takes as long as 8 bytes of int8."""

NO_KEYS = np.zeros(0, np.uint64)


class Source(Protocol):
    """The table whose vectors are cached."""

    def version(self) -> int:
        """Return the table's version."""

    def keys(self) -> tuple[Keys, NDArray[np.int64]]:
        """Return the row ids of all rows that have vectors, rising, and when they were written.

        The latter are versions of the table.
        """

    def vectors(self, keys: Keys) -> Iterator[MultiVectors]:
        """Yield the vectors of rows, in order, a part at a time."""


class VectorCache:
    """The vectors of one side of an index, in segments; see the module.

    Args:
        folder: The folder of the files; created when first needed.
        source: The table.

    Attributes:
        segments: The segments, in order.
        scanner: Scores their rows; copies of this cache share it.
        keys: [n] row ids of all segments, one segment after the other.
        alive: [n] the rows that hold what the table holds at ``version``.
        version: Version of the table that ``alive`` belongs to; −1: the cache was not updated yet.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder, self.source = folder, source
        self.segments: list[Segment] = []
        self.keys = np.zeros(0, np.uint64)
        self.alive = np.zeros(0, np.bool_)
        self.version = -1
        self.scanner = SegmentScanner()
        self._centroids: CentroidIndex | None = None
        self._centroids_read = False
        self._order = np.zeros(0, np.int64)  # positions by rising row id
        self._copied = np.zeros(0, np.int64)  # the table's version that each position is a copy of

    @property
    def names(self) -> list[str]:
        """Names of the segments, in order."""
        return [segment.name for segment in self.segments]

    # ------------------------------------------------------------------------------- updating

    def update(self, progress: Progress = SILENT) -> None:
        """Bring the cache to the table's version."""
        version = self.source.version()
        if version == self.version:
            return
        wanted, written = self.source.keys()
        if not self._load():
            progress.warn(
                tr("The vector cache is damaged; it is copied from the index again: {path}",
                   path=self.folder)
            )  # fmt: skip
        if not np.isin(wanted, self.keys[self._up_to_date(wanted, written)]).all():
            with self._locked():
                self._load()  # another process may have copied them meanwhile
                self._extend(wanted, written, version, progress)
        self.alive = self._up_to_date(wanted, written)
        self.version = version

    def _up_to_date(self, wanted: Keys, written: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which positions hold the vectors of rows that are there, as they were last written.

        Args:
            wanted: [m] row ids of the table, rising.
            written: [m] the version in which each was last written.
        """
        if not len(wanted):
            return np.zeros(len(self.keys), np.bool_)
        at = np.minimum(np.searchsorted(wanted, self.keys), len(wanted) - 1)
        current: NDArray[np.bool_] = (wanted[at] == self.keys) & (written[at] <= self._copied)
        return current

    def _load(self) -> bool:
        """Map the segments that ``segments.json`` lists, if they are others than those open.

        Returns:
            False if they are damaged: the cache is empty then.
        """
        while True:
            listed = read_list(self.folder)
            if listed is not None:
                if listed == [segment.listed for segment in self.segments]:
                    return True
                with suppress(InputError, OSError, ValueError, EOFError):
                    self._set(open_segments(self.folder, listed))
                    return True
                if listed != read_list(self.folder):  # another process replaced them meanwhile
                    continue
            self._set([])
            return False

    def _set(self, segments: list[Segment]) -> None:
        self.segments = segments
        self.keys = np.concatenate([NO_KEYS, *(s.keys for s in segments)])
        versions = [np.full(len(s.keys), s.version) for s in segments]
        self._copied = np.concatenate([np.zeros(0, np.int64), *versions])
        self._order = np.argsort(self.keys, kind="stable")
        self._centroids_read = False

    def _extend(
        self, wanted: Keys, written: NDArray[np.int64], version: int, progress: Progress
    ) -> None:
        """Copy new rows into a new segment; all rows if there are many segments or dead rows."""
        current = self._up_to_date(wanted, written)
        new = np.setdiff1d(wanted, self.keys[current], assume_unique=True)
        if not len(new):
            return
        dead = np.count_nonzero(~current)
        rewrite = len(self.names) >= MAX_SEGMENTS or dead > MAX_DEAD_SHARE * len(self.keys)
        keys = wanted if rewrite else new
        name = f"segment-{uuid.uuid4().hex[:12]}"
        with progress.task(
            tr("Copying vectors to the cache"), len(keys), tr("{n} products", n="{n}")
        ) as task:

            def parts() -> Iterator[MultiVectors]:
                for part in self.source.vectors(keys):
                    yield part
                    task.advance(len(part))

            copied = Segment.write(self.folder, name, keys, parts(), version)
        segments = [copied] if rewrite else [*self.segments, copied]
        # Old segments are deleted after the list has changed; who has them mapped keeps them.
        write_list(self.folder, segments)
        self._set(segments)
        self._delete_all_but(self.names)

    def _delete_all_but(self, names: Sequence[str]) -> None:
        for path in self.folder.glob("segment-*"):
            if path.name.partition(".")[0] not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process write at a time; remove what a killed one left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            for left in self.folder.glob(".*.part"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield

    # ------------------------------------------------------------------------------ centroids

    def build_centroids(self, progress: Progress = SILENT, min_bytes: int | None = None) -> None:
        """Compute the centroid index if the vectors are many and it is missing or old.

        The lock is not held meanwhile, so that nobody has to wait; if another process was faster,
        its result is kept.
        """
        if self.cost < (CENTROIDS_FROM_BYTES if min_bytes is None else min_bytes):
            return
        from bagformer_cli.index.centroids import CentroidIndex
        from bagformer_cli.interaction.kernels.cpu.tiles import kernels

        if kernels() is None or self._centroids_are_recent():
            return
        names = list(self.names)
        built = CentroidIndex.build([segment.vectors for segment in self.segments], progress)
        with self._locked():
            self._load()
            if names == self.names[: len(names)] and not self._centroids_are_recent():
                built.save(self.folder / CENTROIDS, names)
        self._load_centroids()

    @property
    def centroids(self) -> CentroidIndex | None:
        """The centroid index; None: it was not built. Read when it is first used."""
        if not self._centroids_read:
            self._load_centroids()
        return self._centroids

    def _load_centroids(self) -> None:
        found = None
        if (self.folder / CENTROIDS).is_dir():
            from bagformer_cli.index.centroids import CentroidIndex

            found = CentroidIndex.load(self.folder / CENTROIDS, self.names, len(self))
        fits = found is not None and found.dim == self.segments[0].arrays.dim
        self._centroids, self._centroids_read = found if fits else None, True

    def _centroids_are_recent(self) -> bool:
        self._load_centroids()
        covered = 0 if self.centroids is None else self.centroids.count
        return self.centroids is not None and covered >= (1 - MAX_NEW_SHARE) * len(self)

    # ------------------------------------------------------------------------------- searching

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes that an exact scan of all rows reads."""
        return sum(s.arrays.values.nbytes for s in self.segments)

    @property
    def cost(self) -> int:
        """The bytes of int8 vectors whose scan takes as long as the scan of these rows."""
        residual = [s.arrays for s in self.segments if s.arrays.codebook is not None]
        return self.nbytes + sum(
            RESIDUAL_COST * len(v.values) * v.dim - v.values.nbytes for v in residual
        )

    def positions(self, keys: Keys) -> NDArray[np.int64]:
        """Return the last position of each row, −1 for a row that is not in the cache."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        order = np.searchsorted(self.keys, keys, side="right", sorter=self._order) - 1
        found = self._order[np.maximum(order, 0)]
        return np.where(self.keys[found] == keys, found, -1)

    def eligible(self, keys: Keys | None) -> NDArray[np.bool_]:
        """Return the mask of rows that a search may find: alive, and among ``keys`` if given."""
        if keys is None:
            return self.alive
        mask = np.zeros(len(self.keys), np.bool_)
        positions = self.positions(keys)
        mask[positions[positions >= 0]] = True
        return mask & self.alive

    def scan(
        self, queries: Queries, k: int, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the best ``k`` rows for each query by its rule, exactly.

        Args:
            queries: Q queries.
            k: Results per query; fewer are returned if there are fewer rows.
            rows: [m] the positions to score, rising; None: all rows, dead ones too.

        Returns:
            Scores [Q, k], falling, and positions [Q, k].
        """
        return self.scanner.scan(self.segments, queries, k, rows)

    def select(self, positions: NDArray[np.int64]) -> MultiVectors:
        """Copy the vectors of rows, in the order of ``positions``."""
        return select_rows(self.segments, positions)
