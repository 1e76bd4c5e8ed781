"""``xmr index``: build an index over a catalogue, add to it, remove from it, look at it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.formatting import duration
from bagformer_cli.cli.options import (
    Batch,
    Checkpoint,
    Device,
    Encoding,
    Keep,
    OneVector,
    Pool,
    Prune,
    Root,
    SplitName,
    Strict,
    Thumbnail,
    VectorDtype,
    catalogue_encoder,
)
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

app = App(tr("Build an index over a catalogue, add to it, remove from it, look at it."))

Source = Annotated[
    Path,
    typer.Argument(
        help=tr(
            "A folder of images; a CSV, TSV or JSONL with id, image, title, price …; a dataset in "
            "MUGE form; or a folder of xmr encode."
        )
    ),
]
Uri = Annotated[
    str,
    typer.Argument(help=tr("A folder, s3://bucket/path, or qdrant://host:6333/collection.")),
]


@app.command(
    help=tr(
        "Build an index over a catalogue.\n\n"
        "Columns of a table that are neither id nor image nor title become attributes, which "
        "`xmr search --where` filters by.\n\n"
        "    xmr index build products.csv index/\n\n"
        "    xmr index build photos/ index/ --checkpoint runs/muge\n\n"
        "    xmr index build data/muge s3://bucket/index --split test\n\n"
        "For very large catalogues run `xmr encode` first: it can be interrupted and shared among "
        "machines; then build from its folder."
    )
)
def build(
    catalogue: Source,
    uri: Uri,
    checkpoint: Checkpoint = None,
    split: SplitName = None,
    root: Root = None,
    encoding: Encoding = "utf-8",
    dtype: VectorDtype = "int8",
    one: OneVector = "cls",
    keep: Keep = None,
    prune: Prune = None,
    pool: Pool = None,
    thumbnail: Thumbnail = 256,
    batch_size: Batch = 64,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, help=tr("Qdrant: parts the collection is cut into."), show_default=False
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help=tr("Qdrant: copies of each part."), show_default=False),
    ] = None,
    device: Device = None,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, build, print."""
    import time

    from bagformer_cli.index.encoded import encoded_files

    started = time.perf_counter()
    placing = {"shards": shards, "replicas": replicas}
    files = encoded_files(catalogue) if catalogue.is_dir() else []
    with bars.progress() as progress:
        if files:
            from bagformer_cli.index.build import add_encoded
            from bagformer_cli.index.compression.codebook import layout_and_codebook
            from bagformer_cli.index.engines import create_engine

            layout, kept = layout_and_codebook(catalogue)
            engine = create_engine(uri, layout, kept, **placing)
            added = add_encoded(engine, catalogue, progress)
        else:
            found = _open(catalogue, split, root, encoding)
            from bagformer_cli.index.build import add_catalogue
            from bagformer_cli.index.engines import create_engine

            encoder = catalogue_encoder(
                found, checkpoint, device, keep=keep, prune=prune, pool=pool,
                progress=progress, dtype=dtype, one=one, thumbnail=thumbnail,
                batch_size=batch_size,
            )  # fmt: skip
            options = encoder.options
            engine = create_engine(uri, encoder.layout, options.codebook, **placing)
            added = add_catalogue(
                engine, encoder.model, found, options, strict=strict, progress=progress
            )
        if not added.rows:
            _discard(uri)
            raise _nothing(added, uri, catalogue)
        engine.optimize(progress)
    _finish(engine, added, started)


@app.command(
    help=tr(
        "Add products to an index; one whose id is there is replaced.\n\n"
        "    xmr index add more.csv index/"
    )
)
def add(
    catalogue: Source,
    uri: Uri,
    checkpoint: Checkpoint = None,
    split: SplitName = None,
    root: Root = None,
    encoding: Encoding = "utf-8",
    thumbnail: Thumbnail = 256,
    batch_size: Batch = 64,
    device: Device = None,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, add, print."""
    import time

    from bagformer_cli.index.encoded import encoded_files

    started = time.perf_counter()
    files = encoded_files(catalogue) if catalogue.is_dir() else []
    with bars.progress() as progress:
        if files:
            from bagformer_cli.index.build import add_encoded
            from bagformer_cli.index.engines import open_engine

            engine = open_engine(uri)
            added = add_encoded(engine, catalogue, progress)
        else:
            from bagformer_cli.index.build import add_catalogue
            from bagformer_cli.index.compression.reduction import Fewer
            from bagformer_cli.index.encode import EncodeOptions
            from bagformer_cli.index.search import Index

            index = Index.open(uri, checkpoint, device=device)
            engine, layout = index.engine, index.engine.layout
            found = _open(catalogue, split, root, encoding, layout.attributes)
            options = EncodeOptions(
                layout.dtype,
                layout.one,
                layout.sides,
                Fewer.from_json(layout.fewer),
                thumbnail,
                batch_size,
                codebook=engine.codebook,
            )
            added = add_catalogue(
                engine, index.model, found, options, strict=strict, progress=progress
            )
        if added.skipped and not added.rows:
            raise _nothing(added, uri, catalogue)
        engine.optimize(progress)
    for name in added.unknown:
        console.warn(tr("The index has no attribute '{name}': it is left out.", name=name))
    _finish(engine, added, started)


@app.command(
    help=tr(
        "Remove products by id, or those that a filter is true of.\n\n"
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
    """Parse, remove, print."""
    from bagformer_cli.index.engines import open_engine

    if not ids and where is None:
        raise InputError(
            tr("There is nothing to remove."),
            expected=tr("ids, or --where"),
            hint=tr("`{command}` shows its usage.", command="xmr index remove --help"),
        )
    engine = open_engine(uri)
    removed = engine.remove(ids or [], where)
    if ids and where is None and removed < len(set(ids)):
        console.warn(tr("{n} of the ids are not in the index.", n=len(set(ids)) - removed))
    report = {"index": uri, "removed": removed, "rows": engine.count()}
    console.result(
        report,
        lambda: console.facts({tr("removed"): removed, tr("products left"): report["rows"]}),
    )


@app.command(
    help=tr("Show what is in an index, and which model made it.\n\n    xmr index info index/")
)
def info(uri: Uri, as_json: Json = False, debug: Debug = False) -> None:
    """Look and print."""
    from dataclasses import asdict

    from bagformer_cli.index.engines import open_engine

    engine = open_engine(uri)
    report: dict[str, Any] = {
        "index": uri,
        "rows": engine.count(),
        **engine.info(),
        "layout": asdict(engine.layout),
    }
    console.result(report, lambda: show_info(report))


def _open(
    catalogue: Path,
    split: str | None,
    root: Path | None,
    encoding: str,
    types: dict[str, str] | None = None,
) -> Any:
    from bagformer_cli.data.catalogue.catalogue import open_catalogue

    return open_catalogue(catalogue, split=split, root=root, encoding=encoding, types=types)


def _nothing(added: Any, uri: str, catalogue: Path) -> InputError:
    """The error for a catalogue of which nothing came into the index."""
    if not added.skipped:
        return InputError(tr("The catalogue is empty: there is no product in it."), where=catalogue)
    return InputError(
        tr("Nothing came into the index: all {n} products were left out.", n=len(added.skipped)),
        where=uri,
        found=added.skipped[0],
    )


def _discard(uri: str) -> None:
    """Remove an index that was made just now; one on a server or shared storage stays, empty."""
    import shutil

    folder = Path(uri)
    if "://" in uri or not folder.is_dir():
        return
    for made in folder.iterdir():  # it may be a mount: what is in it goes first
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink()
    with suppress(OSError):
        folder.rmdir()


def _finish(engine: Any, added: Any, started: float) -> None:
    import time

    report = {
        "index": engine.uri,
        "added": added.rows,
        "skipped": [str(error) for error in added.skipped],
        "rows": engine.count(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    console.result(
        report,
        lambda: console.facts(
            {
                tr("index"): report["index"],
                tr("added"): report["added"],
                tr("left out"): len(added.skipped),
                tr("products in it"): report["rows"],
                tr("time"): duration(report["seconds"]),
            }
        ),
    )


def show_info(report: dict[str, Any]) -> None:
    """Print what is in an index."""
    layout = report["layout"]
    if report.get("unfinished"):
        console.warn(
            tr("It was left in the middle of being filled: products are missing."), report["index"]
        )
    console.facts(
        {
            tr("index"): report["index"],
            tr("engine"): report["engine"],
            tr("products in it"): report["rows"],
            **{
                tr("with an image") if side == "image" else tr("with a title"): count
                for side, count in report["sides"].items()
            },
            tr("vectors"): f"{layout['dtype']} × {layout['dim']}",
            tr("fewer vectors"): ", ".join(f"{k} {v}" for k, v in layout["fewer"].items()) or None,
            tr("single vector"): layout["one"],
            tr("attributes"): ", ".join(f"{k} ({v})" for k, v in layout["attributes"].items())
            or None,
            tr("model"): f"{layout['model']}  {layout['checkpoint']}",
            tr("megabytes"): report["bytes"] / 1e6,
        }
    )
