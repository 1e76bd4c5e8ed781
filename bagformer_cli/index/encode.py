"""Piles of products to rows of vectors: streaming, resumable, one file per part."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.data.batches import TextBatch, normalised, prefetch
from bagformer_cli.data.catalogue.catalogue import Catalogue
from bagformer_cli.data.catalogue.products import Part, Product
from bagformer_cli.data.images import decode, open_image, resize
from bagformer_cli.data.workers import Workers, run_jobs
from bagformer_cli.errors import InputError, cannot_read
from bagformer_cli.files import atomic_file, write_text
from bagformer_cli.index.compression.reduction import Fewer
from bagformer_cli.index.encoded import MANIFEST, codebook_file, metadata, require_own, rows_done
from bagformer_cli.index.rows import SIDES, Layout, One, Side, SideRows, VectorType, to_batch
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.encode import EncodedItems, encode_images, encode_texts
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook

SMALL_FILE = 24 << 10  # bytes; an image file up to this is its own thumbnail


@dataclass(frozen=True)
class EncodeOptions:
    """How products become rows.

    Args:
        dtype: Of the stored lists of vectors.
        one: Which single vector stands for an item.
        sides: Which sides to encode.
        fewer: How the lists of images become shorter.
        thumbnail: Pixels of a thumbnail's longer side; 0: none.
        batch_size: Products that go through the model at once.
        workers: Threads that read and decode images ahead.
        codebook: Decodes residual codes; required if ``dtype`` is ``residual4``.
    """

    dtype: VectorType = "int8"
    one: One = "cls"
    sides: tuple[Side, ...] = SIDES
    fewer: Fewer = field(default_factory=Fewer)
    thumbnail: int = 256
    batch_size: int = 64
    workers: int = 2
    codebook: Codebook | None = None


def layout_of(
    model: RetrievalModel, options: EncodeOptions, attributes: dict[str, str], checkpoint: str = ""
) -> Layout:
    """The layout of rows that ``model`` makes with these options."""
    return Layout(
        fingerprint(model),
        model.config.model.embed_dim,
        options.dtype,
        options.one,
        options.sides,
        options.fewer.to_json(),
        attributes,
        checkpoint,
        "" if options.codebook is None else options.codebook.digest,
    )


@dataclass
class Skipped:
    """What was left out, and why; ``strict`` raises instead."""

    strict: bool = False
    errors: list[InputError] = field(default_factory=list)

    def __call__(self, error: InputError) -> None:
        """Note one, or raise it."""
        if self.strict:
            raise error
        self.errors.append(error)


@dataclass
class _Read:
    product: Product
    pixels: NDArray[np.uint8] | None
    thumbnail: bytes | None


def encode_products(
    model: RetrievalModel,
    layout: Layout,
    products: Iterable[Product | InputError],
    options: EncodeOptions,
    skipped: Skipped,
) -> Iterator[pa.RecordBatch]:
    """Rows of products, a batch at a time; images are decoded ahead by threads.

    Args:
        model: Makes the vectors.
        layout: Of the rows, of the same model.
        products: What comes; errors among them, and products whose image is broken, go to
            ``skipped``.
        options: How.
        skipped: Collects what is left out.
    """
    read = partial(_read_all, size=model.config.image.size, options=options)
    source = iter(products)
    chunks = iter(lambda: list(islice(source, options.batch_size)), [])
    for results in prefetch(read, chunks, options.workers):
        good: list[_Read] = []
        for result in results:
            if isinstance(result, InputError):
                skipped(result)
            else:
                good.append(result)
        if good:
            yield _encode_batch(model, layout, good, options)


def _read_all(
    products: list[Product | InputError], *, size: int, options: EncodeOptions
) -> list[_Read | InputError]:
    return [
        product if isinstance(product, InputError) else _read(product, size, options)
        for product in products
    ]


def _read(product: Product, size: int, options: EncodeOptions) -> _Read | InputError:
    if "image" not in options.sides or product.image is None:
        if product.title is None or "title" not in options.sides:
            return InputError(tr("The product has nothing to encode."), where=product.where)
        return _Read(replace(product, data=None), None, None)
    try:
        data = product.data if product.data is not None else _bytes_of(product)
        picture = decode(data, where=product.where)
        thumbnail = make_thumbnail(data, picture, options.thumbnail)
    except InputError as error:
        if error.where is None or product.where not in error.where:
            error.where = f"{product.where} ({error.where})" if error.where else product.where
        return error
    return _Read(replace(product, data=None), resize(picture, size), thumbnail)


def _bytes_of(product: Product) -> bytes:
    assert product.image is not None
    try:
        return Path(product.image).read_bytes()
    except OSError as error:
        raise InputError(
            tr("The image of this product cannot be read."),
            where=product.where,
            found=cannot_read(product.image, error),
        ) from None


def make_thumbnail(data: bytes, picture: Image.Image, side: int) -> bytes | None:
    """A small JPEG; the file itself where it is small already."""
    if not side:
        return None
    small_file = max(picture.size) <= side and len(data) <= SMALL_FILE
    if small_file and open_image(data).format in {"JPEG", "PNG", "WEBP"}:
        return data
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _encode_batch(
    model: RetrievalModel, layout: Layout, items: list[_Read], options: EncodeOptions
) -> pa.RecordBatch:
    sides: dict[Side, SideRows] = {}
    pixels = [item.pixels for item in items if item.pixels is not None]
    if pixels:
        batch = normalised(torch.from_numpy(np.stack(pixels)))
        there = np.array([item.pixels is not None for item in items])
        sides["image"] = _side(encode_images(model, [batch]), there, options.one, options.fewer)
    titles = [item.product.title if "title" in options.sides else None for item in items]
    named = [title for title in titles if title is not None]
    if named:
        text = TextBatch.from_tokens(model.titles(named), model.titles.tokenizer.pad_id)
        there = np.array([title is not None for title in titles])
        sides["title"] = _side(encode_texts(model, [text]), there, options.one, Fewer())
    products, thumbnails = [item.product for item in items], [item.thumbnail for item in items]
    return to_batch(layout, products, thumbnails, sides, options.codebook)


def _side(encoded: EncodedItems, there: NDArray[np.bool_], one: One, fewer: Fewer) -> SideRows:
    vectors = encoded.vectors.to("cpu")
    return SideRows(there, fewer(vectors), one_of(encoded, one))


def one_of(encoded: EncodedItems, one: One) -> torch.Tensor:
    """[n, D] one unit vector an item: the class token's, or the mean of its list."""
    if one == "cls":
        return encoded.cls.cpu()
    return mean_vectors(encoded.vectors)


def mean_vectors(vectors: MultiVectors) -> torch.Tensor:
    """Return the mean vector of each item, with unit length, on the CPU: [n, D] float32."""
    return torch.nn.functional.normalize(vectors.to("cpu", torch.float32).mean(), dim=-1)


# --------------------------------------------------------------------------------- files of rows


@dataclass(frozen=True)
class _Job:
    part: Part
    out: Path
    checkpoint: str
    device: str
    layout: Layout
    options: EncodeOptions
    strict: bool
    codebook: Path | None  # read by each process: it is larger than all the rest of a job


@dataclass(frozen=True)
class Encoded:
    """What ``encode_catalogue`` made.

    Args:
        files: The files, in the catalogue's order.
        rows: Products in all of them.
        made: Files made now; the others were there already.
        skipped: Products left out (of the files made now).
    """

    files: list[Path]
    rows: int
    made: int
    skipped: int


def encode_catalogue(
    catalogue: Catalogue,
    out: Path,
    checkpoint: str,
    options: EncodeOptions,
    *,
    layout: Layout,
    device: str = "cpu",
    workers: Workers = 1,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Encoded:
    """Write one Arrow file (IPC) of rows for each part of a catalogue.

    A file appears whole; one that is there, of the same part, model and options, is not made
    again: run it again after any failure, and only what is missing is done.

    Args:
        catalogue: What to encode.
        out: The folder of the files.
        checkpoint: The model folder; every process loads it once.
        options: How products become rows.
        layout: Of the rows, of that model.
        device: Where the model runs.
        workers: Processes, or a Ray cluster.
        strict: Stop at the first broken product instead of leaving it out.
        progress: Where to report.

    Raises:
        InputError: The folder holds the vectors of another catalogue.
    """
    out.mkdir(parents=True, exist_ok=True)
    source = str(catalogue.source.resolve())
    require_own(out, source)
    write_text(out / MANIFEST, json.dumps({"source": source}, ensure_ascii=False))  # unfinished
    for remark in catalogue.remarks:
        progress.warn(remark)
    for old in out.glob(".part-*.part"):
        old.unlink(missing_ok=True)
    files = [out / f"{part.name}.arrow" for part in catalogue.parts]
    for extra in set(out.glob("part-*.arrow")) - set(files):
        extra.unlink()
    jobs = []
    book = None
    if options.codebook is not None:
        book = codebook_file(out, layout)
        with atomic_file(book) as temporary:
            temporary.write_bytes(options.codebook.to_bytes())
        options = replace(options, codebook=None)
    rows = skipped = 0
    for part, file in zip(catalogue.parts, files, strict=True):
        done = rows_done(file, part.digest, layout)
        if done is None:
            jobs.append(_Job(part, file, checkpoint, device, layout, options, strict, book))
        else:
            rows += done
    description = tr("Encoding {source}", source=catalogue.source)
    with progress.task(description, len(files), tr("files")) as task:
        task.advance(len(files) - len(jobs))
        for made, errors in run_jobs(encode_part, jobs, workers):
            rows += made
            skipped += len(errors)
            for error in errors:
                progress.warn(tr("left out: {error}", error=error))
            task.advance(1, products=rows)
    record = {
        "source": source,
        "rows": rows,
        "files": [file.name for file in files],
        "layout": asdict(layout),
    }
    write_text(out / MANIFEST, json.dumps(record, ensure_ascii=False))
    return Encoded(files, rows, len(jobs), skipped)


def encode_part(job: _Job) -> tuple[int, list[InputError]]:
    """One part to one file: how many rows, and what was left out. Runs in any process."""
    model = _model(job.checkpoint, job.device)
    skipped = Skipped(job.strict)
    options = job.options
    if job.codebook is not None:
        options = replace(options, codebook=_codebook(job.codebook))
    schema = job.layout.schema
    rows = 0
    with (
        atomic_file(job.out) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema.with_metadata(metadata(schema, job.part.digest))) as writer,
    ):
        for batch in encode_products(model, job.layout, job.part.products(), options, skipped):
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows, skipped.errors


@lru_cache(maxsize=1)
def _codebook(file: Path) -> Codebook:
    return Codebook.from_bytes(file.read_bytes())


@lru_cache(maxsize=1)
def _model(checkpoint: str, device: str) -> RetrievalModel:
    from bagformer_cli.models.checkpoint import load_model

    return load_model(checkpoint, device)
