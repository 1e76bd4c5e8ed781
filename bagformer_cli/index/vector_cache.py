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

import json
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.files import write_text
from bagformer_cli.index.segments import Keys, Listed, Segment
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.runtime.scan import scan as scan_in_numpy

if TYPE_CHECKING:
    import torch

    from bagformer_cli.index.centroids import CentroidIndex
    from bagformer_cli.index.engine import Queries
    from bagformer_cli.interaction.device_images import DeviceImages
    from bagformer_cli.vectors.multi_vectors import MultiVectors

CENTROIDS = "tokens"  # the folder of the centroid index
MAX_SEGMENTS = 8  # one more, and all are written again as one
MAX_DEAD_SHARE = 0.3  # of rows that are no longer alive, before all are written again

CENTROIDS_FROM_BYTES = 128 << 20
"""Bytes of vectors from which a centroid index is computed."""
OVERSAMPLE = 4
"""Rows of a scan that are scored again in float32, per result."""
MAX_NEW_SHARE = 0.2
"""Share of rows newer than the centroid index, which are all scanned, before it is built again."""
RESIDUAL_COST = 8
"""Decoding and multiplying one dimension of residual codes takes as long as 8 bytes of int8."""

NUMPY_PRODUCTS = 1 << 32
"""Multiplications up to which a scan in numpy takes less time than importing torch."""

NUMPY_RULE_PRODUCTS = 1 << 26
"""Multiplications up to which numpy scores by a rule that is no MaxSim: 8 ms, where loading the
kernels of both sums takes the first search of a process 600 ms of CPU time."""

SEGMENTS = "segments.json"
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

    ``device``, if it is set, is the GPU that scans; it keeps the vectors of the segments.

    Args:
        folder: The folder of the files; created when first needed.
        source: The table.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder, self.source = folder, source
        self.segments: list[Segment] = []
        self.keys = np.zeros(0, np.uint64)
        self.alive = np.zeros(0, np.bool_)
        self.device: torch.device | None = None
        self._on_device: dict[str, DeviceImages] = {}  # by segment; shared with copies
        self._centroids: CentroidIndex | None = None
        self._centroids_read = False
        self._order = np.zeros(0, np.int64)  # positions by rising row id
        self._copied = np.zeros(0, np.int64)  # the table's version that each position is a copy of
        self.version = -1
        """Version of the table that ``alive`` belongs to."""

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
        if not np.isin(wanted, self.keys[self._right(wanted, written)]).all():
            with self._locked():
                self._load()  # another process may have copied them meanwhile
                self._extend(wanted, written, version, progress)
        self.alive = self._right(wanted, written)
        self.version = version

    def _right(self, wanted: Keys, written: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which positions hold the vectors of rows that are there, as they were last written.

        Args:
            wanted: [m] row ids of the table, rising.
            written: [m] the version in which each was last written.
        """
        if not len(wanted):
            return np.zeros(len(self.keys), np.bool_)
        at = np.minimum(np.searchsorted(wanted, self.keys), len(wanted) - 1)
        right: NDArray[np.bool_] = (wanted[at] == self.keys) & (written[at] <= self._copied)
        return right

    def _load(self) -> bool:
        """Map the segments that ``segments.json`` lists, if they are others than those open.

        Returns:
            False if they are damaged: the cache is empty then.
        """
        while True:
            listed = self._listed()
            if listed is not None:
                if listed == [segment.listed for segment in self.segments]:
                    return True
                with suppress(InputError, OSError, ValueError, EOFError):
                    self._set(_opened(self.folder, listed))
                    return True
                if listed != self._listed():  # another process replaced them meanwhile
                    continue
            self._set([])
            return False

    def _listed(self) -> list[Listed] | None:
        """Read what ``segments.json`` says of each segment; None if the file is damaged."""
        try:
            listed = json.loads((self.folder / SEGMENTS).read_text("utf-8"))["segments"]
            if all(isinstance(one, str) or len(one) == 2 for one in listed):  # of an older version
                return []
            found = [(str(name), int(crc), int(version)) for name, crc, version in listed]
            return found if all(0 <= version < 1 << 62 for *_, version in found) else None
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            return None

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
        right = self._right(wanted, written)
        new = np.setdiff1d(wanted, self.keys[right], assume_unique=True)
        if not len(new):
            return
        dead = np.count_nonzero(~right)
        rewrite = len(self.names) >= MAX_SEGMENTS or dead > MAX_DEAD_SHARE * len(self.keys)
        keys = wanted if rewrite else new
        name = f"segment-{uuid.uuid4().hex[:12]}"
        with progress.task(tr("Copying vectors to the cache"), len(keys)) as task:

            def parts() -> Iterator[MultiVectors]:
                for part in self.source.vectors(keys):
                    yield part
                    task.advance(len(part))

            copied = Segment.write(self.folder, name, keys, parts(), version)
        segments = [copied] if rewrite else [*self.segments, copied]
        # A reader sees the old list or the new one. Old segments are deleted after that; who has
        # them mapped keeps them.
        listed = [segment.listed for segment in segments]
        write_text(self.folder / SEGMENTS, json.dumps({"segments": listed}))
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
        scores = np.zeros((len(queries.vectors), 0), np.float32)
        positions = np.zeros((len(queries.vectors), 0), np.int64)
        start = 0
        for segment in self.segments:
            end = start + len(segment.keys)
            inside = None
            if rows is not None:
                own = rows[slice(*np.searchsorted(rows, (start, end)))]
                inside = None if len(own) == end - start else own - start
            if end > start and (inside is None or len(inside)):
                found, at = self._best(segment, queries, k, inside)
                scores = np.concatenate([scores, found], 1)
                positions = np.concatenate([positions, at + start], 1)
            start = end
        return best_of(scores, positions, k)

    def _best(
        self, segment: Segment, queries: Queries, k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the best ``k`` rows of a segment, among all or ``rows``: on the device, if any."""
        if self._in_numpy(queries):
            items = segment.arrays.plain
            assert items is not None
            return scan_in_numpy(queries.vectors, items, k, rows, queries.rule)
        import torch

        from bagformer_cli.interaction.device_images import DeviceImages
        from bagformer_cli.interaction.topk import rescored, topk

        vectors, asked, rule = segment.vectors, queries.tensors, queries.rule
        candidates = None if rows is None else torch.from_numpy(rows)
        if self.device is None:
            # The type of the first pass; the best are then scored again in float32.
            dtype = torch.int8 if vectors.dtype == torch.int8 else torch.float32
            best = topk(
                asked, vectors, k * OVERSAMPLE, dtype=dtype, candidates=candidates, rule=rule
            )[1]
            scores, at = rescored(asked, vectors, k, best, rule)
            return scores.numpy(), at.numpy()
        for name in set(self._on_device) - set(self.names):  # of segments that were replaced
            del self._on_device[name]
        if segment.name not in self._on_device:
            self._on_device[segment.name] = DeviceImages(vectors, self.device)
        best = self._on_device[segment.name].topk(asked, k * OVERSAMPLE, candidates, rule)[1]
        scores, at = rescored(asked, vectors, k, best, rule)
        return scores.numpy(), at.numpy()

    def _in_numpy(self, queries: Queries) -> bool:
        """Tell whether numpy scans: without torch, or where loading it or kernels takes longer."""
        if any(s.arrays.plain is None for s in self.segments):
            return False
        if not torch_is_installed():
            return True
        products = len(queries.vectors.values) * sum(s.arrays.values.size for s in self.segments)
        if "torch" not in sys.modules:
            return products <= NUMPY_PRODUCTS
        kernels = queries.rule.is_maxsim or self.device is not None
        return not kernels and products <= NUMPY_RULE_PRODUCTS

    def select(self, positions: NDArray[np.int64]) -> MultiVectors:
        """Copy the vectors of rows, in the order of ``positions``."""
        import torch

        from bagformer_cli.vectors.multi_vectors import MultiVectors

        if len(self.segments) == 1:
            return self.segments[0].vectors.select(torch.from_numpy(positions))
        parts, order = [], []
        start = 0
        for segment in self.segments:
            end = start + len(segment.keys)
            own = np.flatnonzero((positions >= start) & (positions < end))
            if len(own):
                parts.append(segment.vectors.select(torch.from_numpy(positions[own] - start)))
                order.append(own)
            start = end
        inverse = np.argsort(np.concatenate(order))
        return MultiVectors.concatenate(parts).select(torch.from_numpy(inverse))


@cache
def torch_is_installed() -> bool:
    """Tell whether torch can be imported; a service of an exported model does without it."""
    return find_spec("torch") is not None


def _opened(folder: Path, listed: Sequence[Listed]) -> list[Segment]:
    """Open segments, and check that they fit each other."""
    segments = [Segment.open(folder, *one) for one in listed]
    kinds = {(segment.arrays.storage, segment.arrays.dim) for segment in segments}
    if len(kinds) > 1:
        raise ValueError(SEGMENTS)
    for version in {segment.version for segment in segments}:  # of other versions rows may recur
        keys = np.concatenate([one.keys for one in segments if one.version == version])
        if len(np.unique(keys)) < len(keys):
            raise ValueError(SEGMENTS)
    return segments


def best_of(
    scores: NDArray[np.float32], positions: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Keep the best ``k`` of each row, falling; equal scores stay in order."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
