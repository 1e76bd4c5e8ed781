"""Add a catalogue, or the files of ``xmr encode``, to an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bagformer_cli.config.expected import type_word
from bagformer_cli.data.catalogue.catalogue import Catalogue
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.errors import DataError, InputError
from bagformer_cli.index.encode import EncodeOptions, encode_products
from bagformer_cli.index.encoded import encoded_files, layout_of_file, read_rows
from bagformer_cli.index.engine import Engine
from bagformer_cli.index.rows import TERMS, Layout
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import AnyEncoder, encoder_of
from bagformer_cli.progress import SILENT, Progress

MAX_DIGITS = 18  # of the number of a line
ROWS_PER_COMMIT = 2048  # a commit takes some ten milliseconds


@dataclass
class Added:
    """The outcome of adding products to an index.

    Args:
        rows: The number of products added or replaced.
        replaced: How many of them replaced a product of the same id.
        skipped: The products left out, as errors.
        unknown: Attributes of the catalogue that the index does not have; they were left out.
        unchanged: Ids of products that were left out and are in the index: it keeps an older
            version of them.
    """

    rows: int = 0
    replaced: int = 0
    skipped: list[InputError] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def add_catalogue(
    engine: Engine,
    model: AnyEncoder,
    catalogue: Catalogue,
    options: EncodeOptions,
    *,
    progress: Progress = SILENT,
) -> Added:
    """Encode a catalogue into an index; a product with an existing id replaces the old one.

    Rows that were committed before an interruption stay. Running this again replaces them.

    Args:
        engine: The index.
        model: Its model.
        catalogue: The products.
        options: How products become rows; they must make rows of the index's layout.
        progress: Where to report.

    Raises:
        DataError: ``options.strict``, and a product cannot be read or its id occurs twice.
    """
    left_out = LeftOut(progress, strict=options.strict)
    added = Added(skipped=left_out.errors)
    layout = engine.layout
    added.unknown = sorted(set(catalogue.attributes) - set(layout.attributes))
    products = unique_products(catalogue)
    encoder = encoder_of(model)
    batches = encode_products(encoder, layout, products, options, left_out)
    description = tr("Encoding {source}", source=catalogue.source)
    catalogue.remarks.report(progress)
    source = str(Path(catalogue.source).resolve())
    with (
        engine.filling(source),
        progress.task(description, catalogue.count, tr("{n} products", n="{n}")) as task,
    ):
        for rows in _grouped(batches):
            added.replaced += engine.upsert(rows)
            added.rows += rows.num_rows
            task.advance(rows.num_rows)
    left_out.finish()
    missed = [error.product for error in left_out.errors if error.product is not None]
    stored = engine.stored(list(dict.fromkeys(missed)))
    added.unchanged = [name for name in dict.fromkeys(missed) if name in stored]
    encoder.titles.warn_of_cut(progress.warn)
    return added


def add_encoded(engine: Engine, folder: Path, progress: Progress = SILENT) -> Added:
    """Add the files of ``xmr encode`` to an index.

    Files of an earlier version hold no words of titles. Their titles are counted in a warning if
    the index is searched by words.

    Raises:
        InputError: Another model made them, or their vectors have another form.
    """
    left_out = LeftOut(progress)
    added = Added(skipped=left_out.errors)
    seen: set[str] = set()
    wordless = 0
    files = encoded_files(folder)
    description = tr("Adding {source}", source=folder)
    source = str(folder.resolve())
    with (
        engine.filling(source),
        progress.task(description, len(files), tr("{n} files", n="{n}")) as task,
    ):
        for file in files:
            layout = layout_of_file(file)
            engine.layout.require_same(layout, str(file))
            extra = set(layout.attributes) - set(engine.layout.attributes)
            added.unknown = sorted({*added.unknown, *extra})
            for rows in _grouped(read_rows(file)):
                new, repeated = _split_repeated(rows, seen)
                for name in repeated:
                    left_out(_repeated(name, str(file)))
                fitted = _fitted(new, layout, engine.layout)
                wordless += _count_wordless(fitted)
                added.replaced += engine.upsert(fitted)
                added.rows += new.num_rows
            task.advance(1, **{tr("number of products"): added.rows})
    left_out.finish()
    if wordless:
        progress.warn(
            tr(
                "{n} titles of these files have no words, so --fusion does not find them: an "
                "earlier version of xmr encode wrote the files. The next `xmr index add` of a "
                "table or a folder of images adds the words.",
                n=f"{wordless:,}",
            )
        )
    return added


def _count_wordless(rows: pa.Table) -> int:
    """Count the titles without terms, in rows that have a column of terms."""
    if TERMS not in rows.schema.names:
        return 0
    return int(pc.sum(pc.and_(rows["title"].is_valid(), rows[TERMS].is_null())).as_py() or 0)


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches into tables of at least ``ROWS_PER_COMMIT`` rows."""
    group: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        group.append(batch)
        count += batch.num_rows
        if count >= ROWS_PER_COMMIT:
            yield pa.Table.from_batches(group)
            group, count = [], 0
    if group:
        yield pa.Table.from_batches(group)


def unique_products(products: Iterable[Product | InputError]) -> Iterator[Product | InputError]:
    """Yield the products; an error in place of each one whose id occurred before.

    An error of a product that another row of the catalogue does give loses the product's id.
    """
    seen: dict[str, int] = {}  # id to the line of its row
    broken: dict[str, list[InputError]] = {}
    for product in products:
        if isinstance(product, InputError):
            if product.product in seen:
                product.product = None
            elif product.product is not None:
                broken.setdefault(product.product, []).append(product)
        elif product.id in seen:
            product = _repeated(product.id, product.where, seen[product.id])
        else:
            seen[product.id] = _line_of(product.where)
            for error in broken.pop(product.id, ()):
                error.product = None
        yield product


def _split_repeated(rows: pa.Table, seen: set[str]) -> tuple[pa.Table, list[str]]:
    """Return the rows with ids that are not in ``seen``, and the other ids; update ``seen``."""
    first, repeated = [], []
    for name in rows["id"].to_pylist():
        first.append(name not in seen)
        if name in seen:
            repeated.append(name)
        seen.add(name)
    return (rows.filter(pa.array(first)) if repeated else rows), repeated


def _line_of(where: str) -> int:
    """Return the line of ``file:line``, or 0: texts of millions of places would take much memory.

    >>> _line_of("t.csv:17"), _line_of("images/1.jpg")
    (17, 0)
    """
    line = where[where.rfind(":") + 1 :]
    return int(line) if line.isdecimal() and len(line) < MAX_DIGITS else 0


def _repeated(name: str, where: str, line: int = 0) -> DataError:
    """Return the error for a second product of an id; ``line``: that of the first; 0: unknown."""
    if line:
        kept = tr("The row of line {n} is kept, this one is not.", n=line)
    else:
        kept = tr("The first one is kept, this one is not.")
    hint = tr("Give each product its own id.")
    return DataError(
        tr("The id {id} occurs twice.", id=name),
        where=where,
        hint=tr("{sentence} {hint}", sentence=kept, hint=hint),
    )


def _fitted(rows: pa.Table, given: Layout, layout: Layout) -> pa.Table:
    """Return rows with the columns of an index: extra ones are dropped, missing ones are null.

    Args:
        rows: The rows.
        given: Their layout.
        layout: The index's.
    """
    columns = []
    for wanted in layout.schema:
        if wanted.name not in rows.schema.names:
            columns.append(pa.nulls(rows.num_rows, wanted.type))
            continue
        kinds = [one.attributes.get(wanted.name) for one in (given, layout)]
        try:
            if kinds == ["str", "date"]:  # both are text, but of different forms
                raise pa.ArrowInvalid
            columns.append(rows[wanted.name].cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                tr("The attribute '{name}' has another type in the index.", name=wanted.name),
                expected=type_word(layout.attributes.get(wanted.name, str(wanted.type))),
            ) from None
    return pa.table(columns, schema=layout.schema)
