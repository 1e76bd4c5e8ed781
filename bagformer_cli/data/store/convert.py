"""Convert a large text file to Arrow shards: in parallel, and resumable after an interruption.

The file is divided into byte ranges; the lines of range 3 become ``images-00003.arrow`` (Arrow IPC,
which readers memory-map). A record next to the shards lists the finished ones, each with the
SHA-256 of the lines that it was made from, and the lines that were left out::

    images.json   {"stamp": [size, mtime, ctime], "span_bytes": 134217728, "done": false,
                   "spans": [{"number": 0, "rows": 1023, "sha256": "…", "bytes": 98304,
                              "left_out": [[17, 40404, "The image is broken …"]]}, …]}

After an interruption only missing shards are made. After a change of the file only shards whose
lines changed are made again. Shards that are damaged are found when the store is opened, and made
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from bagformer_cli.data.byte_ranges import ByteRange, Line, byte_ranges, file_stamp, line_number
from bagformer_cli.data.store.split import read_batches
from bagformer_cli.data.workers import Workers, run_jobs
from bagformer_cli.errors import DataError
from bagformer_cli.files import atomic_file, is_read_only, write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress


class LineLeftOutError(Exception):
    """Raised by a line format for a line that costs only itself.

    Args:
        key: Id of the record.
        reason: The fault, for a message.
    """

    def __init__(self, key: int, reason: DataError) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason


_BATCH_BYTES = 4 << 20  # input bytes of one record batch; bounds the memory of a worker


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A kind of text file, and the rows that its lines become.

    Args:
        name: Prefix of the shards and name of their record: ``images``, ``queries``.
        schema: Schema of the shards.
        parse: Parses a line (without its end) to one value per column. Workers import it by name.
            It raises :class:`LineLeftOutError` for a line to leave out, ``DataError`` to stop.
        range_bytes: Bytes of the file per shard.
    """

    name: str
    schema: pa.Schema
    parse: Callable[[bytes], Sequence[Any]]
    range_bytes: int

    def shard_path(self, folder: Path, number: int) -> Path:
        """Path of one shard."""
        return folder / f"{self.name}-{number:05}.arrow"


class LeftOut(NamedTuple):
    """A line without a row.

    Args:
        line: Its number, counted from 1 (in a shard: from 0, within the shard's lines).
        key: Id of the record.
        reason: The fault, for a message.
    """

    line: int
    key: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard.

    Args:
        number: Its number.
        rows: Its rows.
        sha256: SHA-256 of the lines that it was made from.
        bytes: Size of its file.
        left_out: Lines of its byte range that have no row.
        blank: Runs of blank lines: number of the first, counted from 0 in the shard, and length.
    """

    number: int
    rows: int
    sha256: str
    bytes: int
    left_out: list[LeftOut] = field(default_factory=list)
    blank: list[tuple[int, int]] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """Lines of its byte range."""
        return self.rows + len(self.left_out) + sum(length for _, length in self.blank)


@dataclass
class ConversionRecord:
    """The state of a conversion, stored as JSON next to its shards (keys: see the module).

    Args:
        stamp: Size and times of the source when it was read.
        range_bytes: Bytes of the source per shard.
        shards: The finished shards by number.
        done: All shards are finished and the whole passed its check.
        made: Number of shards that were made now; not stored.
    """

    stamp: list[int] = field(default_factory=list)
    range_bytes: int = 0
    shards: dict[int, Shard] = field(default_factory=dict)
    done: bool = False
    made: int = 0

    @classmethod
    def load(cls, path: Path) -> ConversionRecord:
        """Read a record; a missing or unreadable file gives an empty one."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            shards = [
                Shard(
                    **{
                        **shard,
                        "left_out": [LeftOut(*line) for line in shard["left_out"]],
                        "blank": [(first, length) for first, length in shard.get("blank", [])],
                    }
                )
                for shard in values["spans"]
            ]
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

    @property
    def left_out(self) -> list[LeftOut]:
        """The lines of the whole source that have no row, in order."""
        found = []
        first = 1
        for number in sorted(self.shards):
            shard = self.shards[number]
            found += [line._replace(line=first + line.line) for line in shard.left_out]
            first += shard.lines
        return found

    def line_of(self, row: int) -> int:
        """Find the line, counted from 1, of a row of all shards, counted from 0."""
        line, first = row + 1, 1
        for number in sorted(self.shards):
            shard = self.shards[number]
            gaps = sorted([*shard.blank, *((left.line, 1) for left in shard.left_out)])
            for begin, length in gaps:
                line += length if first + begin <= line else 0
            first += shard.lines
        return line


def convert(
    source: Path,
    folder: Path,
    lines: LineFormat,
    check: Callable[[Path, ConversionRecord], None],
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
        check: Called with the folder and the record once all shards exist; the conversion counts
            as done only if it raises nothing.
        workers: Number of processes, or a Ray cluster.
        progress: Receives the megabytes that are done, and a remark about damaged shards.
        description: Name of the task in the progress display.

    Raises:
        DataError: A line is broken (the error names it), or the file changed during the work.
    """
    path = folder / f"{lines.name}.json"
    record = ConversionRecord.load(path)
    before, recorded = file_stamp(source), record.stamp
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
        if _is_sound(lines.shard_path(folder, number), shard, lines.schema, progress)
    }
    _remove_others(folder, lines, len(ranges))
    missing = [number for number in range(len(ranges)) if number not in record.shards]
    record.done = record.done and not missing
    if record.done:
        if record.stamp != recorded:
            try:
                record.save(path)  # spares the next run the comparison of contents
            except OSError as error:
                if not is_read_only(error):
                    raise
        return record
    record.save(path)
    with progress.task(description, total=_megabytes(ranges), amount=tr("{n} MB", n="{n}")) as task:
        task.advance(_megabytes([ranges[number] for number in record.shards]))
        jobs = [(number, ranges[number]) for number in missing]
        for shard in run_jobs(partial(_make_shard, folder, lines), jobs, workers):
            record.shards[shard.number] = shard
            record.made += 1
            record.save(path)
            task.advance(_megabytes([ranges[shard.number]]))
    if file_stamp(source) != before:
        raise DataError(
            tr("The file was changed while it was read."),
            where=source,
            hint=tr("Run the command again; unchanged parts are not read again."),
        )
    check(folder, record)
    record.done = True
    record.save(path)
    return record


def _make_shard(folder: Path, lines: LineFormat, job: tuple[int, ByteRange]) -> Shard:
    """Write the shard of one byte range; runs in any process."""
    number, part = job
    digest = hashlib.sha256()
    rows = 0
    left_out: list[LeftOut] = []
    blank: list[tuple[int, int]] = []
    blanks = 0
    path = lines.shard_path(folder, number)
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, lines.schema) as writer,
    ):
        for batch in _batched(part.lines(skip_blank_end=True)):
            table: list[Sequence[Any]] = []
            for line in batch:
                _add(digest, line)
                place = rows + len(table) + len(left_out) + blanks
                if line.blank:
                    if blank and sum(blank[-1]) == place:
                        blank[-1] = (blank[-1][0], blank[-1][1] + 1)
                    else:
                        blank.append((place, 1))
                    blanks += 1
                    continue
                try:
                    table.append(lines.parse(line.content))
                except LineLeftOutError as error:
                    left_out.append(LeftOut(place, error.key, str(error.reason)))
                except DataError as error:
                    error.where = f"{part.path}:{line_number(part.path, line.begin)}"
                    raise
            columns = zip(*table, strict=True) if table else [[]] * len(lines.schema)
            arrays = [pa.array(c, t) for c, t in zip(columns, lines.schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=lines.schema))
            rows += len(table)
    return Shard(number, rows, digest.hexdigest(), path.stat().st_size, left_out, blank)


def _is_sound(path: Path, shard: Shard, schema: pa.Schema, progress: Progress) -> bool:
    """Say whether a shard can be used; warn if its file exists and is damaged."""
    if not path.exists():
        return False
    try:
        batches = read_batches(path)
        if path.stat().st_size == shard.bytes and sum(b.num_rows for b in batches) == shard.rows:
            return all(batch.schema.equals(schema) for batch in batches)
    except (DataError, OSError):
        pass
    progress.warn(tr("A file of the preprocessed dataset is damaged; it is made again: {path}",
                     path=path))  # fmt: skip
    return False


def _sha256(part: ByteRange) -> str:
    digest = hashlib.sha256()
    for line in part.lines(skip_blank_end=True):
        _add(digest, line)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, line: Line) -> None:
    # Line ends count as \n: a file copied between systems is still the same file.
    digest.update(line.raw.rstrip(b"\r\n"))
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
