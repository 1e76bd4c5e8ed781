"""A big text file to Arrow shards: span by span, in parallel, resumable.

A *span* is the lines that begin in one range of the file's bytes. Each becomes one Arrow file
(IPC, which every Arrow reader opens and memory-maps). A small JSON file beside the shards records
which spans are done and the digest of the bytes they came from; so work that was interrupted goes
on where it was, and where the input changed only the spans that changed are made again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from bagformer_cli.data.muge_lines import read_lines
from bagformer_cli.data.workers import Workers, run_jobs
from bagformer_cli.errors import DataError
from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

_BATCH_BYTES = 4 << 20  # input bytes in one record batch: what a worker holds in memory


@dataclass(frozen=True, slots=True)
class Kind:
    """How the lines of one kind of file become rows.

    Args:
        name: Of the shards and of the record beside them.
        schema: Of the shards.
        row: One line to one value a column; it must be importable, as workers run it.
        span_bytes: The length of a span.
    """

    name: str
    schema: pa.Schema
    row: Callable[[bytes], Sequence[Any]]
    span_bytes: int


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span: its number, rows, and the SHA-256 of the lines it came from."""

    number: int
    rows: int
    sha256: str


@dataclass
class Record:
    """What is known of a conversion, kept as JSON beside its shards.

    Args:
        stamp: Size and times of the source when it was read.
        span_bytes: The length of a span.
        spans: The finished ones, by number.
        done: All spans are finished, and the whole was checked.
    """

    stamp: list[int] = field(default_factory=list)
    span_bytes: int = 0
    spans: dict[int, Span] = field(default_factory=dict)
    done: bool = False

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read it; a missing or unreadable file is an empty record."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            spans = [Span(**span) for span in values["spans"]]
            return cls(
                values["stamp"],
                values["span_bytes"],
                {span.number: span for span in spans},
                values["done"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        spans = [asdict(self.spans[number]) for number in sorted(self.spans)]
        values = {
            "stamp": self.stamp,
            "span_bytes": self.span_bytes,
            "done": self.done,
            "spans": spans,
        }
        write_text(path, json.dumps(values))

    @property
    def digest(self) -> str:
        """Stands for the whole content of the source."""
        parts = "".join(self.spans[number].sha256 for number in sorted(self.spans))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def stamp(path: Path) -> list[int]:
    """Size and times of a file: equal stamps mean that nobody wrote to it."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def record_path(folder: Path, kind: Kind) -> Path:
    """Where the record of a conversion is."""
    return folder / f"{kind.name}.json"


def shard_path(folder: Path, name: str, number: int) -> Path:
    """Where a span's shard is."""
    return folder / f"{name}-{number:05}.arrow"


def current(source: Path, folder: Path, kind: Kind) -> str | None:
    """The digest of a conversion that is done and whose source has not changed; else None."""
    record = Record.load(record_path(folder, kind))
    if not record.done or record.span_bytes != kind.span_bytes:
        return None
    now = stamp(source)
    same = record.stamp == now or (
        record.stamp[0] == now[0]
        and all(_unchanged(source, kind, span) for span in record.spans.values())
    )
    return record.digest if same else None


def convert(
    source: Path,
    folder: Path,
    kind: Kind,
    check: Callable[[Path], None],
    *,
    workers: Workers = 1,
    progress: Progress = SILENT,
    description: str = "",
) -> Record:
    """Bring the shards of ``source`` in ``folder`` up to date.

    Args:
        source: The text file.
        folder: Where the shards go.
        kind: How lines become rows.
        check: Called with the folder when all shards stand, before the work counts as done.
        workers: Processes that work at the same time, or a Ray cluster.
        progress: Where to report.
        description: What to call the work there.

    Raises:
        DataError: A line is broken (the error names it), or the file changed meanwhile.
    """
    path = record_path(folder, kind)
    record = Record.load(path)
    before = stamp(source)
    if record.span_bytes != kind.span_bytes:
        record = Record()
    elif record.stamp != before:
        same = record.stamp[:1] == before[:1] and record.done
        record.spans = {
            n: span for n, span in record.spans.items() if _unchanged(source, kind, span)
        }
        record.done = same and len(record.spans) == _count(before[0], kind)
    record.stamp, record.span_bytes = before, kind.span_bytes
    record.spans = {
        n: s for n, s in record.spans.items() if shard_path(folder, kind.name, n).exists()
    }
    count = _count(before[0], kind)
    _remove_others(folder, kind, count)
    missing = [number for number in range(count) if number not in record.spans]
    record.done = record.done and not missing
    record.save(path)
    if record.done:
        return record
    with progress.task(description, total=_megabytes(before[0]), unit="MB") as task:
        task.advance(_megabytes(sum(_length(n, before[0], kind) for n in record.spans)))
        make = partial(_make_span, source, folder, kind)
        for span in run_jobs(make, missing, workers):
            record.spans[span.number] = span
            record.save(path)
            task.advance(_megabytes(_length(span.number, before[0], kind)))
    if stamp(source) != before:
        raise DataError(
            tr("The file was changed while it was read."),
            where=source,
            hint=tr("Run the command again; what did not change is not read again."),
        )
    check(folder)
    record.done = True
    record.save(path)
    return record


def line_at(source: Path, offset: int) -> int:
    """The number (from 1) of the line that begins at ``offset``."""
    line = 1
    with open(source, "rb") as stream:
        while offset > 0 and (chunk := stream.read(min(offset, 1 << 20))):
            line += chunk.count(b"\n")
            offset -= len(chunk)
    return line


def _make_span(source: Path, folder: Path, kind: Kind, number: int) -> Span:
    digest = hashlib.sha256()
    rows = 0
    path = shard_path(folder, kind.name, number)
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, kind.schema) as writer,
    ):
        for lines in _batched(_span_lines(source, kind, number)):
            table = []
            for raw, begin in lines:
                digest.update(raw)
                digest.update(b"\n")
                try:
                    table.append(kind.row(raw))
                except DataError as error:
                    error.where = f"{source}:{line_at(source, begin)}"
                    raise
            columns = zip(*table, strict=True)
            arrays = [pa.array(c, t) for c, t in zip(columns, kind.schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=kind.schema))
            rows += len(table)
    return Span(number, rows, digest.hexdigest())


def _unchanged(source: Path, kind: Kind, span: Span) -> bool:
    digest = hashlib.sha256()
    for raw, _ in _span_lines(source, kind, span.number):
        digest.update(raw)
        digest.update(b"\n")
    return digest.hexdigest() == span.sha256


def _span_lines(source: Path, kind: Kind, number: int) -> Iterator[tuple[bytes, int]]:
    """The lines of a span and the offset where each begins."""
    start = number * kind.span_bytes
    return read_lines(source, start, start + kind.span_bytes)


def _batched(lines: Iterable[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    batch: list[tuple[bytes, int]] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line[0])
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _count(size: int, kind: Kind) -> int:
    return math.ceil(size / kind.span_bytes)


def _length(number: int, size: int, kind: Kind) -> int:
    return min(kind.span_bytes, size - number * kind.span_bytes)


def _megabytes(size: int) -> int:
    return max(1, round(size / 2**20)) if size else 0


def _remove_others(folder: Path, kind: Kind, count: int) -> None:
    """Remove shards beyond the last span and what a killed run left unfinished."""
    wanted = {shard_path(folder, kind.name, number).name for number in range(count)}
    for path in [*folder.glob(f"{kind.name}-*.arrow"), *folder.glob(f".{kind.name}*.part")]:
        if path.name not in wanted:
            path.unlink(missing_ok=True)
