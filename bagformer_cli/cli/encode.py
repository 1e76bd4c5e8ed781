"""``xmr encode``: encode a catalogue to vector files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.catalogue_encoder import catalogue_encoder
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
    RayAddress,
    Root,
    RunBy,
    Runtime,
    SheetName,
    SplitName,
    Strict,
    Thumbnail,
    VectorDtype,
    chosen_columns,
)
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Encode many images or titles to vector files in Arrow format, each of --piece-size "
        "products.\n\n"
        "Products are streamed, so the input may be larger than memory. After an interruption run "
        "the same command again: it writes only the files that are missing. Several machines can "
        "share the work through Ray.\n\n"
        "    xmr encode photos/ --out vectors/\n\n"
        "    xmr encode products.csv --out vectors/ --pool 4\n\n"
        "    xmr encode data/muge --split test --out vectors/\n\n"
        "    xmr encode queries.txt --titles --out vectors/\n\n"
        "`xmr index build vectors/ INDEX` builds an index from the files."
    ),
    needs={"--address": ["--engine ray"]},
)
def encode(
    source: Annotated[
        Path,
        typer.Argument(
            help=tr(
                "A folder of images; a CSV, TSV, JSONL or .xlsx file with image paths and titles; "
                "a MUGE images file; a MUGE dataset; or, with --titles, a text file."
            )
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help=tr("Output folder."))],
    checkpoint: Checkpoint = None,
    runtime: Runtime = "torch",
    split: SplitName = None,
    titles: Annotated[
        bool,
        typer.Option("--titles", help=tr("The input is a text file with a title on each line.")),
    ] = False,
    root: Root = None,
    encoding: Encoding = "utf-8",
    column: Columns = None,
    number: Numbers = None,
    sheet: SheetName = None,
    download: Downloads = "public",
    dtype: VectorDtype = "float16",
    one: OneVector = None,
    keep: Keep = None,
    prune: Prune = None,
    pool: Pool = None,
    thumbnail: Thumbnail = 256,
    piece_size: Annotated[
        int,
        typer.Option(
            min=1, help=tr("Products per file. A MUGE images file is divided by size: 32 MiB each.")
        ),
    ] = 2048,
    batch_size: Batch = 64,
    workers: Annotated[
        int, typer.Option(min=1, help=tr("Number of processes; each loads the model."))
    ] = 1,
    engine: RunBy = "local",
    address: RayAddress = None,
    device: Device = None,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Encode a catalogue and print what was written."""
    import time

    from bagformer_cli.data.catalogue.catalogue import open_catalogue
    from bagformer_cli.data.workers import Ray
    from bagformer_cli.outputs import check_output_folder

    check_output_folder(out)
    catalogue = open_catalogue(
        source,
        split=split,
        root=root,
        encoding=encoding,
        part_size=piece_size,
        titles=titles,
        columns=chosen_columns(column),
        numbers=number or (),
        sheet=sheet,
        download=download,
    )
    from bagformer_cli.index.encoded import ModelFolder, discard_encoded, encode_catalogue
    from bagformer_cli.runtime.folder import runtime_folder

    started = time.perf_counter()
    with bars.progress() as progress:
        encoder = catalogue_encoder(
            catalogue, checkpoint, device, runtime, keep=keep, prune=prune, pool=pool,
            progress=progress, folder=out, dtype=dtype, single_vector=one, thumbnail=thumbnail,
            batch_size=batch_size, strict=strict,
        )  # fmt: skip
        made = encode_catalogue(
            catalogue,
            out,
            ModelFolder(str(runtime_folder(encoder.checkpoint, runtime).resolve()), device),
            encoder.layout,
            encoder.options,
            workers=Ray(address) if engine == "ray" else workers,
            progress=progress,
        )
    if not made.rows:
        discard_encoded(out)
        raise InputError(
            tr("Nothing was encoded: all {n} products were left out.", n=made.skipped),
            where=source,
            hint=tr("The warnings above say why."),
        )
    report: dict[str, Any] = {
        "source": str(source),
        "out": str(out),
        "rows": made.rows,
        "files": len(made.files),
        "made": made.made,
        "skipped": made.skipped,
        "bytes": sum(file.stat().st_size for file in made.files),
        "checkpoint": str(encoder.checkpoint),
        "seconds": round(time.perf_counter() - started, 3),
    }
    console.result(report, lambda: show_encoded(report, titles))


def show_encoded(report: dict[str, Any], titles: bool = False) -> None:
    """Print what was written: vectors of products, or of ``titles``."""
    files = tr(
        "{n} in {folder} ({made} written now)",
        n=report["files"],
        folder=report["out"],
        made=report["made"],
    )
    console.facts(
        {
            tr("titles encoded") if titles else tr("products encoded"): report["rows"],
            tr("left out"): report["skipped"],
            tr("vector files"): files,
            tr("megabytes"): report["bytes"] / 1e6,
            tr("model"): report["checkpoint"],
        }
    )
