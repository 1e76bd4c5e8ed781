"""The preprocessed dataset on disk: random access to everything without loading it.

::

    <dataset>/.xmr/
        train/images-00000.arrow …    image_id, hash, image (the file's bytes, as they came)
        train/queries-00000.arrow …   query_id, text, item_ids
        train/tokens-<encoder>/*.npy  the fields of TokenBags, one folder for each TitleEncoder
        train/split.json              written last: queries and images fit together
        valid/…, test/…

Arrow's IPC files were chosen by measuring random reads (docs/performance.md): 115,000 images a
second one by one, against 2,200 from Lance and 2,900 from Parquet.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from bagformer_cli.data import byte_ranges as spans
from bagformer_cli.data.images import verify
from bagformer_cli.data.muge import MugeFolder, needs_items
from bagformer_cli.data.muge_lines import parse_image_line, parse_query_line, repeated
from bagformer_cli.data.store.split import Shards, Split, items_of, positions_of
from bagformer_cli.data.store.tokens import Encoder, encode_titles, read_json
from bagformer_cli.data.workers import Workers
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.files import cache_folder, disk_errors, write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

VERSION = 1


class Store:
    """A preprocessed dataset.

    Args:
        path: The store's folder.
        encoder: Whose tokens :attr:`Split.tokens` gives: a fingerprint; None: the newest.
    """

    def __init__(self, path: Path, encoder: str | None = None) -> None:
        self.path, self._encoder = path, encoder

    @classmethod
    def open(cls, path: str | Path, encoder: Encoder | None = None) -> Store:
        """Open a store.

        Raises:
            InputError: There is none, or an older version of this program made it.
        """
        store = cls(Path(path), None if encoder is None else encoder.fingerprint)
        if _version(store.path) != VERSION or not store.splits:
            raise InputError(
                tr("There is no preprocessed dataset."),
                where=path,
                hint=tr("Make it: xmr preprocess --dataset FOLDER"),
            )
        return store

    @property
    def splits(self) -> list[str]:
        """The splits that are complete, in the order train, valid, test."""
        names = ("train", "valid", "test")
        return [name for name in names if (self.path / name / "split.json").is_file()]

    def split(self, name: str) -> Split:
        """One split.

        Raises:
            InputError: The store has no such split.
        """
        if name not in self.splits:
            raise InputError(
                tr("The dataset has no split '{split}'.", split=name),
                where=self.path,
                found=", ".join(self.splits),
            )
        return Split(self.path / name, self._tokens(self.path / name), name)

    def is_current(self, folder: MugeFolder, encoder: Encoder | None, images: bool = True) -> bool:
        """Whether everything that preprocessing would make is there and its input unchanged."""
        splits = folder.splits if images else folder.text_splits
        if _version(self.path) != VERSION or not set(splits) <= set(self.splits):
            return False
        return all(_split_is_current(self.path, folder, name, encoder, images) for name in splits)

    def _tokens(self, split: Path) -> Path | None:
        if self._encoder is not None:
            return split / f"tokens-{self._encoder}"
        finished = [path.parent for path in split.glob("tokens-*/done.json")]
        return max(finished, key=lambda path: path.stat().st_mtime_ns, default=None)


def default_store(folder: Path) -> Path:
    """``<folder>/.xmr``, or a place in the cache where the folder cannot be written to."""
    own = folder / ".xmr"
    if own.is_dir() or os.access(folder, os.W_OK):
        return own
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "stores" / name


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
    """Bring a dataset's store up to date; what is there already and still right is kept.

    Killed at any point and run again, it goes on where it was: finished spans of images and
    titles are not made again.

    Args:
        folder: The dataset.
        out: The store's folder; None: :func:`default_store`.
        encoder: Makes tokens and bags; None: none are made.
        text_only: Leave the images out.
        splits: Which splits; None: all that are complete.
        workers: Processes that read at the same time, and threads that cut titles; or a Ray
            cluster, which reads, while all of this machine's cores cut.
        progress: Where to report.

    Raises:
        DataError: A line is broken; the error names file and line.
        InputError: A file is missing, or there is no split at all.
        DiskFullError: What was finished stays, and the next run goes on from there.
    """
    out = default_store(folder.path) if out is None else Path(out)
    names = splits or (folder.text_splits if text_only else folder.splits)
    if not names:
        folder.require("train")
    for name in names:
        folder.require(name, images=not text_only)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with _only_one(out, progress):
        if _version(out) != VERSION:
            for name in ("train", "valid", "test"):
                shutil.rmtree(out / name, ignore_errors=True)
            write_text(out / "store.json", json.dumps({"version": VERSION}))
        for name in names:
            _preprocess_split(out, folder, name, encoder, text_only, workers, progress)
    return Store(out, None if encoder is None else encoder.fingerprint)


# ---------------------------------------------------------------------------------------- stages


def _image_row(raw: bytes) -> tuple[int, int, bytes]:
    image_id, data = parse_image_line(raw)
    verify(data)
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return image_id, int.from_bytes(digest, "big", signed=True), data


def _query_row(raw: bytes, *, items: bool) -> tuple[int, str, tuple[int, ...]]:
    query = parse_query_line(raw, items=items)
    return query.query_id, query.text, query.item_ids


_IMAGE_SCHEMA = pa.schema([("image_id", pa.int64()), ("hash", pa.int64()), ("image", pa.binary())])
_QUERY_SCHEMA = pa.schema(
    [("query_id", pa.int64()), ("text", pa.string()), ("item_ids", pa.list_(pa.int64()))]
)
IMAGES = spans.Kind("images", _IMAGE_SCHEMA, _image_row, span_bytes=128 << 20)


def _queries(source: Path) -> spans.Kind:
    row = partial(_query_row, items=needs_items(source))
    return spans.Kind("queries", _QUERY_SCHEMA, row, span_bytes=32 << 20)


def _preprocess_split(
    out: Path,
    folder: MugeFolder,
    name: str,
    encoder: Encoder | None,
    text_only: bool,
    workers: Workers,
    progress: Progress,
) -> None:
    split = out / name
    split.mkdir(exist_ok=True)
    digests: dict[str, str | None] = {"images": None}
    if not text_only:
        source = folder.images_path(name)
        digests["images"] = spans.convert(
            source,
            split,
            IMAGES,
            partial(_check_ids, source, "images", "image_id"),
            workers=workers,
            progress=progress,
            description=tr("Images of {split}", split=name),
        ).digest
    source = folder.queries_path(name)
    digests["queries"] = spans.convert(
        source,
        split,
        _queries(source),
        partial(_check_ids, source, "queries", "query_id"),
        workers=workers,
        progress=progress,
        description=tr("Queries of {split}", split=name),
    ).digest
    if encoder is not None:
        threads = workers if isinstance(workers, int) else os.cpu_count() or 1
        encode_titles(
            split, name, encoder, str(digests["queries"]), workers=threads, progress=progress
        )
    record = read_json(split / "split.json")
    if text_only and record.get("queries") == digests["queries"]:
        return  # images that an earlier run brought in stay
    if record != digests:
        if not text_only:
            _check_items(source, split)
        write_text(split / "split.json", json.dumps(digests))


# ---------------------------------------------------------------------------------------- checks


def _check_ids(source: Path, name: str, column: str, split: Path) -> None:
    """No id is there twice."""
    ids = _shards(split, name).numbers(column)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        second = int(order[twice + 1].min())
        first = int(np.flatnonzero(ids == ids[second])[0])
        error = repeated(int(ids[second]), first + 1)  # every line is a row
        error.where = f"{source}:{second + 1}"
        raise error


def _check_items(source: Path, split: Path) -> None:
    """Every image that a query names is there."""
    wanted, offsets = items_of(_shards(split, "queries"))
    found = positions_of(wanted, _shards(split, "images").numbers("image_id"))
    missing = np.flatnonzero(found < 0)
    if len(missing):
        row = int(np.searchsorted(offsets, missing[0], side="right")) - 1
        raise DataError(
            tr("The query names an image that is not in the images file."),
            where=f"{source}:{row + 1}",
            found=tr("id {id}; {n} such in all", id=wanted[missing[0]], n=len(missing)),
            hint=tr("`xmr data check` lists every one."),
        )


def _shards(split: Path, name: str) -> Shards:
    return Shards(sorted(split.glob(f"{name}-*.arrow")))


def _split_is_current(
    out: Path, folder: MugeFolder, name: str, encoder: Encoder | None, images: bool
) -> bool:
    split, queries = out / name, folder.queries_path(name)
    record = read_json(split / "split.json")
    sources = [("queries", queries, _queries(queries))]
    if images:
        sources.append(("images", folder.images_path(name), IMAGES))
    for field, source, kind in sources:
        digest = spans.current(source, split, kind)
        if digest is None or digest != record.get(field):
            return False
    if encoder is None:
        return True
    done = read_json(split / f"tokens-{encoder.fingerprint}" / "done.json")
    return done.get("queries") == record.get("queries")


@contextmanager
def _only_one(out: Path, progress: Progress) -> Iterator[None]:
    """One process at a time works on a store; its death lets the next one in."""
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


def _version(path: Path) -> object:
    return read_json(path / "store.json").get("version")
