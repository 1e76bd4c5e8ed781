"""``xmr encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()

# Shared with `xmr index build`.
Checkpoint = Annotated[
    Path | None,
    typer.Option(help=tr("A model folder or run folder. Default: the newest run under runs/.")),
]
SplitName = Annotated[
    str | None,
    typer.Option(help=tr("Of a dataset in MUGE form. Default: valid.")),
]
Root = Annotated[
    Path | None,
    typer.Option(help=tr("What relative image paths start from. Default: the table's folder.")),
]
Encoding = Annotated[str, typer.Option(help=tr("Of a table; Excel in China writes gb18030."))]
VectorDtype = Annotated[
    Literal["int8", "float16", "float32"],
    typer.Option(help=tr("Type of the stored vectors.")),
]
OneVector = Annotated[
    Literal["cls", "mean"],
    typer.Option(help=tr("Which single vector stands for an item in one-vector search.")),
]
Keep = Annotated[
    int | None,
    typer.Option(min=1, help=tr("Keep the first so many vectors of an image."), show_default=False),
]
Prune = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help=tr("Keep this share of an image's vectors: those most like its class token."),
        show_default=False,
    ),
]
Pool = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=tr("Cluster an image's vectors; so many become one."),
        show_default=False,
    ),
]
Thumbnail = Annotated[
    int, typer.Option(min=0, help=tr("Longer side of the thumbnails that are kept; 0: none."))
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help=tr("Stop at the first broken product instead of leaving it out.")
    ),
]
Batch = Annotated[int, typer.Option(min=1, help=tr("Products that go through the model at once."))]
Device = Annotated[
    str | None,
    typer.Option(help=tr("cpu, cuda … Default: a GPU if there is one."), show_default=False),
]


@app.command(
    help=tr(
        "Turn a pile of images or titles into files of vectors: one Arrow file for each piece of "
        "the input. It streams, whatever the size. Interrupted and run again, it makes only what "
        "is missing; several machines can share the work through Ray.\n\n"
        "    xmr encode photos/ --out vectors/\n\n"
        "    xmr encode products.csv --out vectors/ --pool 4\n\n"
        "    xmr encode data/muge --split test --out vectors/\n\n"
        "    xmr encode queries.txt --titles --out vectors/\n\n"
        "`xmr index build vectors/ INDEX` makes an index of them."
    )
)
def encode(
    source: Annotated[
        Path,
        typer.Argument(
            help=tr(
                "A folder of images; a CSV, TSV or JSONL with image paths and titles; MUGE's "
                "images file; a dataset in MUGE form; with --titles a text file."
            )
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help=tr("The folder of the files."))],
    checkpoint: Checkpoint = None,
    split: SplitName = None,
    titles: Annotated[
        bool, typer.Option("--titles", help=tr("The source has a title on each line."))
    ] = False,
    root: Root = None,
    encoding: Encoding = "utf-8",
    dtype: VectorDtype = "float16",
    one: OneVector = "cls",
    keep: Keep = None,
    prune: Prune = None,
    pool: Pool = None,
    thumbnail: Thumbnail = 256,
    piece_size: Annotated[
        int, typer.Option(min=1, help=tr("Products in one file (of MUGE's images: 32 MiB)."))
    ] = 2048,
    batch_size: Batch = 64,
    workers: Annotated[
        int, typer.Option(min=1, help=tr("Processes; each loads the model once."))
    ] = 1,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help=tr("What runs the work: processes on this machine, or Ray.")),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help=tr("Of a running Ray cluster. Default: one on this machine."), show_default=False
        ),
    ] = None,
    device: Device = None,
    strict: Strict = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, encode, print."""
    import time

    from bagformer_cli.data.catalogue import open_catalogue
    from bagformer_cli.data.shards import Ray

    catalogue = open_catalogue(
        source, split=split, root=root, encoding=encoding, piece_size=piece_size, titles=titles
    )
    from bagformer_cli.api import load
    from bagformer_cli.index.encode import EncodeOptions, encode_catalogue, layout_of
    from bagformer_cli.index.reduce import Fewer
    from bagformer_cli.models.checkpoint import find_checkpoint

    place = find_checkpoint(checkpoint)
    started = time.perf_counter()
    model = load(place, device).model
    options = EncodeOptions(
        dtype, one, fewer=Fewer(keep, prune, pool), thumbnail=thumbnail, batch_size=batch_size
    )
    with console.progress() as progress:
        made = encode_catalogue(
            catalogue,
            out,
            str(place.resolve()),
            options,
            layout=layout_of(model, options, catalogue.attributes, str(place.resolve())),
            device=str(model.device),
            workers=Ray(address) if engine == "ray" else workers,
            strict=strict,
            progress=progress,
        )
    report: dict[str, Any] = {
        "source": str(source),
        "out": str(out),
        "rows": made.rows,
        "files": len(made.files),
        "made": made.made,
        "skipped": made.skipped,
        "bytes": sum(file.stat().st_size for file in made.files),
        "checkpoint": str(place),
        "seconds": round(time.perf_counter() - started, 3),
    }
    console.result(report, lambda: show_encoded(report))


def show_encoded(report: dict[str, Any]) -> None:
    """Print what was made."""
    console.facts(
        {
            tr("products"): report["rows"],
            tr("left out"): report["skipped"],
            tr("files"): tr("{n} in {folder} ({made} made now)", n=report["files"],
                            folder=report["out"], made=report["made"]),
            tr("megabytes"): report["bytes"] / 1e6,
            tr("model"): report["checkpoint"],
        }
    )  # fmt: skip
