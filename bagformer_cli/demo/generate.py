"""Draw the demo set on all cores and write it in MUGE form.

    plan.py     decides which things are in which image, and what each query names
    titles.py   writes titles and queries
    scene.py    draws an image: background, things, shadows
    kinds*.py   draw one thing each, with canvas.py (shapes) and palette.py (colours, patterns)
    this file   draws in parallel and writes the files; none appears before all are complete

Every image has its own random numbers, drawn from (seed, split, position). So the files do not
depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from bagformer_cli.data.attributes import FILE_NAME, header_line, record_line
from bagformer_cli.data.muge import (
    SPLITS,
    MugeImageWriter,
    Query,
    naming_of,
    queries_last,
    split_files,
    write_queries,
)
from bagformer_cli.data.workers import end_with_parent
from bagformer_cli.demo.kinds import KINDS
from bagformer_cli.demo.palette import COLOURS, PATTERNS
from bagformer_cli.demo.plan import (
    Pictures,
    PlannedQuery,
    hold_out,
    plan_pictures,
    plan_queries,
    split_sizes,
    thing_of,
)
from bagformer_cli.demo.scene import PICTURE, Item, draw_picture
from bagformer_cli.errors import InputError, listed
from bagformer_cli.files import is_empty, new_files
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress, Task

DRAWN_IMAGE = "image.jpg"
"""A drawn image that ``xmr demo`` writes next to ``data/``, to be scored and searched with."""

FEWEST_IMAGES = 60
FIRST_IMAGE_ID = 1_000_001
NAMES = {
    "kind": {kind.key: kind.name for kind in KINDS},
    "colour": {colour.key: colour.name for colour in COLOURS},
    "pattern": {pattern.key: pattern.name for pattern in PATTERNS},
}
"""Names to show for the keys in ``attributes.jsonl``."""

_CHUNK = 32  # images per job

_Job = tuple[int, str, int, list[list[Item]], int]
"""Seed, split, position of the first image, things of each image, side in pixels."""


def draw_once(folder: Path, progress: Progress = SILENT) -> Path:
    """Draw the demo set unless the folder already holds a dataset; return the folder.

    Raises:
        InputError: The folder holds something else, or a demo set that an older version of this
            program left half drawn.
    """
    if not folder.is_dir() or naming_of(folder) is None:
        write_demo(folder, progress=progress)
    images = [split_files(folder, split, "query")[1] for split in SPLITS]
    if naming_of(folder) == "query" and not any(map(Path.is_file, (*images, folder / FILE_NAME))):
        raise InputError(
            tr("The demo set is not complete: drawing it was interrupted."),
            where=folder,
            found=tr("missing: {names}", names=listed(path.name for path in images)),
            hint=tr("Delete this folder; the next command draws it again."),
        )
    return folder


def write_demo(
    out: str | Path,
    images: int = 3000,
    seed: int = 0,
    workers: int | None = None,
    *,
    size: int = PICTURE,
    progress: Progress = SILENT,
) -> None:
    """Draw the demo set and write it as MUGE files, with ``attributes.jsonl``.

    Equal ``images``, ``seed`` and ``size`` give equal files, whatever the number of workers.

    Args:
        out: The folder; created if needed.
        images: Number of images in all splits: two thirds are training, the rest validation and
            test.
        seed: Random seed of everything that is drawn and written.
        workers: Number of processes that draw; None: one per core; 1: this process alone.
        size: Side of an image in pixels, 32 to 256.
        progress: Receives the number of images drawn.

    Raises:
        InputError: ``images`` or ``size`` is out of range, or the folder is not empty.
        DiskFullError: The disk is full; no file of the set was written.
    """
    out = Path(out)
    check_request(out, images, size)
    held = hold_out(seed)
    with new_dataset(out, images, seed, workers, progress) as drawing:
        for split, count in split_sizes(images).items():
            pictures = plan_pictures(split, count, held, seed)
            for _ in drawing.images(split, pictures, split, size):
                pass
            drawing.queries(split, pictures, plan_queries(split, pictures, seed))


class Drawing:
    """A dataset that is being drawn: gives numbers to images and queries and writes their files.

    Args:
        folder: The folder of the files.
        listing: ``attributes.jsonl``.
        pool: Processes that draw; None: this process.
        workers: How many.
        task: Receives the number of images drawn.
        seed: Random seed of the images.
    """

    def __init__(
        self,
        folder: Path,
        listing: TextIO,
        pool: ProcessPoolExecutor | None,
        workers: int,
        task: Task,
        seed: int,
    ) -> None:
        self.folder, self._listing, self._task, self._seed = folder, listing, task, seed
        self._pool, self._workers = pool, workers
        self._first_image, self.next_image, self.next_query = 0, FIRST_IMAGE_ID, 1

    def images(self, split: str, pictures: Pictures, plan: str, size: int) -> Iterator[bytes]:
        """Draw the images of a split, write each and yield it.

        Args:
            split: The split.
            pictures: The things in each image.
            plan: Name of the plan, which seeds the drawing.
            size: Side of an image in pixels.
        """
        self._first_image = self.next_image
        with MugeImageWriter(self.folder / f"MR_{split}_imgs.tsv") as writer:
            position = 0
            jobs = _jobs(pictures, plan, self._seed, size)
            for drawn in _drawn(self._pool, self._workers, jobs):
                for data in drawn:
                    writer.write(self.next_image, data)
                    things = [thing_of(item) for item in pictures.items(position)]
                    self._listing.write(record_line("image_id", self.next_image, split, things))
                    self.next_image += 1
                    position += 1
                    yield data
                self._task.advance(len(drawn))

    def queries(self, split: str, pictures: Pictures, planned: Iterable[PlannedQuery]) -> None:
        """Write the queries of the split whose images were drawn last."""
        path = self.folder / f"MR_{split}_queries.jsonl"
        self.next_query += write_queries(path, self._numbered(split, planned))

    def _numbered(self, split: str, planned: Iterable[PlannedQuery]) -> Iterator[Query]:
        """Number queries; write what each names to ``attributes.jsonl``."""
        for number, query in enumerate(planned, start=self.next_query):
            items = tuple(self._first_image + int(position) for position in query.positions)
            things = [thing_of(item) for item in query.named]
            self._listing.write(record_line("query_id", number, split, things))
            yield Query(number, query.text, items)


@contextmanager
def new_dataset(
    out: Path, images: int, seed: int, workers: int | None, progress: Progress
) -> Iterator[Drawing]:
    """Open the files of a new dataset: all appear when the block ends, and none if it fails."""
    chunks = -(-images // _CHUNK)
    workers = min(workers or usable_cores(), -(-chunks // 2))
    with ExitStack() as stack:
        made = stack.enter_context(new_files(out, queries_last))
        listing = stack.enter_context(open(made / FILE_NAME, "w", encoding="utf-8"))
        listing.write(header_line(NAMES, seed=seed, images=images))
        pool = stack.enter_context(_pool(workers)) if workers > 1 else None
        task = stack.enter_context(
            progress.task(
                tr("Drawing the demo set"), total=images, amount=tr("{n} images", n="{n}")
            )
        )
        yield Drawing(made, listing, pool, workers, task, seed)


def check_request(out: Path, images: int, size: int) -> None:
    """Check what the user asks to be drawn.

    Raises:
        InputError: ``images`` or ``size`` is out of range, or the folder is not empty.
    """
    if images < FEWEST_IMAGES:
        raise InputError(
            tr("Too few images for a training, a validation and a test set."),
            found=images,
            expected=tr("at least {least}", least=FEWEST_IMAGES),
        )
    if not 32 <= size <= 256:
        raise InputError(
            tr("A demo image cannot have this size."),
            found=size,
            expected=tr("{low} to {high} pixels", low=32, high=256),
        )
    if out.exists() and not out.is_dir():
        raise InputError(tr("This is a file, not a folder."), where=out)
    if out.is_dir() and not is_empty(out):
        raise InputError(
            tr("The folder is not empty."),
            where=out,
            hint=tr("Choose another folder, or delete this one first."),
        )


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork would copy threads and locks
    return ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)


def _jobs(pictures: Pictures, split: str, seed: int, size: int) -> Iterator[_Job]:
    for start in range(0, len(pictures), _CHUNK):
        stop = min(start + _CHUNK, len(pictures))
        scenes = [pictures.items(position) for position in range(start, stop)]
        yield seed, split, start, scenes, size


def _draw(job: _Job) -> list[bytes]:
    """Draw a chunk of images; runs in any process."""
    seed, split, start, scenes, size = job
    return [
        draw_picture(items, random.Random(f"{seed}/{split}/draw/{start + i}"), size)
        for i, items in enumerate(scenes)
    ]


def _drawn(
    pool: ProcessPoolExecutor | None, workers: int, jobs: Iterator[_Job]
) -> Iterator[list[bytes]]:
    """Yield the chunks in order, with at most ``3 × workers`` submitted at a time."""
    if pool is None:
        yield from map(_draw, jobs)
        return
    waiting: deque[Future[list[bytes]]] = deque(
        pool.submit(_draw, job) for job in islice(jobs, workers * 3)
    )
    try:
        while waiting:
            drawn = waiting.popleft().result()
            for job in islice(jobs, 1):
                waiting.append(pool.submit(_draw, job))
            yield drawn
    finally:
        for future in waiting:
            future.cancel()
