"""Every broken line of a dataset, and what is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagformer_cli.data.images import verify
from bagformer_cli.data.muge import SPLITS, MugeFolder, needs_items
from bagformer_cli.data.muge_lines import parse_image_line, parse_query_line, read_lines, repeated
from bagformer_cli.data.workers import run_jobs
from bagformer_cli.errors import DataError
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

_SPAN = 16 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken line, or a missing file (line 0)."""

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
    """What a split holds, its broken lines left out."""

    queries: int
    images: int
    pairs: int
    images_without_query: int
    queries_without_image: int
    queries_with_several_images: int
    longest_query: int


@dataclass
class Report:
    """What :func:`check_folder` found."""

    folder: str
    naming: str
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is broken."""
        return not self.problems


@dataclass
class _Found:
    """The good records of some lines, and the errors of the others; lines count from 0."""

    lines: int = 0
    ids: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    items: list[tuple[int, ...]] = field(default_factory=list)
    longest: int = 0
    errors: list[tuple[int, DataError]] = field(default_factory=list)


def check_folder(folder: MugeFolder, workers: int = 1, progress: Progress = SILENT) -> Report:
    """Read every line and decode every image of a dataset.

    Args:
        folder: The dataset.
        workers: Processes that decode images at the same time.
        progress: Where to report.

    Returns:
        All problems, in the order of files and lines, and a summary of each split.
    """
    report = Report(str(folder.path), folder.naming)
    for split in SPLITS:
        queries, images = folder.queries_path(split), folder.images_path(split)
        if not queries.exists() and not images.exists():
            continue
        for path, other in ((queries, images), (images, queries)):
            if not path.exists():
                message = tr("The file is missing, but {other} is there.", other=other.name)
                report.problems.append(Problem(str(path), 0, message))
        _check_split(report, split, queries, images, workers, progress)
    return report


def _check_split(
    report: Report, split: str, queries: Path, images: Path, workers: int, progress: Progress
) -> None:
    found_queries = _Found()
    if queries.exists():
        with progress.task(queries.name) as task:
            parse = partial(_query, items=needs_items(queries))
            found_queries = _scan(parse, queries, (0, None))
            task.advance(found_queries.lines)
        _settle(report, queries, found_queries)
    found_images = _Found()
    if images.exists():
        size = images.stat().st_size
        ranges = [(begin, begin + _SPAN) for begin in range(0, size, _SPAN)]
        with progress.task(images.name, len(ranges) * (_SPAN >> 20), "MB") as task:
            for part in run_jobs(partial(_scan, _image, images), ranges, workers):
                _join(found_images, part)
                task.advance(_SPAN >> 20, broken=len(found_images.errors))
        _settle(report, images, found_images)
    known = set(found_images.ids)
    named: set[int] = set()
    for line, items in zip(found_queries.at, found_queries.items, strict=True):
        named.update(items)
        missing = [item for item in items if item not in known]
        if missing and images.exists():
            message = tr("The query names an image that is not in the images file.")
            shown = ", ".join(map(str, missing[:10]))
            report.problems.append(Problem(str(queries), line + 1, message, shown))
    counts: NDArray[np.int64] = np.array([len(i) for i in found_queries.items], np.int64)
    report.splits[split] = SplitSummary(
        queries=len(found_queries.ids),
        images=len(found_images.ids),
        pairs=int(counts.sum()),
        images_without_query=len(known - named),
        queries_without_image=int((counts == 0).sum()),
        queries_with_several_images=int((counts > 1).sum()),
        longest_query=found_queries.longest,
    )


def _settle(report: Report, path: Path, found: _Found) -> None:
    """Find repeated ids; bring all errors into the report in the order of their lines."""
    first: dict[int, int] = {}
    keep = []
    for place, (number, line) in enumerate(zip(found.ids, found.at, strict=True)):
        if first.setdefault(number, line) == line:
            keep.append(place)
        else:
            found.errors.append((line, repeated(number, first[number] + 1)))
    if len(keep) < len(found.ids):
        found.ids = [found.ids[i] for i in keep]
        found.at = [found.at[i] for i in keep]
        found.items = [found.items[i] for i in keep]
    for line, error in sorted(found.errors, key=lambda pair: pair[0]):
        report.problems.append(Problem(str(path), line + 1, error.message, error.found))


def _join(whole: _Found, part: _Found) -> None:
    whole.ids += part.ids
    whole.at += [line + whole.lines for line in part.at]
    whole.items += part.items
    whole.errors += [(line + whole.lines, error) for line, error in part.errors]
    whole.lines += part.lines


def _scan(
    parse: Callable[[bytes], tuple[int, tuple[int, ...], int]],
    path: Path,
    span: tuple[int, int | None],
) -> _Found:
    """The lines that begin in a range of a file's bytes."""
    found = _Found()
    for raw, _ in read_lines(path, *span):
        try:
            number, items, length = parse(raw)
        except DataError as error:
            found.errors.append((found.lines, error))
        else:
            found.ids.append(number)
            found.at.append(found.lines)
            found.items.append(items)
            found.longest = max(found.longest, length)
        found.lines += 1
    return found


def _image(raw: bytes) -> tuple[int, tuple[int, ...], int]:
    image_id, data = parse_image_line(raw)
    verify(data, pixels=True)
    return image_id, (), 0


def _query(raw: bytes, *, items: bool) -> tuple[int, tuple[int, ...], int]:
    query = parse_query_line(raw, items=items)
    return query.query_id, query.item_ids, len(query.text)
