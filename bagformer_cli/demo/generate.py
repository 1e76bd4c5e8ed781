"""Draws the demo set with all cores and writes it in MUGE form, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO

from bagformer_cli.data.muge import MugeImageWriter, Query, write_queries
from bagformer_cli.data.workers import end_with_parent
from bagformer_cli.demo.attributes import FILE_NAME, header_line, record_line
from bagformer_cli.demo.plan import (
    Pictures,
    hold_out,
    plan_pictures,
    plan_queries,
    split_sizes,
    thing_of,
)
from bagformer_cli.demo.scene import PICTURE, Item, draw_picture
from bagformer_cli.errors import InputError
from bagformer_cli.files import atomic_file
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

FEWEST_IMAGES = 60
FIRST_IMAGE_ID = 1_000_001
_CHUNK = 32
"""Pictures drawn by a process at a time."""

_Job = tuple[int, str, int, list[list[Item]], int]


def write_demo(
    out: str | Path,
    images: int = 3000,
    seed: int = 0,
    workers: int | None = None,
    *,
    size: int = PICTURE,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Draw the built-in dataset and write it as MUGE files, with ``attributes.jsonl`` beside them.

    The same ``images``, ``seed`` and ``size`` give the same files, however many workers draw.

    Args:
        out: The folder; made where there is none.
        images: Pictures in all splits together: two thirds train, the rest validation and test.
        seed: Decides everything.
        workers: Processes that draw; None for one a core, 1 for this process alone.
        size: Side of a picture in pixels.
        overwrite: Replace a demo set that is there.
        progress: Hears of every picture.

    Raises:
        InputError: ``images`` or ``size`` is out of range, or the folder holds something.
        DiskFullError: No room is left; no file of the set was written.
    """
    out = Path(out)
    _check(out, images, size, overwrite)
    held = hold_out(seed)
    chunks = -(-images // _CHUNK)
    workers = min(workers or _cores(), -(-chunks // 2))
    with ExitStack() as stack:
        # every file appears when the block ends, none where it fails
        listing = stack.enter_context(
            open(stack.enter_context(atomic_file(out / FILE_NAME)), "w", encoding="utf-8")
        )
        listing.write(header_line(seed, images))
        pool = stack.enter_context(_pool(workers)) if workers > 1 else None
        task = stack.enter_context(
            progress.task(tr("Drawing the demo set"), total=images, unit=tr("pictures"))
        )
        first_image, first_query = FIRST_IMAGE_ID, 1
        for split, count in split_sizes(images).items():
            pictures = plan_pictures(split, count, held, seed)
            writer = stack.enter_context(MugeImageWriter(out / f"MR_{split}_imgs.tsv"))
            position = 0
            for drawn in _drawn(pool, workers, _jobs(pictures, split, seed, size)):
                for data in drawn:
                    number = first_image + position
                    writer.write(number, data)
                    things = [thing_of(item) for item in pictures.items(position)]
                    listing.write(record_line("image_id", number, split, things))
                    position += 1
                task.advance(len(drawn))
            first_query += write_queries(
                out / f"MR_{split}_queries.jsonl",
                _queries(split, pictures, seed, first_image, first_query, listing),
            )
            first_image += count


def _check(out: Path, images: int, size: int, overwrite: bool) -> None:
    if images < FEWEST_IMAGES:
        raise InputError(
            tr("Too few pictures for a train, a validation and a test set."),
            found=images,
            expected=tr("at least {least}", least=FEWEST_IMAGES),
        )
    if not 32 <= size <= 256:
        raise InputError(
            tr("A demo picture cannot have this size."),
            found=size,
            expected=tr("{low} to {high} pixels", low=32, high=256),
        )
    if out.exists() and not out.is_dir():
        raise InputError(tr("This is a file, not a folder."), where=out)
    if out.is_dir() and any(out.iterdir()) and not (overwrite and (out / FILE_NAME).is_file()):
        raise InputError(
            tr("The folder already holds something."),
            where=out,
            hint=tr("Choose another folder, or delete this one first."),
        )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _pool(workers: int) -> ProcessPoolExecutor:
    # fork would copy a parent that may hold threads and locks
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)


def _jobs(pictures: Pictures, split: str, seed: int, size: int) -> Iterator[_Job]:
    for start in range(0, len(pictures), _CHUNK):
        stop = min(start + _CHUNK, len(pictures))
        scenes = [pictures.items(position) for position in range(start, stop)]
        yield seed, split, start, scenes, size


def _draw(job: _Job) -> list[bytes]:
    """Draw a chunk of pictures; each has its own random numbers, whoever draws it."""
    seed, split, start, scenes, size = job
    return [
        draw_picture(items, random.Random(f"{seed}/{split}/draw/{start + i}"), size)
        for i, items in enumerate(scenes)
    ]


def _drawn(
    pool: ProcessPoolExecutor | None, workers: int, jobs: Iterator[_Job]
) -> Iterator[list[bytes]]:
    """The chunks in order, only a few of them in flight."""
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


def _queries(
    split: str,
    pictures: Pictures,
    seed: int,
    first_image: int,
    first_query: int,
    listing: TextIO,
) -> Iterator[Query]:
    for number, query in enumerate(plan_queries(split, pictures, seed), start=first_query):
        items = tuple(first_image + int(position) for position in query.positions)
        things = [thing_of(item) for item in query.named]
        listing.write(record_line("query_id", number, split, things))
        yield Query(number, query.text, items)
