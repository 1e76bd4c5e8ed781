"""``xmr data``: make, check and import datasets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import (
    MAX_SEED,
    Columns,
    DatasetArgument,
    Downloads,
    SheetName,
    chosen_columns,
)
from bagformer_cli.errors import listed, with_place
from bagformer_cli.messages import tr

app = App(tr("Make, check and import datasets in MUGE form."))


@app.command(
    help=tr(
        "Draw a demo dataset: pictures of products with Chinese titles and queries, in three "
        "splits. The same seed draws the same pictures.\n\n"
        "With --benchmark: two pools without a training split, to choose settings on one and to "
        "compare models on the other, with sets of queries that each test one ability. `xmr eval` "
        "prints recall on each set.\n\n"
        "    xmr data demo --out data/mine --images 10000 --seed 1\n\n"
        "    xmr data demo --out data/bench --benchmark --images 2000"
    )
)
def demo(
    out: Annotated[Path, typer.Option("--out", help=tr("Output folder."))],
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=tr(
                "Number of pictures: in all three splits (3000), or with --benchmark in each of "
                "the two pools (2000)."
            ),
            show_default=False,
        ),
    ] = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help=tr("Draw the benchmark instead of a demo dataset."))
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help=tr("Random seed."))] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help=tr("Number of drawing processes. Default: one per core."), show_default=""
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, draw, print."""
    from bagformer_cli.demo import write_benchmark, write_demo
    from bagformer_cli.outputs import check_output_folder

    check_output_folder(out)
    draw, usual = (write_benchmark, 2000) if benchmark else (write_demo, 3000)
    images = usual if images is None else images
    with bars.progress() as progress:
        draw(out, images=images, seed=seed, workers=workers, progress=progress)
    found = {"folder": out, "images": images, "seed": seed}

    def show() -> None:
        console.say(tr("Drawn: {folder}", folder=out))
        if benchmark:
            command = f"xmr eval --checkpoint runs/demo --dataset {out} --split test"
            console.next_steps([(command, tr("measure a model on it"))])
            return
        console.next_steps([(f"xmr train --config demo --dataset {out}", tr("train on it"))])

    console.result(found, show)


@app.command(
    help=tr(
        "Extract image regions of a dataset to TSV files in its folder, for configurations with "
        "image.regions. Regions are crops, encoded by a small fixed network; with --checkpoint, "
        "they are the grid cells of the model's image backbone; with --vinvl, those of a detector "
        "(the file that Oscar and ALADIN read).\n\n"
        "    xmr data regions demo --checkpoint runs/demo\n\n"
        "    xmr data regions data/coco --vinvl features.tsv"
    ),
    apart=[("--width", "--checkpoint"), ("--vinvl", "--checkpoint")],
)
def regions(
    folder: DatasetArgument,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=tr("Model whose backbone gives the regions. Default: crops.")),
    ] = None,
    vinvl: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "Region file of VinVL: image key, number of regions, base64 of float32 features "
                "with the box in the last six columns. Keys are image ids."
            )
        ),
    ] = None,
    width: Annotated[
        int,
        typer.Option(min=1, help=tr("Features per region, without its box, for crops and VinVL.")),
    ] = 2048,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, extract, print."""
    from bagformer_cli.config import RegionsConfig
    from bagformer_cli.data.regions import Regions, crop_regions, write_regions
    from bagformer_cli.data.vinvl import VinvlFile, vinvl_regions
    from bagformer_cli.datasets import ensure_store, resolve

    model = None
    source = None if vinvl is None else VinvlFile(vinvl, width)
    if checkpoint is not None:
        from bagformer_cli.models.checkpoint import load_model
        from bagformer_cli.models.runs import find_checkpoint

        model = load_model(find_checkpoint(checkpoint))
    written = {}
    with bars.progress() as progress:
        dataset = resolve(folder, progress=progress)
        store = ensure_store(dataset, None, progress=progress)
        for name in store.splits:
            split = store.split(name)
            path = dataset.path / RegionsConfig().files.format(split=name)
            found: Iterable[tuple[int, Regions]]
            if source is not None:
                found = vinvl_regions(source, split, progress)
            elif model is None:
                found = crop_regions(split, width, progress)
            else:
                from bagformer_cli.models.backbone_regions import grid_regions

                found = grid_regions(model, split, progress=progress)
            written[str(path)] = write_regions(path, found)
    console.result({"files": written}, lambda: console.facts(dict(written.items())))


@app.command(
    help=tr(
        "Read every line and decode every image of a dataset. Prints each broken line with its "
        "file and number, and the counts of each split. Exit code 2 if something is broken.\n\n"
        "    xmr data check data/muge"
    )
)
def check(
    folder: DatasetArgument,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help=tr("Number of decoding processes. Default: one per core."), show_default=""
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, check, print."""
    from dataclasses import asdict

    from bagformer_cli.data.check import check_folder
    from bagformer_cli.datasets import resolve
    from bagformer_cli.machine import usable_cores

    with bars.progress() as progress:
        dataset = resolve(folder, progress=progress)
        report = check_folder(dataset, workers or usable_cores(), progress)
    found = {"ok": report.ok, **asdict(report)}

    def show() -> None:
        for problem in report.problems:
            text = problem.message
            if problem.found:
                text = tr("{message} ({details})", message=text, details=problem.found)
            console.say(with_place(text, problem.where))
        columns = [
            tr("split"),
            tr("queries"),
            tr("images"),
            tr("pairs"),
            tr("images without query"),
            tr("queries without image"),
            tr("queries with several images"),
            tr("longest query"),
        ]
        rows = [
            (
                name,
                split.queries,
                split.images,
                split.pairs,
                split.images_without_query,
                split.queries_without_image,
                split.queries_with_several_images,
                split.longest_query,
            )
            for name, split in report.splits.items()
        ]
        console.heading(str(dataset.path))
        console.table(columns, rows)
        console.say()
        hidden = [name for name, split in report.splits.items() if split.answers_hidden]
        if hidden:
            console.say(
                tr(
                    "The answers of {splits} are hidden: no query names its images. Recall cannot "
                    "be measured on it; `xmr eval --submission` writes what a model finds.",
                    splits=listed(hidden),
                )
            )
        if report.ok:
            console.say(tr("Nothing is broken."))
        else:
            console.say(tr("{n} broken lines or files.", n=len(report.problems)))

    console.result(found, show)
    if not report.ok:
        raise typer.Exit(2)


@app.command(
    "import",
    help=tr(
        "Import a dataset in MUGE form from a CSV, TSV, JSONL or .xlsx table of image paths and "
        "titles, or from Chinese-CLIP's LMDB folder.\n\n"
        "    xmr data import products.csv --out data/products --valid 0.1\n\n"
        "    xmr data import datasets/MUGE/lmdb --out data/muge\n\n"
        "A table needs the columns image and title; id, image_id, query_id and split are optional. "
        "Rows with the same title become one query with several images. Ids that are not whole "
        "numbers are kept in the file ids.jsonl."
    ),
)
def import_data(
    source: Annotated[
        Path, typer.Argument(help=tr("Table (.csv, .tsv, .jsonl, .xlsx) or LMDB folder."))
    ],
    out: Annotated[Path, typer.Option("--out", help=tr("Output folder."))],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            "--images",
            help=tr(
                "Folder that relative image paths start from and that all images must be inside. "
                "Default: the folder of the table, and images may be anywhere."
            ),
            rich_help_panel=tr("Tables"),
            show_default="",
        ),
    ] = None,
    split: Annotated[
        Literal["train", "valid", "test"],
        typer.Option(
            help=tr("Split for rows without a split value."), rich_help_panel=tr("Tables")
        ),
    ] = "train",
    valid: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help=tr("Share (0 to 1) of the rows without a split value that goes to validation."),
            rich_help_panel=tr("Tables"),
        ),
    ] = 0.0,
    test: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help=tr("Share (0 to 1) of the rows without a split value that goes to testing."),
            rich_help_panel=tr("Tables"),
        ),
    ] = 0.0,
    encoding: Annotated[
        str,
        typer.Option(
            help=tr("Text encoding of the table. Chinese Excel usually writes gb18030."),
            rich_help_panel=tr("Tables"),
        ),
    ] = "utf-8",
    column: Columns = None,
    sheet: SheetName = None,
    download: Downloads = "public",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help=tr("Stop at the first broken row instead of leaving it out.")
        ),
    ] = False,
    naming: Annotated[
        Literal["query", "text"] | None,
        typer.Option(
            help=tr(
                "File names: query (MR_train_queries.jsonl) or text (train_texts.jsonl). "
                "Default: query for tables, text for an LMDB."
            ),
            show_default="",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, import, print."""
    from dataclasses import asdict

    from bagformer_cli.data.importing.lmdb_import import import_lmdb
    from bagformer_cli.data.importing.table_import import ImportOptions, import_table

    with bars.progress() as progress:
        if source.is_dir():
            done = import_lmdb(
                source, out, naming=naming or "text", strict=strict, progress=progress
            )
        else:
            options = ImportOptions(
                root,
                split,
                valid,
                test,
                naming or "query",
                encoding,
                strict,
                download,
                chosen_columns(column),
                sheet,
            )
            done = import_table(source, out, options, progress)
    found = {
        "folder": out,
        "splits": {name: asdict(part) for name, part in done.splits.items()},
        "skipped": [str(error) for error in done.left_out],
        "ids": done.ids,
    }

    def show() -> None:
        columns = [tr("split"), tr("queries"), tr("images"), tr("pairs")]
        rows = [(n, part.queries, part.images, part.pairs) for n, part in done.splits.items()]
        console.table(columns, rows, title=str(out))
        if done.left_out:
            console.say(tr("left out: {n}", n=len(done.left_out)))
        if done.ids is not None:
            console.say(tr("The ids of the table are in {path}.", path=done.ids))
        console.next_steps(
            [
                (f"xmr data check {out}", tr("check it")),
                (
                    f"xmr train --config demo --dataset {out}",
                    tr("train a small model from scratch, without downloads"),
                ),
                (
                    f"xmr train --dataset {out}",
                    tr("or the full-size model, from pretrained encoders"),
                ),
            ]
        )

    console.result(found, show)
