"""The files of ``xmr encode``: one Arrow (IPC) file of rows for each part of a catalogue.

::

    vectors/encoded.json             the catalogue's path, files that lack failed downloads; once
                                     complete also the names of all files
    vectors/part-000000.arrow …      rows; the metadata hold the layout and the digest of the part
    vectors/codebook-<digest>.npz    the codebook of residual codes, if there are any

A file appears whole. It is written again only if its part, the model or the options changed, so an
interrupted run is continued by running the same command again. Image files count by name, size and
time of the last change, as for rsync: reading them all would take as long as encoding them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from bagformer_cli.data.catalogue.catalogue import Catalogue
from bagformer_cli.data.catalogue.products import Part, digest_of
from bagformer_cli.data.downloads import LaterError
from bagformer_cli.data.images import DECODING
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.workers import Workers, run_jobs
from bagformer_cli.errors import InputError
from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.index.encode import EncodeOptions, encode_products
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import ItemEncoder
from bagformer_cli.models.load_encoder import load_encoder
from bagformer_cli.opening import require_plain_folder
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.cut_titles import CutTitles

if TYPE_CHECKING:
    from bagformer_cli.vectors.residual_codes import Codebook

MANIFEST = "encoded.json"

# ---------------------------------------------------------------------------------------- writing


class ModelFolder(NamedTuple):
    """A model that every worker process loads.

    Args:
        path: Its folder, or that of an exported model.
        device: Where it runs; None: on a GPU if there is one.
    """

    path: str
    device: str | None = "cpu"


@dataclass(frozen=True)
class Encoded:
    """The outcome of :func:`encode_catalogue`.

    Args:
        files: All files, in the catalogue's order.
        rows: The products in all of them.
        made: The number of files that were written now; the others were complete already.
        skipped: The number of products left out of the files written now.
    """

    files: list[Path]
    rows: int
    made: int
    skipped: int


@dataclass(frozen=True)
class _Job:
    """One part to encode; sent to a worker process."""

    part: Part
    digest: str  # of the part and its image files
    out: Path
    model: ModelFolder
    layout: Layout
    options: EncodeOptions
    codebook: Path | None  # read by each process: it is larger than all the rest of a job


def encode_catalogue(
    catalogue: Catalogue,
    out: Path,
    model: ModelFolder,
    layout: Layout,
    options: EncodeOptions,
    *,
    workers: Workers = 1,
    progress: Progress = SILENT,
) -> Encoded:
    """Encode a catalogue into a folder of files; continue where an earlier run stopped.

    Args:
        catalogue: The catalogue.
        out: The folder.
        model: The model; every worker process loads it once.
        layout: The layout of the rows; of the same model.
        options: How products become rows.
        workers: The number of processes, or a Ray cluster.
        progress: Where to report.

    Raises:
        InputError: The folder holds the vectors of another catalogue.
    """
    source = str(catalogue.source.resolve())
    _require_own(out, source)
    out.mkdir(parents=True, exist_ok=True)
    again = _to_encode_again(out)
    _write_manifest(out, {"source": source, "again": sorted(again)})  # incomplete
    catalogue.remarks.report(progress)
    for left in out.glob(".part-*.part"):
        left.unlink(missing_ok=True)
    files = [out / f"{part.name}.arrow" for part in catalogue.parts]
    for extra in set(out.glob("part-*.arrow")) - set(files):
        extra.unlink()
    codebook = _write_codebook(out, layout, options.codebook)
    options = replace(options, codebook=None)
    jobs = []
    rows = 0
    left_out = LeftOut(progress)
    cut = CutTitles()
    for part, file in zip(catalogue.parts, files, strict=True):
        digest = digest_for(part)
        done = None if file.name in again else _rows_done(file, digest, layout)
        if done is None:
            jobs.append(_Job(part, digest, file, model, layout, options, codebook))
        else:
            rows += done
    description = tr("Encoding {source}", source=catalogue.source)
    with progress.task(description, len(files), tr("{n} files", n="{n}")) as task:
        task.advance(len(files) - len(jobs))
        results = run_jobs(encode_part, jobs, workers)
        for job, (count, errors, cut_here) in zip(jobs, results, strict=True):
            rows += count
            cut = cut.plus(cut_here)
            again.discard(job.out.name)
            if any(isinstance(error, LaterError) for error in errors):
                again.add(job.out.name)
                _write_manifest(out, {"source": source, "again": sorted(again)})
            for error in errors:
                left_out(error)
            task.advance(1, **{tr("number of products"): rows})
    left_out.finish()
    if cut.number:
        progress.warn(cut.sentence(_load_model(model).titles.max_tokens))
    record = {
        "source": source,
        "rows": rows,
        "files": [file.name for file in files],
        "layout": layout.to_json(),
        "again": sorted(again),
    }
    _write_manifest(out, record)
    return Encoded(files, rows, len(jobs), len(left_out.errors))


def encode_part(job: _Job) -> tuple[int, list[InputError], CutTitles]:
    """Encode one part into one file, in any process; return its rows, the errors, long titles."""
    encoder = _load_model(job.model)
    options, left_out = job.options, LeftOut(strict=job.options.strict)
    if job.codebook is not None:
        options = replace(options, codebook=_load_codebook(job.codebook))
    schema = job.layout.schema
    rows = 0
    with (
        atomic_file(job.out) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema.with_metadata(_metadata(schema, job.digest))) as writer,
    ):
        for batch in encode_products(encoder, job.layout, job.part.products(), options, left_out):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows, left_out.errors, encoder.titles.take_cut()


def _write_manifest(out: Path, record: dict[str, Any]) -> None:
    write_text(out / MANIFEST, json.dumps(record, ensure_ascii=False))


def _to_encode_again(out: Path) -> set[str]:
    """Return the files that lack products whose download failed but may succeed now."""
    try:
        return set(map(str, json.loads((out / MANIFEST).read_text("utf-8")).get("again", ())))
    except (OSError, ValueError, AttributeError, TypeError):
        return set()


def digest_for(part: Part) -> str:
    """Hash everything that a part's vectors depend on besides the model: content and decoding."""
    return digest_of([part.current_digest(), DECODING])


def discard_encoded(out: Path) -> None:
    """Delete the files of a run of ``xmr encode`` that encoded no product."""
    for file in (*out.glob("part-*.arrow"), *out.glob("codebook-*.npz"), out / MANIFEST):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # a mounted folder cannot be deleted
        out.rmdir()


def _require_own(out: Path, source: str) -> None:
    """Refuse a folder with the vectors of another catalogue, whose files would be deleted.

    A folder with other files is refused too: vectors are not written among a user's images.
    """
    if not (out / MANIFEST).exists() and out.is_dir() and any(out.iterdir()):
        raise InputError(
            tr("The folder is not empty."),
            where=out,
            hint=tr("Choose another folder, or delete this one first."),
        )
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


def _rows_done(file: Path, digest: str, layout: Layout) -> int | None:
    """Count the rows of a complete file of this part and layout; None if it must be written."""
    if not file.is_file():
        return None
    try:
        with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
            if reader.schema.metadata != _metadata(layout.schema, digest):
                return None
            count = reader.num_record_batches
            return sum(int(reader.get_batch(i).num_rows) for i in range(count))
    except (pa.ArrowInvalid, OSError):
        return None


def _metadata(schema: pa.Schema, digest: str) -> dict[bytes, bytes]:
    return {**schema.metadata, b"piece": digest.encode()}


def _write_codebook(out: Path, layout: Layout, codebook: Codebook | None) -> Path | None:
    if codebook is None:
        return None
    file = codebook_file(out, layout)
    with atomic_file(file) as temporary:
        temporary.write_bytes(codebook.to_bytes())
    return file


@lru_cache(maxsize=1)
def _load_codebook(file: Path) -> Codebook:
    from bagformer_cli.vectors.residual_codes import Codebook

    return Codebook.from_bytes(file.read_bytes())


@lru_cache(maxsize=1)
def _load_model(model: ModelFolder) -> ItemEncoder:
    return load_encoder(model.path, model.device)


# ---------------------------------------------------------------------------------------- reading


def encoded_files(folder: Path) -> list[Path]:
    """Return the files of a completed ``xmr encode``, in order; empty if the folder holds none.

    Raises:
        InputError: The encoding was interrupted, or the folder holds links or pipes.
    """
    if not any(path.name == MANIFEST or path.match("part-*.arrow") for path in folder.glob("*")):
        return []
    require_plain_folder(folder)
    try:
        names = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        if not all(re.fullmatch(r"part-\d+\.arrow", name) for name in names):  # no other paths
            raise ValueError(MANIFEST)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            tr("The encoding is incomplete: xmr encode was interrupted."),
            where=folder,
            hint=tr("Run the same xmr encode again: it continues where it stopped."),
        ) from None
    return [folder / name for name in names]


def read_rows(file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one file, memory-mapped.

    Raises:
        InputError: It is another kind of file, or damaged.
    """
    with _opened(file) as reader:
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            batch.validate(full=True)  # offsets that lead out of the file
            yield batch


def layout_of_file(file: Path) -> Layout:
    """Return the layout of the rows of one file.

    Raises:
        InputError: It is another kind of file, or damaged.
    """
    with _opened(file) as reader:
        layout = Layout.from_schema(reader.schema)
        assert layout is not None
        return layout


def codebook_file(folder: Path, layout: Layout) -> Path:
    """Return where a folder stores the codebook of a layout.

    The name depends on what the vectors are, not on the codebook itself: a later run finds it
    before it has one.
    """
    like = replace(layout, codebook="", checkpoint="", attributes={}, pooling="each", means=False)
    digest = hashlib.sha256(json.dumps(like.to_json()).encode()).hexdigest()[:12]
    return folder / f"codebook-{digest}.npz"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        if Layout.from_schema(reader.schema) is None:
            raise InputError(tr("This is not a file of xmr encode."), where=file)
        yield reader
    except (pa.ArrowInvalid, FileNotFoundError):
        raise InputError(
            tr("The file is damaged or incomplete."),
            where=file,
            hint=tr("Delete it and run the same xmr encode again."),
        ) from None
