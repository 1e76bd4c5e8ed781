"""Convert a large text file to Arrow shards: in parallel, and resumable after an interruption.

The file is divided into byte ranges; the lines of range 3 become ``images-00003.arrow`` (Arrow IPC,
which readers memory-map). A record next to the shards lists the finished ones, each with the
SHA-256 of the lines that it was made from::

    images.json   {"stamp": [size, mtime, ctime], "span_bytes": 134217728, "done": false,
                   "spans": [{"number": 0, "rows": 1024, "sha256": "…"}, …]}

After an interruption only missing shards are made. After a change of the file only shards whose
lines changed are made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from bagformer_cli.data.byte_ranges import ByteRange, Line, byte_ranges, file_stamp, line_number
from bagformer_cli.data.workers import Workers, run_jobs
from bagformer_cli.errors import DataError
from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

_BATCH_BYTES = 4 << 20  # input bytes of one record batch; bounds the memory of a worker


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A kind of text file, and the rows that its lines become.

    Args:
        name: Prefix of the shards and name of their record: ``images``, ``queries``.
        schema: Schema of the shards.
        parse: Parses a line (without its end) to one value per column. Workers import it by name.
        range_bytes: Bytes of the file per shard.
    """

    name: str
    schema: pa.Schema
    parse: Callable[[bytes], Sequence[Any]]
    range_bytes: int

    def shard_path(self, folder: Path, number: int) -> Path:
        """Path of one shard."""
        return folder / f"{self.name}-{number:05}.arrow"


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard: its number, its rows, and the SHA-256 of the lines it was made from."""

    number: int
    rows: int
    sha256: str


@dataclass
class ConversionRecord:
    """The state of a conversion, stored as JSON next to its shards (keys: see the module).

    Args:
        stamp: Size and times of the source when it was read.
        range_bytes: Bytes of the source per shard.
        shards: The finished shards by number.
        done: All shards are finished and the whole passed its check.
    """

    stamp: list[int] = field(default_factory=list)
    range_bytes: int = 0
    shards: dict[int, Shard] = field(default_factory=dict)
    done: bool = False

    @classmethod
    def load(cls, path: Path) -> ConversionRecord:
        """Read a record; a missing or unreadable file gives an empty one."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            shards = [Shard(**shard) for shard in values["spans"]]
            return cls(
                values["stamp"],
                values["span_bytes"],
                {shard.number: shard for shard in shards},
                values["done"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        """Write the record; the file appears only when it is complete."""
        values = {
            "stamp": self.stamp,
            "span_bytes": self.range_bytes,
            "done": self.done,
            "spans": [asdict(self.shards[number]) for number in sorted(self.shards)],
        }
        write_text(path, json.dumps(values))

    @property
    def digest(self) -> str:
        """A digest of the whole source: 16 hex digits."""
        parts = "".join(self.shards[number].sha256 for number in sorted(self.shards))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


def convert(
    source: Path,
    folder: Path,
    lines: LineFormat,
    check: Callable[[Path], None],
    *,
    workers: Workers = 1,
    progress: Progress = SILENT,
    description: str = "",
) -> ConversionRecord:
    """Bring the shards of ``source`` in ``folder`` up to date.

    Args:
        source: The text file.
        folder: Folder of the shards.
        lines: How lines become rows.
        check: Called with the folder once all shards exist; the conversion counts as done only if
            it raises nothing.
        workers: Number of processes, or a Ray cluster.
        progress: Receives the megabytes that are done.
        description: Name of the task in the progress display.

    Raises:
        DataError: A line is broken (the error names it), or the file changed during the work.
    """
    path = folder / f"{lines.name}.json"
    record = ConversionRecord.load(path)
    before = file_stamp(source)
    ranges = byte_ranges(source, lines.range_bytes)
    if record.range_bytes != lines.range_bytes:
        record = ConversionRecord()
    elif record.stamp != before:
        # The file was written to, or only touched or copied: compare contents, shard by shard.
        same_size = record.stamp[:1] == before[:1]
        record.shards = {
            number: shard
            for number, shard in record.shards.items()
            if number < len(ranges) and _sha256(ranges[number]) == shard.sha256
        }
        record.done = record.done and same_size and len(record.shards) == len(ranges)
    record.stamp, record.range_bytes = before, lines.range_bytes
    record.shards = {
        number: shard
        for number, shard in record.shards.items()
        if lines.shard_path(folder, number).exists()
    }
    _remove_others(folder, lines, len(ranges))
    missing = [number for number in range(len(ranges)) if number not in record.shards]
    record.done = record.done and not missing
    record.save(path)
    if record.done:
        return record
    with progress.task(description, total=_megabytes(ranges), unit="MB") as task:
        task.advance(_megabytes([ranges[number] for number in record.shards]))
        jobs = [(number, ranges[number]) for number in missing]
        for shard in run_jobs(partial(_make_shard, folder, lines), jobs, workers):
            record.shards[shard.number] = shard
            record.save(path)
            task.advance(_megabytes([ranges[shard.number]]))
    if file_stamp(source) != before:
        raise DataError(
            tr("The file was changed while it was read."),
            where=source,
            hint=tr("Run the command again; unchanged parts are not read again."),
        )
    check(folder)
    record.done = True
    record.save(path)
    return record


def _make_shard(folder: Path, lines: LineFormat, job: tuple[int, ByteRange]) -> Shard:
    """Write the shard of one byte range; runs in any process."""
    number, part = job
    digest = hashlib.sha256()
    rows = 0
    with (
        atomic_file(lines.shard_path(folder, number)) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, lines.schema) as writer,
    ):
        for batch in _batched(part.lines(skip_blank_end=True)):
            table = []
            for line in batch:
                _add(digest, line)
                try:
                    table.append(lines.parse(line.content))
                except DataError as error:
                    error.where = f"{part.path}:{line_number(part.path, line.begin)}"
                    raise
            columns = zip(*table, strict=True)
            arrays = [pa.array(c, t) for c, t in zip(columns, lines.schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=lines.schema))
            rows += len(table)
    return Shard(number, rows, digest.hexdigest())


def _sha256(part: ByteRange) -> str:
    digest = hashlib.sha256()
    for line in part.lines(skip_blank_end=True):
        _add(digest, line)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, line: Line) -> None:
    # Line ends count as \n: a file copied between systems is still the same file.
    digest.update(line.content)
    digest.update(b"\n")


def _batched(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line.raw)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _megabytes(ranges: Iterable[ByteRange]) -> int:
    size = sum((part.end or 0) - part.begin for part in ranges)
    return max(1, round(size / 2**20)) if size else 0


def _remove_others(folder: Path, lines: LineFormat, count: int) -> None:
    """Remove shards after the last range, and unfinished files of a killed run."""
    wanted = {lines.shard_path(folder, number).name for number in range(count)}
    for path in [*folder.glob(f"{lines.name}-*.arrow"), *folder.glob(f".{lines.name}*.part")]:
        if path.name not in wanted:
            path.unlink(missing_ok=True)
