"""``xmr index``: build an index over a catalogue, add to it, remove from it, show it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.catalogue_encoder import catalogue_encoder
from bagformer_cli.cli.failures import invalid_value, needed_option
from bagformer_cli.cli.index_options import (
    MODEL_OPTIONS,
    Features,
    Source,
    Uri,
    is_encoded,
    is_same_file,
    refuse_encoding,
    refuse_options,
)
from bagformer_cli.cli.index_view import report_added, show_info
from bagformer_cli.cli.options import (
    Batch,
    Checkpoint,
    Columns,
    Device,
    Downloads,
    Encoding,
    Keep,
    Numbers,
    OneVector,
    Pool,
    Prune,
    Root,
    SheetName,
    SplitName,
    Strict,
    Thumbnail,
    Trust,
    VectorDtype,
    chosen_columns,
)
from bagformer_cli.errors import InputError, first_few
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.index.build import Added


app = App(tr("Build an index over a catalogue, add to it, remove from it, show it."))


@app.command(
    help=tr(
        "Build an index over a catalogue.\n\n"
        "Columns of a table other than id, image and title become attributes; `xmr search --where` "
        "filters by them.\n\n"
        "    xmr index build products.csv index/\n\n"
        "    xmr index build photos/ index/ --checkpoint runs/muge\n\n"
        "    xmr index build data/muge s3://bucket/index --split test\n\n"
        "    xmr index build products.csv index/ --features images.parquet\n\n"
        "For a very large catalogue run `xmr encode` first, which can be interrupted and spread "
        "over several machines; then build the index from its folder."
    )
)
def build(
    ctx: typer.Context,
    catalogue: Source,
    uri: Uri,
    features: Features = None,
    checkpoint: Checkpoint = None,
    split: SplitName = None,
    root: Root = None,
    encoding: Encoding = "utf-8",
    column: Columns = None,
    number: Numbers = None,
    sheet: SheetName = None,
    download: Downloads = "public",
    dtype: VectorDtype = "int8",
    one: OneVector = None,
    keep: Keep = None,
    prune: Prune = None,
    pool: Pool = None,
    thumbnail: Thumbnail = 256,
    batch_size: Batch = 64,
    shards: Annotated[
        int | None,
        typer.Option(min=1, help=tr("Qdrant: shards of the collection."), show_default=False),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help=tr("Qdrant: copies of each shard."), show_default=False),
    ] = None,
    device: Device = None,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build an index and print what it holds."""
    from bagformer_cli.index.build import add_catalogue, add_encoded
    from bagformer_cli.index.compression.codebook import layout_and_codebook
    from bagformer_cli.index.engines import create_engine

    if "://" not in uri:
        if shards is not None or replicas is not None:
            name = "--replicas" if shards is None else "--shards"
            raise needed_option("xmr index build", name, "qdrant://host:6333/collection (Qdrant)")
        from bagformer_cli.outputs import check_output_folder

        check_output_folder(Path(uri))
    started = time.perf_counter()
    with bars.progress() as progress:
        if features is not None:
            from bagformer_cli.index.features import add_features, features_layout
            from bagformer_cli.vectors.vector_files import read_vector_file

            refuse_options(ctx, features, MODEL_OPTIONS, tr("Leave it out."))
            items = read_vector_file(features, "image")
            products = None
            if not is_same_file(catalogue, features):
                products = _open(
                    catalogue, column, split=split, root=root, encoding=encoding, sheet=sheet,
                    download=download, numbers=number,
                )  # fmt: skip
            layout, codebook = features_layout(items, dtype, products)
            engine = create_engine(uri, layout, codebook, shards=shards, replicas=replicas)
            added = add_features(engine, items, products, strict=strict, progress=progress)
        elif is_encoded(catalogue):
            refuse_encoding(ctx, catalogue)
            layout, codebook = layout_and_codebook(catalogue)
            engine = create_engine(uri, layout, codebook, shards=shards, replicas=replicas)
            added = add_encoded(engine, catalogue, progress)
        else:
            products = _open(
                catalogue, column, split=split, root=root, encoding=encoding, sheet=sheet,
                download=download, numbers=number,
            )  # fmt: skip
            encoder = catalogue_encoder(
                products, checkpoint, device, keep=keep, prune=prune, pool=pool,
                progress=progress, dtype=dtype, single_vector=one, thumbnail=thumbnail,
                batch_size=batch_size, strict=strict,
            )  # fmt: skip
            options = encoder.options
            engine = create_engine(
                uri, encoder.layout, options.codebook, shards=shards, replicas=replicas
            )
            added = add_catalogue(engine, encoder.encoder, products, options, progress=progress)
        if not added.rows:
            _discard(uri)
            raise _nothing_added(added, uri, catalogue)
        engine.optimize(progress)
    report_added(engine, added, started)


@app.command(
    help=tr(
        "Add products to an index; a product with an existing id replaces the old one.\n\n"
        "    xmr index add more.csv index/\n\n"
        "    xmr index add more.csv index/ --features more.parquet"
    )
)
def add(
    ctx: typer.Context,
    catalogue: Source,
    uri: Uri,
    features: Features = None,
    checkpoint: Checkpoint = None,
    split: SplitName = None,
    root: Root = None,
    encoding: Encoding = "utf-8",
    column: Columns = None,
    number: Numbers = None,
    sheet: SheetName = None,
    download: Downloads = "public",
    thumbnail: Thumbnail = 256,
    batch_size: Batch = 64,
    trust: Trust = False,
    device: Device = None,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add to an index and print what it holds."""
    from dataclasses import replace
    from functools import partial

    from bagformer_cli.index.build import add_catalogue, add_encoded
    from bagformer_cli.index.encode import EncodeOptions
    from bagformer_cli.index.engines import open_engine
    from bagformer_cli.index.search import Index
    from bagformer_cli.index.terms import title_terms

    started = time.perf_counter()
    with bars.progress() as progress:
        if features is not None:
            from bagformer_cli.index.features import add_features, require_features_index
            from bagformer_cli.vectors.vector_files import read_vector_file

            refuse_options(ctx, features, MODEL_OPTIONS, tr("Leave it out."))
            engine = open_engine(uri)
            require_features_index(engine)
            items = read_vector_file(features, "image")
            given = None
            if not is_same_file(catalogue, features):
                given = _open(
                    catalogue, column, split=split, root=root, encoding=encoding, sheet=sheet,
                    download=download, types=engine.layout.attributes, numbers=number,
                )  # fmt: skip
            added = add_features(engine, items, given, strict=strict, progress=progress)
        elif is_encoded(catalogue):
            refuse_encoding(ctx, catalogue)
            engine = open_engine(uri)
            added = add_encoded(engine, catalogue, progress)
        else:
            index = Index.open(uri, checkpoint, device=device, trust=trust, progress=progress)
            engine = index.engine
            products = _open(
                catalogue, column, split=split, root=root, encoding=encoding, sheet=sheet,
                download=download, types=engine.layout.attributes, numbers=number,
            )  # fmt: skip
            engine.fill_terms(partial(title_terms, index.encoder.titles.segmenter))
            options = replace(
                EncodeOptions.of_layout(engine.layout, engine.codebook),
                thumbnail=thumbnail,
                batch_size=batch_size,
                strict=strict,
            )
            added = add_catalogue(engine, index.encoder, products, options, progress=progress)
        if added.unchanged:
            progress.warn(
                tr(
                    "Products that were left out and stay in the index as they were: {n} ({ids})",
                    n=len(added.unchanged),
                    ids=first_few(added.unchanged),
                )
            )
        if added.skipped and not added.rows:
            raise _nothing_added(added, uri, catalogue)
        engine.optimize(progress)
    for name in added.unknown:
        console.warn(tr("The index has no attribute '{name}': it is left out.", name=name))
    report_added(engine, added, started)


@app.command(
    help=tr(
        "Remove products by id or by a filter.\n\n"
        "    xmr index remove index/ p17 p18\n\n"
        '    xmr index remove index/ --where "price > 5000"'
    )
)
def remove(
    uri: Uri,
    ids: Annotated[list[str] | None, typer.Argument(help=tr("Ids of products."))] = None,
    where: Annotated[
        str | None,
        typer.Option(help=tr("A filter over id, title and attributes."), show_default=False),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove products and print how many are left."""
    from bagformer_cli.index.engines import open_engine

    if any(not one.strip() for one in ids or []):
        raise invalid_value("xmr index remove", tr("IDS"), "''", tr("ids that are not empty"))
    if not ids and where is None:
        raise InputError(
            tr("There is nothing to remove."),
            expected=tr("ids, or --where"),
            hint=tr("`{command}` shows its usage.", command="xmr index remove --help"),
        )
    engine = open_engine(uri)
    stored = engine.stored(ids or [])
    unknown = [name for name in dict.fromkeys(ids or []) if name not in stored]
    removed = engine.remove(ids or [], where)
    if unknown:
        console.warn(
            tr("Ids that are not in the index: {n} ({ids})", n=len(unknown), ids=first_few(unknown))
        )
    report = {"index": uri, "removed": removed, "unknown": unknown, "rows": engine.count()}
    console.result(
        report,
        lambda: console.facts({tr("removed"): removed, tr("products left"): report["rows"]}),
    )


@app.command(
    help=tr("Show what an index holds and which model made it.\n\n    xmr index info index/")
)
def info(uri: Uri, as_json: Json = False, debug: Debug = False) -> None:
    """Print the facts about an index."""
    from bagformer_cli.index.engines import open_engine

    engine = open_engine(uri)
    report: dict[str, Any] = {
        "index": uri,
        "rows": engine.count(),
        **engine.info(),
        "layout": engine.layout.to_json(),
    }
    console.result(report, lambda: show_info(report))


def _open(
    catalogue: Path, column: list[str] | None, *, numbers: list[str] | None, **options: Any
) -> Any:
    """Open a catalogue; the options are those of :func:`open_catalogue`."""
    from bagformer_cli.data.catalogue.catalogue import open_catalogue

    return open_catalogue(
        catalogue, columns=chosen_columns(column), numbers=numbers or (), **options
    )


def _nothing_added(added: Added, uri: str, catalogue: Path) -> InputError:
    """Return the error for a catalogue of which no product was added."""
    if not added.skipped:
        return InputError(tr("The catalogue contains no products."), where=catalogue)
    return InputError(
        tr("Nothing was added: all {n} products were left out.", n=len(added.skipped)),
        where=uri,
        found=added.skipped[0],
        hint=tr("The warnings above say why."),
    )


def _discard(uri: str) -> None:
    """Delete an empty index that was created just now; keep one on a server or shared storage."""
    import shutil

    folder = Path(uri)
    if "://" in uri or not folder.is_dir():
        return
    for made in folder.iterdir():  # the folder itself may be a mount, which cannot be deleted
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink()
    with suppress(OSError):
        folder.rmdir()
