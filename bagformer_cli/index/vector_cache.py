"""The lists of vectors of one side of an index, where a scan can read them: memory-mapped.

LanceDB keeps rows safely but in pages that must be decoded; a scan wants raw arrays. The mirror is
derived from the table and follows its versions: what is new is appended as a segment, what was
deleted or replaced is masked, and it can be thrown away at any time. Rows are known by LanceDB's
stable row ids, of which a row that is written again gets a new one.

Shapes: Q queries, n rows of the mirror, k results.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from bagformer_cli.errors import InputError
from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.index.centroids import TokenIndex
from bagformer_cli.index.engine import Found, Recall
from bagformer_cli.interaction.kernels.cpu.tiles import kernels
from bagformer_cli.interaction.maxsim import score_texts
from bagformer_cli.interaction.topk import topk_rescored
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.storage import open_vectors, write_vectors

TOKENS = "tokens"
MOST_SEGMENTS = 8
DEAD_SHARE = 0.3

EXACT_BYTES = 48 << 20
"""A scan of so many bytes takes about as long as the first stage."""
TOKENS_FROM = 128 << 20
"""Bytes of lists from which rounding them beforehand is worth its place."""
TAIL_SHARE = 0.2
"""Rows that came after the rounding, and are scanned, before it is made anew."""
CODE_BYTES = 8
"""A dimension of residual codes takes as long to decode and multiply as so many bytes of int8."""
LEAST, EACH = 1000, 16
"""Candidates that are scored: at least, and for each result."""

Keys = NDArray[np.uint64]


class Source(Protocol):
    """The table that is mirrored."""

    def version(self) -> int:
        """Of the table."""

    def keys(self) -> Keys:
        """[n] the row ids that are there now, rising."""

    def lists(self, keys: Keys) -> Iterator[MultiVectors]:
        """The lists of those rows, in order, a part at a time."""


@dataclass(frozen=True)
class Segment:
    """Rows that were mirrored together."""

    vectors: MultiVectors
    keys: Keys


class Mirror:
    """See the module.

    Args:
        folder: Where the files are.
        source: What is mirrored.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder, self.source = folder, source
        self.segments: list[Segment] = []
        self.names: list[str] = []
        self.keys = np.zeros(0, np.uint64)
        self.alive = np.zeros(0, np.bool_)
        self._order = np.zeros(0, np.int64)
        self._version = -1
        self.tokens: TokenIndex | None = None

    # ------------------------------------------------------------------------------ following

    def refresh(self, progress: Progress = SILENT) -> None:
        """Bring the mirror to the table's version."""
        version = self.source.version()
        if version == self._version:
            return
        wanted = self.source.keys()
        self._load()
        if len(np.setdiff1d(wanted, self.keys, assume_unique=True)):
            with self._locked():
                self._load()  # another process may have been faster
                self._extend(wanted, progress)
        self.alive = np.isin(self.keys, wanted, assume_unique=True)
        self._version = version

    def _load(self) -> None:
        try:
            names = json.loads((self.folder / "segments.json").read_text("utf-8"))["segments"]
        except (OSError, ValueError, KeyError, TypeError):
            names = []
        if names == self.names:
            return
        try:
            self._set([self._open(name) for name in names], names)
        except (InputError, OSError, ValueError, EOFError):  # damaged: it is only a copy
            self._set([], [])

    def _open(self, name: str) -> Segment:
        vectors = open_vectors(self.folder / name)
        keys = np.load(self.folder / f"{name}.keys.npy")
        if len(keys) != len(vectors):
            raise ValueError(name)
        return Segment(vectors, keys)

    def _set(self, segments: list[Segment], names: list[str]) -> None:
        self.segments, self.names = segments, names
        self.keys = np.concatenate([np.zeros(0, np.uint64), *(s.keys for s in segments)])
        self._order = np.argsort(self.keys, kind="stable")
        self.tokens = TokenIndex.load(self.folder / TOKENS, names, len(self.keys))

    def index_tokens(self, progress: Progress = SILENT, least: int | None = None) -> None:
        """Round all vectors where it is worth it and was not done lately.

        Nobody has to wait while that is computed; if another process was quicker, its work stays.
        """
        worth_it = self.cost >= (TOKENS_FROM if least is None else least)
        if not worth_it or kernels() is None or self._rounded_lately():
            return
        names = list(self.names)
        made = TokenIndex.build([segment.vectors for segment in self.segments], progress)
        with self._locked():
            self._load()
            if names == self.names[: len(names)] and not self._rounded_lately():
                made.save(self.folder / TOKENS, names)
        self.tokens = TokenIndex.load(self.folder / TOKENS, self.names, len(self))

    def _rounded_lately(self) -> bool:
        self.tokens = TokenIndex.load(self.folder / TOKENS, self.names, len(self))
        return self.tokens is not None and self.tokens.count >= (1 - TAIL_SHARE) * len(self)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process writes at a time; what a killed one has left goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            for left in self.folder.glob(".*.part"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield

    def _extend(self, wanted: Keys, progress: Progress) -> None:
        new = np.setdiff1d(wanted, self.keys, assume_unique=True)
        if not len(new):
            return
        dead = len(self.keys) - len(np.intersect1d(self.keys, wanted, assume_unique=True))
        anew = len(self.names) >= MOST_SEGMENTS or dead > DEAD_SHARE * max(1, len(self.keys))
        kept = [] if anew else self.names
        keys = wanted if anew else new
        name = f"segment-{uuid.uuid4().hex[:12]}"  # never used before: what is derived names it
        with progress.task(tr("Laying vectors out for scanning"), len(keys)) as task:

            def parts() -> Iterator[MultiVectors]:
                for part in self.source.lists(keys):
                    yield part
                    task.advance(len(part))

            write_vectors(self.folder / name, parts())
        with (
            atomic_file(self.folder / f"{name}.keys.npy") as temporary,
            open(temporary, "wb") as out,
        ):
            np.save(out, keys)
        names = [*kept, name]
        write_text(self.folder / "segments.json", json.dumps({"segments": names}))
        self._set([self._open(one) for one in names], names)
        self._forget(names)

    def _forget(self, names: Sequence[str]) -> None:
        """Remove segments nobody will open again (who has them mapped keeps them)."""
        for path in self.folder.glob("segment-*"):
            if path.name.partition(".")[0] not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    # ------------------------------------------------------------------------------ searching

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes that a scan of everything reads."""
        return sum(s.vectors.values.nbytes for s in self.segments)

    @property
    def cost(self) -> int:
        """The same for the planner: residual codes count as what takes as long."""
        coded = [s.vectors for s in self.segments if s.vectors.codebook is not None]
        return self.nbytes + sum(
            CODE_BYTES * len(v.values) * v.dim - v.values.nbytes for v in coded
        )

    def positions(self, keys: Keys) -> NDArray[np.int64]:
        """Where rows are; -1 where they are not."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        places = np.searchsorted(self.keys, keys, sorter=self._order)
        found = self._order[np.minimum(places, len(self.keys) - 1)]
        return np.where(self.keys[found] == keys, found, -1)

    def allowed(self, keys: Keys | None) -> NDArray[np.bool_]:
        """[n] which rows may be found: those that live, and are among ``keys``."""
        if keys is None:
            return self.alive
        mask = np.zeros(len(self.keys), np.bool_)
        places = self.positions(keys)
        mask[places[places >= 0]] = True
        return mask & self.alive

    def scan(
        self, queries: MultiVectors, k: int, chosen: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best ``k`` rows of each query by late interaction, exact for what is stored.

        Args:
            queries: Q.
            k: How many; fewer come back where there are fewer.
            chosen: [m] the rows that may be found, rising; None: all.

        Returns:
            Scores [Q, k] falling, positions [Q, k].
        """
        scores = np.zeros((len(queries), 0), np.float32)
        places = np.zeros((len(queries), 0), np.int64)
        start = 0
        for segment in self.segments:
            end = start + len(segment.keys)
            some = None
            if chosen is not None:
                own = chosen[slice(*np.searchsorted(chosen, (start, end)))]
                some = None if len(own) == end - start else torch.from_numpy(own - start)
            if end > start and (some is None or len(some)):
                stored = segment.vectors
                found, place = topk_rescored(
                    queries, stored, k, dtype=_cheapest(stored), candidates=some
                )
                scores = np.concatenate([scores, found.numpy()], 1)
                places = np.concatenate([places, place.numpy() + start], 1)
            start = end
        return best_of(scores, places, k)

    def recall(
        self,
        queries: MultiVectors,
        k: int,
        allowed: NDArray[np.bool_],
        method: Recall,
        seconds: dict[str, float],
    ) -> Found:
        """The best ``k`` of each query, by the way that is quickest for so many.

        Args:
            queries: Q.
            k: How many.
            allowed: [n] bool.
            method: ``exact`` or ``tokens``; else the planner chooses.
            seconds: Where to note how long each step took.
        """
        count = int(np.count_nonzero(allowed))
        share = count / max(1, len(allowed))
        quick = self.cost * share <= EXACT_BYTES
        exact = method == "exact" or (method != "tokens" and quick)
        if self.tokens is None or exact:
            started = time.perf_counter()
            chosen = None if count == len(allowed) else np.flatnonzero(allowed)
            scores, places = self.scan(queries, k, chosen)
            seconds["scan"] = time.perf_counter() - started
            megabytes = int(self.nbytes * share) // 10**6
            note = tr("{n} lists, {mb} MB scanned", n=count, mb=megabytes)
            if method == "tokens":
                asked = tr("too few for rounded vectors, which were asked for")
                note = tr("{one}; {other}", one=note, other=asked)
            keys = [self.keys[row] for row in places]
            return Found(keys, list(scores), True, "exact", note, seconds)
        # What came after the rounding: all of it.
        later = self.tokens.count + np.flatnonzero(allowed[self.tokens.count :])
        keys, found = [], []
        seen = 0
        for number in range(len(queries)):
            query = queries[number]
            started = time.perf_counter()
            values = query.to("cpu", torch.float32).values
            promising = self.tokens.candidates(values, max(LEAST, EACH * k), allowed)
            chosen = np.concatenate([promising, later])
            seconds["rounded"] = seconds.get("rounded", 0.0) + time.perf_counter() - started
            started = time.perf_counter()
            scores, places = self.scan(query, k, chosen)
            seconds["late"] = seconds.get("late", 0.0) + time.perf_counter() - started
            keys.append(self.keys[places[0]])
            found.append(scores[0])
            seen = max(seen, len(chosen))
        note = tr("{n} of {all} lists scored, chosen by rounded vectors", n=seen, all=count)
        return Found(keys, found, True, "tokens", note, seconds)

    def select(self, positions: NDArray[np.int64]) -> MultiVectors:
        """The lists of rows, copied."""
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

    def late(self, query: MultiVectors, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The late interaction of one query with some rows."""
        if not len(positions):
            return np.zeros(0, np.float32)
        chosen = self.select(positions).to(dtype=torch.float32)
        scores: NDArray[np.float32] = score_texts(query, chosen)[0].numpy()
        return scores


def _cheapest(vectors: MultiVectors) -> torch.dtype:
    return torch.int8 if vectors.dtype == torch.int8 else torch.float32


def best_of(
    scores: NDArray[np.float32], places: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best ``k`` of each row, falling."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
