"""Make a dataset's store, or bring it up to date: images and queries to shards, titles to tokens.

Three stages for each split; each keeps its own record and can be interrupted at any point:

1. images file  → ``images-*.arrow``  (every image is decoded; a broken one is left out and named;
   no id may be there twice)
2. queries file → ``queries-*.arrow`` (every line is parsed; no id may be there twice)
3. titles       → ``tokens-*/*.npy``

A split is complete when ``split.json`` is written, after a check that every image named by a query
is in the images file.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from bagformer_cli.data.images import verify
from bagformer_cli.data.muge import SPLITS, MugeFolder, may_omit_items
from bagformer_cli.data.muge_lines import (
    decode_base64,
    parse_query_line,
    repeated,
    split_image_line,
)
from bagformer_cli.data.store.convert import (
    ConversionRecord,
    LeftOut,
    LineFormat,
    LineLeftOutError,
    convert,
)
from bagformer_cli.data.store.split import image_hash, items_of, positions_of, shards_of
from bagformer_cli.data.store.store import (
    VERSION,
    Store,
    cached_store,
    default_store,
    store_version,
)
from bagformer_cli.data.store.tokens import Encoder, encode_titles, read_json
from bagformer_cli.data.workers import Workers
from bagformer_cli.errors import DataError, InputError, with_place
from bagformer_cli.files import disk_errors, is_read_only, is_writable, write_text
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.opening import require_plain_folder
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.temporary import is_temporary

MAX_NAMED = 10
"""Broken images that are named one by one in warnings."""


@dataclass(frozen=True)
class _Options:
    """Parameters of :func:`preprocess` that are the same for every split."""

    encoder: Encoder | None
    text_only: bool
    workers: Workers
    progress: Progress


def preprocess(
    folder: MugeFolder,
    out: Path | None = None,
    *,
    encoder: Encoder | None,
    text_only: bool = False,
    splits: Sequence[str] | None = None,
    workers: Workers = 1,
    progress: Progress = SILENT,
) -> Store:
    """Bring a dataset's store up to date; parts that still fit their input are kept.

    If the process is killed and started again, it continues: finished shards and chunks of titles
    are not made again.

    Args:
        folder: The dataset.
        out: Folder of the store; None: :func:`default_store`.
        encoder: Makes tokens and bags; None: no tokens are made.
        text_only: Leave out the images.
        splits: The splits to preprocess; None: all complete ones.
        workers: Processes that read lines and threads that encode titles. With a Ray cluster, it
            reads the lines, and all cores of this machine encode the titles.
        progress: Receives what is done.

    Raises:
        DataError: A line is broken; the error names file and line.
        InputError: A file is missing, or there is no split at all.
        DiskFullError: The disk is full; the next run continues from there.
    """
    names = splits or (folder.text_splits if text_only else folder.splits)
    if not names:
        folder.require("train")
    for name in names:
        folder.require(name, images=not text_only)
    options = _Options(encoder, text_only, workers, progress)
    if out is None:
        out = default_store(folder.path)
        if out.is_dir() and not is_writable(out):
            try:  # it is finished, for these titles, or else another one is made
                return _bring_up_to_date(out, folder, names, options, nullcontext())
            except OSError as error:
                if not is_read_only(error):
                    raise
            own, out = out, cached_store(folder.path)
            progress.info(
                tr("{own} cannot be written: the dataset is preprocessed to {out}.",
                   own=own, out=out)
            )  # fmt: skip
    return _bring_up_to_date(out, folder, names, options, _exclusive_lock(out, progress))


def _bring_up_to_date(
    out: Path,
    folder: MugeFolder,
    names: Sequence[str],
    options: _Options,
    lock: AbstractContextManager[None],
) -> Store:
    """Do the work of :func:`preprocess` in a folder."""
    _require_own(out)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with lock:
        if store_version(out) != VERSION:
            for name in SPLITS:
                shutil.rmtree(out / name, ignore_errors=True)
            write_text(out / "store.json", json.dumps({"version": VERSION}))
        for name in names:
            try:
                _preprocess_split(out / name, folder, options)
            except DataError as error:
                command = f"xmr data check {shlex.quote(str(folder.path))}"
                error.hint = error.hint or tr(
                    "`{command}` lists all broken lines. Correct them, or delete them.",
                    command=command,
                )
                raise
    encoder = options.encoder
    return Store(out, None if encoder is None else encoder.fingerprint, folder.path)


# ---------------------------------------------------------------------------------------- stages


def _image_row(raw: bytes) -> tuple[int, int, bytes]:
    image_id, payload = split_image_line(raw)
    try:
        data = decode_base64(payload)
        verify(data)
    except DataError as error:
        raise LineLeftOutError(image_id, error) from None
    return image_id, image_hash(data), data


def _query_row(raw: bytes, *, items: bool) -> tuple[int, str, tuple[int, ...]]:
    query = parse_query_line(raw, items=items)
    return query.query_id, query.text, query.item_ids


IMAGE_LINES = LineFormat(
    "images",
    pa.schema([("image_id", pa.int64()), ("hash", pa.int64()), ("image", pa.binary())]),
    _image_row,
    range_bytes=128 << 20,
)
_QUERY_SCHEMA = pa.schema(
    [("query_id", pa.int64()), ("text", pa.string()), ("item_ids", pa.list_(pa.int64()))]
)


def _query_lines(source: Path) -> LineFormat:
    parse = partial(_query_row, items=not may_omit_items(source))
    return LineFormat("queries", _QUERY_SCHEMA, parse, range_bytes=32 << 20)


def _preprocess_split(split: Path, folder: MugeFolder, options: _Options) -> None:
    name, workers, progress = split.name, options.workers, options.progress
    split.mkdir(exist_ok=True)
    digests: dict[str, str | None] = {"images": None}
    left_out: list[LeftOut] = []
    if not options.text_only:
        source = folder.images_path(name)
        images = convert(
            source,
            split,
            IMAGE_LINES,
            partial(_check_ids, source, "images", "image_id"),
            workers=workers,
            progress=progress,
            description=tr("Images of {split}", split=name),
        )
        digests["images"] = images.digest
        left_out = images.left_out
        _report_left_out(source, images, progress)
    source = folder.queries_path(name)
    digests["queries"] = convert(
        source,
        split,
        _query_lines(source),
        partial(_check_ids, source, "queries", "query_id"),
        workers=workers,
        progress=progress,
        description=tr("Queries of {split}", split=name),
    ).digest
    if options.encoder is not None:
        threads = workers if isinstance(workers, int) else usable_cores()
        encode_titles(
            split, options.encoder, str(digests["queries"]), workers=threads, progress=progress
        )
    record = read_json(split / "split.json")
    if options.text_only and record.get("queries") == digests["queries"]:
        return  # keep the images of an earlier run
    if record != digests:
        if not options.text_only:
            _check_items(source, split, {line.key for line in left_out})
        write_text(split / "split.json", json.dumps(digests))


# ---------------------------------------------------------------------------------------- checks


def _check_ids(source: Path, name: str, column: str, split: Path, record: ConversionRecord) -> None:
    """Raise if an id is there twice, or if no record can be read."""
    ids = shards_of(split, name).numbers(column)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        second = int(order[twice + 1].min())
        first = int(np.flatnonzero(ids == ids[second])[0])
        error = repeated(int(ids[second]), record.line_of(first))
        error.where = f"{source}:{record.line_of(second)}"
        raise error
    if record.left_out and not len(ids):
        first_left = record.left_out[0]
        raise DataError(
            tr("No image of this file can be read."),
            where=source,
            found=tr("{n} broken images; line {line}: {reason}", n=len(record.left_out),
                     line=first_left.line, reason=first_left.reason),
        )  # fmt: skip


def _report_left_out(source: Path, images: ConversionRecord, progress: Progress) -> None:
    """Warn about the images that were left out: name them once, then say how many they are."""
    lines = images.left_out
    named = MAX_NAMED if images.made else 0
    for line in lines[:named]:
        place = tr("{place}, image {id}", place=f"{source}:{line.line}", id=line.key)
        progress.warn(tr("left out: {error}", error=with_place(line.reason, place)))
    if len(lines) > named:
        progress.warn(
            tr("Broken images that are left out of {path}: {n}. `xmr data check` lists them.",
               n=len(lines), path=source)
        )  # fmt: skip


def _check_items(source: Path, split: Path, left_out: set[int]) -> None:
    """Raise if a query names an image that does not exist; broken ones do."""
    wanted, offsets = items_of(shards_of(split, "queries"))
    found = positions_of(wanted, shards_of(split, "images").numbers("image_id"))
    missing = np.flatnonzero((found < 0) & ~np.isin(wanted, list(left_out)))
    if len(missing):
        row = int(np.searchsorted(offsets, missing[0], side="right")) - 1
        raise DataError(
            tr("The query names an image that is not in the images file."),
            where=f"{source}:{row + 1}",
            found=tr("id {id}; {n} missing in total", id=wanted[missing[0]], n=len(missing)),
        )


def _require_own(out: Path) -> None:
    """Refuse a folder that holds something else: a store of another version is deleted.

    A dataset from somebody else could have a link to any folder here, also inside the store.
    """
    require_plain_folder(out)
    is_store = not out.is_dir() or (out / "store.json").exists()
    if not is_store and any(map(_is_foreign, out.iterdir())):
        raise InputError(
            tr("This folder holds something else than a preprocessed dataset."),
            where=out,
            hint=tr("Choose another folder, or remove it."),
        )


def _is_foreign(found: Path) -> bool:
    """Say whether a file is not what a preprocessing leaves that was killed at its beginning."""
    return found.name != "lock" and not is_temporary(found)


@contextmanager
def _exclusive_lock(out: Path, progress: Progress) -> Iterator[None]:
    """Hold the store's lock; the system releases it if the process dies."""
    lock = FileLock(out / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.info(tr("Another xmr is preprocessing {path}; waiting for it.", path=out))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
