"""Check a dataset: list every broken line, and summarise what each split holds.

The images file is read in byte ranges by several processes; each returns the ids that it read and
the errors, by line. Ids are compared in this process, since a repeated id may be in another range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.byte_ranges import ByteRange, byte_ranges
from bagformer_cli.data.images import verify
from bagformer_cli.data.muge import SPLITS, MugeFolder, may_omit_items
from bagformer_cli.data.muge_lines import (
    decode_base64,
    parse_query_line,
    repeated,
    split_image_line,
)
from bagformer_cli.data.workers import run_jobs
from bagformer_cli.errors import DataError, joined, listed
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

RANGE_BYTES = 16 << 20
"""Bytes of an images file per job."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A broken line, or a missing file (``line`` is 0)."""

    file: str
    line: int
    message: str
    found: str | None = None

    @property
    def where(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """Counts of a split, without its broken lines; ``longest_query`` is in characters.

    If the answers are hidden, because no query names an image, what depends on them is None.
    """

    queries: int
    images: int
    pairs: int | None
    images_without_query: int | None
    queries_without_image: int | None
    queries_with_several_images: int | None
    longest_query: int
    answers_hidden: bool = False


@dataclass
class Report:
    """The result of :func:`check_folder`."""

    folder: str
    naming: str
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing is broken."""
        return not self.problems


@dataclass
class _Records:
    """The good records of a file or a byte range, and the errors of the other lines.

    ``ids``, ``at`` and ``items`` are parallel: record k has id ``ids[k]``, is on line ``at[k]``
    (counted from 0) and names the images ``items[k]``. ``broken`` are the ids of broken images.
    """

    lines: int = 0
    ids: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    items: list[tuple[int, ...]] = field(default_factory=list)
    longest: int = 0
    broken: list[int] = field(default_factory=list)
    errors: list[tuple[int, DataError]] = field(default_factory=list)

    def extend(self, part: _Records) -> None:
        """Append the records of the next byte range."""
        self.ids += part.ids
        self.at += [line + self.lines for line in part.at]
        self.items += part.items
        self.broken += part.broken
        self.errors += [(line + self.lines, error) for line, error in part.errors]
        self.lines += part.lines

    def drop_repeated(self) -> None:
        """Keep the first record of each id; the others become errors."""
        first: dict[int, int] = {}
        keep = []
        for k, (number, line) in enumerate(zip(self.ids, self.at, strict=True)):
            if first.setdefault(number, line) == line:
                keep.append(k)
            else:
                self.errors.append((line, repeated(number, first[number] + 1)))
        if len(keep) < len(self.ids):
            self.ids = [self.ids[k] for k in keep]
            self.at = [self.at[k] for k in keep]
            self.items = [self.items[k] for k in keep]


def check_folder(folder: MugeFolder, workers: int = 1, progress: Progress = SILENT) -> Report:
    """Read every line and decode every image of a dataset.

    Args:
        folder: The dataset.
        workers: Number of processes that decode images.
        progress: Receives what is done.

    Returns:
        All problems, in the order of files and lines, and a summary of each split.
    """
    report = Report(str(folder.path), folder.naming)
    for split in SPLITS:
        queries_path, images_path = folder.queries_path(split), folder.images_path(split)
        if not queries_path.exists() and not images_path.exists():
            continue
        for path, other in ((queries_path, images_path), (images_path, queries_path)):
            if not path.exists():
                message = tr("The file is missing; only {other} exists.", other=other.name)
                report.problems.append(Problem(str(path), 0, message))
        queries, images = _Records(), _Records()
        if queries_path.exists():
            queries = _read_queries(queries_path, progress)
            _report_errors(report, queries_path, queries)
        if images_path.exists():
            images = _read_images(images_path, workers, progress)
            _report_errors(report, images_path, images)
            _report_missing_images(report, queries_path, queries, images)
        report.splits[split] = _summary(queries, images)
    return report


def _read_queries(path: Path, progress: Progress) -> _Records:
    with progress.task(path.name) as task:
        records = _read_range(_query(path), ByteRange(path))
        task.advance(records.lines)
    return records


def _read_images(path: Path, workers: int, progress: Progress) -> _Records:
    records = _Records()
    ranges = byte_ranges(path, RANGE_BYTES)
    with progress.task(path.name, len(ranges) * (RANGE_BYTES >> 20), tr("{n} MB", n="{n}")) as task:
        for part in run_jobs(partial(_read_range, _image), ranges, workers):
            records.extend(part)
            broken = len(records.errors)
            task.advance(RANGE_BYTES >> 20, **({tr("broken lines"): broken} if broken else {}))
    return records


def _report_errors(report: Report, path: Path, records: _Records) -> None:
    """Add all errors of a file to the report, in the order of its lines."""
    records.drop_repeated()
    for line, error in sorted(records.errors, key=lambda pair: pair[0]):
        report.problems.append(Problem(str(path), line + 1, error.message, error.found))


def _report_missing_images(report: Report, path: Path, queries: _Records, images: _Records) -> None:
    """Add the queries that name broken images, or images that do not exist, to the report."""
    known, broken = set(images.ids), set(images.broken)
    for line, items in zip(queries.at, queries.items, strict=True):
        others = [item for item in items if item not in known]
        for message, named in (
            (
                tr("The query names an image that is not in the images file."),
                [item for item in others if item not in broken],
            ),
            (
                tr("The query names a broken image."),
                [item for item in others if item in broken],
            ),
        ):
            if named:
                some = listed(named[:10])
                report.problems.append(Problem(str(path), line + 1, message, some))


def _summary(queries: _Records, images: _Records) -> SplitSummary:
    counts: NDArray[np.int64] = np.array([len(items) for items in queries.items], np.int64)
    named = {item for items in queries.items for item in items}
    if queries.ids and not named:
        return SplitSummary(
            queries=len(queries.ids),
            images=len(images.ids),
            pairs=None,
            images_without_query=None,
            queries_without_image=None,
            queries_with_several_images=None,
            longest_query=queries.longest,
            answers_hidden=True,
        )
    return SplitSummary(
        queries=len(queries.ids),
        images=len(images.ids),
        pairs=int(counts.sum()),
        images_without_query=len(set(images.ids) - named),
        queries_without_image=int((counts == 0).sum()),
        queries_with_several_images=int((counts > 1).sum()),
        longest_query=queries.longest,
    )


_Parse = Callable[[bytes], tuple[int, tuple[int, ...], int]]
"""Parses a line to (id, ids of the images it names, length of its text)."""


class _BrokenImageError(Exception):
    """An image with a valid id whose content cannot be decoded."""

    def __init__(self, image_id: int, reason: DataError) -> None:
        super().__init__(image_id, reason)
        self.image_id, self.reason = image_id, reason


def _read_range(parse: _Parse, part: ByteRange) -> _Records:
    """Parse the lines of one byte range that are not blank; runs in any process."""
    records = _Records()
    for line in part.lines():
        records.lines += 1
        if line.blank:
            continue
        at = records.lines - 1
        try:
            number, items, length = parse(line.content)
        except _BrokenImageError as broken:
            records.errors.append((at, broken.reason))
            records.broken.append(broken.image_id)
        except DataError as error:
            records.errors.append((at, error))
        else:
            records.ids.append(number)
            records.at.append(at)
            records.items.append(items)
            records.longest = max(records.longest, length)
    return records


def _image(raw: bytes) -> tuple[int, tuple[int, ...], int]:
    image_id, payload = split_image_line(raw)
    try:
        verify(decode_base64(payload))
    except DataError as error:
        error.found = joined(filter(None, (tr("image {id}", id=image_id), error.found)))
        raise _BrokenImageError(image_id, error) from None
    return image_id, (), 0


def _query(path: Path) -> _Parse:
    items = not may_omit_items(path)

    def parse(raw: bytes) -> tuple[int, tuple[int, ...], int]:
        query = parse_query_line(raw, items=items)
        return query.query_id, query.item_ids, len(query.text)

    return parse
