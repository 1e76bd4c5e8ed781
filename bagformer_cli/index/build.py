"""A catalogue, or files of ``xmr encode``, into an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from bagformer_cli.data.catalogue.catalogue import Catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.index.encode import EncodeOptions, Skipped, encode_products
from bagformer_cli.index.encoded import encoded_files, layout_of_file, read_rows
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.rows import Layout
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress

ROWS_AT_ONCE = 2048
"""Rows of one commit: each is durable when it returns, and costs some ten milliseconds."""


@dataclass
class Added:
    """What came into an index.

    Args:
        rows: Products added or replaced.
        skipped: Products left out, and why.
        unknown: Attributes of the catalogue that the index does not have; left out.
    """

    rows: int = 0
    skipped: list[InputError] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def add_catalogue(
    engine: Engine,
    model: RetrievalModel,
    catalogue: Catalogue,
    options: EncodeOptions,
    *,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Added:
    """Encode a catalogue into an index; a product whose id is there is replaced.

    What was committed stays where this is interrupted; the same call again replaces it.

    Raises:
        DataError: ``strict``, and a product is broken or its id was there before.
    """
    skipped = Skipped(strict)
    added = Added(0, skipped.errors)
    layout = engine.layout
    added.unknown = sorted(set(catalogue.attributes) - set(layout.attributes))
    batches = encode_products(model, layout, _once(catalogue), options, skipped)
    description = tr("Encoding {source}", source=catalogue.source)
    for remark in catalogue.remarks:
        progress.warn(remark)
    warned = 0
    with (
        engine.filling(),
        progress.task(description, catalogue.count, tr("products")) as task,
    ):
        for rows in _grouped(batches):
            engine.upsert(rows)
            added.rows += rows.num_rows
            for error in skipped.errors[warned:]:
                progress.warn(tr("left out: {error}", error=error))
            warned = len(skipped.errors)
            task.advance(rows.num_rows)
    for error in skipped.errors[warned:]:
        progress.warn(tr("left out: {error}", error=error))
    return added


def add_encoded(engine: Engine, folder: Path, progress: Progress = SILENT) -> Added:
    """Bring the files of ``xmr encode`` into an index.

    Raises:
        InputError: They are of another model, or of another kind of vectors.
    """
    added = Added()
    seen: set[str] = set()
    files = encoded_files(folder)
    with (
        engine.filling(),
        progress.task(tr("Adding {source}", source=folder), len(files), tr("files")) as task,
    ):
        for file in files:
            layout = layout_of_file(file)
            engine.layout.require_same(layout, str(file))
            extra = set(layout.attributes) - set(engine.layout.attributes)
            added.unknown = sorted({*added.unknown, *extra})
            for rows in _grouped(read_rows(file)):
                new, twice = _new(rows, seen)
                for name in twice:
                    added.skipped.append(_twice(name, str(file)))
                    progress.warn(tr("left out: {error}", error=added.skipped[-1]))
                engine.upsert(_fitted(new, engine.layout))
                added.rows += new.num_rows
            task.advance(1, products=added.rows)
    return added


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together, so that a commit is worth its while."""
    group: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        group.append(batch)
        count += batch.num_rows
        if count >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(group)
            group, count = [], 0
    if group:
        yield pa.Table.from_batches(group)


def _once(products: Iterable[Product | InputError]) -> Iterator[Product | InputError]:
    """The products, an error in the place of each whose id was there before."""
    seen: set[str] = set()
    for product in products:
        if isinstance(product, Product) and product.id in seen:
            yield _twice(product.id, product.where)
            continue
        if isinstance(product, Product):
            seen.add(product.id)
        yield product


def _new(rows: pa.Table, seen: set[str]) -> tuple[pa.Table, list[str]]:
    """The rows whose ids were not ``seen`` before, and the ids of the others."""
    names = rows["id"].to_pylist()
    first = [name not in seen and not seen.add(name) for name in names]  # type: ignore[func-returns-value]
    twice = [name for name, new in zip(names, first, strict=True) if not new]
    return (rows.filter(pa.array(first)) if twice else rows), twice


def _twice(name: str, where: str) -> DataError:
    return DataError(
        tr("The id {id} is there twice.", id=name),
        where=where,
        hint=tr("Give each product an id of its own."),
    )


def _fitted(rows: pa.Table, layout: Layout) -> pa.Table:
    """The rows with the index's columns: attributes it lacks go, those it has come as nulls."""
    columns = []
    for wanted in layout.schema:
        if wanted.name not in rows.schema.names:
            columns.append(pa.nulls(rows.num_rows, wanted.type))
            continue
        try:
            columns.append(rows[wanted.name].cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                tr("The attribute '{name}' is of another type in the index.", name=wanted.name),
                found=error,
                expected=layout.attributes.get(wanted.name, wanted.type),
            ) from None
    return pa.table(columns, schema=layout.schema)
