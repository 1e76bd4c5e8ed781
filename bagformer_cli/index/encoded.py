"""The files that ``xmr encode`` writes: one of Arrow (IPC) a piece, and what they all are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from bagformer_cli.errors import InputError
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr

MANIFEST = "encoded.json"


def require_own(out: Path, source: str) -> None:
    """Make sure that a folder does not hold the vectors of something else: they would go."""
    try:
        other = json.loads((out / MANIFEST).read_text("utf-8")).get("source", source)
    except (OSError, ValueError, AttributeError):
        return
    if other != source:
        raise InputError(
            tr("This folder holds the vectors of another catalogue."),
            where=out,
            found=other,
            expected=source,
            hint=tr("Choose another folder, or delete this one."),
        )


def encoded_files(folder: Path) -> list[Path]:
    """The files of a finished ``xmr encode``, in order; empty where the folder holds none.

    Raises:
        InputError: It was not finished.
    """
    try:
        names = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        if not any(folder.glob("part-*.arrow")):
            return []
        raise InputError(
            tr("The encoding was not finished."),
            where=folder,
            hint=tr("Run the same xmr encode again: it goes on where it was."),
        ) from None
    return [folder / name for name in names]


def read_rows(file: Path) -> Iterator[pa.RecordBatch]:
    """The rows of one file of ``xmr encode``, memory-mapped.

    Raises:
        InputError: It is no such file, or damaged.
    """
    with _opened(file) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def layout_of_file(file: Path) -> Layout:
    """The layout of a file of ``xmr encode``, which may be one of no rows.

    Raises:
        InputError: It is no such file, or damaged.
    """
    with _opened(file) as reader:
        layout = Layout.of(reader.schema)
        assert layout is not None
        return layout


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        if Layout.of(reader.schema) is None:
            raise InputError(tr("This is no file of xmr encode."), where=file)
        yield reader
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise InputError(
            tr("The file is damaged or cut off."),
            where=file,
            found=str(error),
            hint=tr("Delete it and run the same xmr encode again."),
        ) from None


def rows_done(file: Path, digest: str, layout: Layout) -> int | None:
    """The rows of a finished file of this piece and layout, or None."""
    if not file.is_file():
        return None
    try:
        with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
            if reader.schema.metadata != metadata(layout.schema, digest):
                return None
            count = reader.num_record_batches
            return sum(int(reader.get_batch(i).num_rows) for i in range(count))
    except (pa.ArrowInvalid, OSError):
        return None


def codebook_file(folder: Path, layout: Layout) -> Path:
    """Where a folder of such rows keeps what their codes mean, whatever the codes themselves."""
    like = replace(layout, codebook="", checkpoint="", attributes={})
    named = hashlib.sha256(json.dumps(asdict(like)).encode()).hexdigest()[:12]
    return folder / f"codebook-{named}.npz"


def metadata(schema: pa.Schema, digest: str) -> dict[bytes, bytes]:
    """What a file says of itself: its layout, and the digest of its piece."""
    return {**schema.metadata, b"piece": digest.encode()}
