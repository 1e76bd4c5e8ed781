"""``xmr preprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Dataset, RayAddress, RunBy, TrainingMode
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Cut the titles of a dataset into tokens and bags, and store its images for random "
        "access. `xmr train` and `xmr eval` do this if it is not done. Broken images are left out "
        "and named. Give the same --dataset, --config, --mode and --set as to `xmr train`, because "
        "they decide how titles are cut. Tokens made with other settings are kept.\n\n"
        "    xmr preprocess --dataset muge --workers 8\n\n"
        "    xmr preprocess --dataset muge --mode inflate --text-only\n\n"
        "After an interruption run the same command again: it continues where it stopped. After "
        "a change of the input it only redoes the parts that changed."
    ),
    needs={"--address": ["--engine ray"]},
)
def preprocess(
    dataset: Dataset = "demo",
    text_only: Annotated[
        bool, typer.Option("--text-only", help=tr("Process titles only, not images."))
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help=tr("Processes that read images. Default: one per core."), show_default=""
        ),
    ] = None,
    engine: RunBy = "local",
    address: RayAddress = None,
    config: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Config file or built-in config. Its tokenizer, dictionaries and title length "
                "are used. Default: the one that `xmr train` takes for the dataset."
            ),
        ),
    ] = None,
    mode: TrainingMode = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar=tr("KEY=VALUE"),
            help=tr("Change one setting, for example text.max_tokens=32."),
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, preprocess, print."""
    import time

    from bagformer_cli.config import default_config, load_config
    from bagformer_cli.data.workers import Ray
    from bagformer_cli.datasets import ensure_store, resolve
    from bagformer_cli.text.from_config import build_titles

    chosen = config or default_config(dataset, mode=mode)
    settings = load_config(chosen, overrides or [], mode)
    started = time.perf_counter()
    with bars.progress() as progress:
        folder = resolve(dataset, progress=progress)
        store = ensure_store(
            folder,
            build_titles(settings, progress),
            text_only=text_only,
            workers=Ray(address) if engine == "ray" else workers,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    rows = []
    for name in store.splits:
        split = store.split(name)
        images = None if text_only else len(split.image_ids)
        tokens, bags = len(split.tokens.ids), len(split.tokens.bag_starts)
        rows.append((name, len(split.query_ids), tokens, bags, images))
    keys = ("split", "queries", "tokens", "bags", "images")
    found = {
        "dataset": folder.path,
        "config": chosen,
        "store": store.path,
        "splits": [dict(zip(keys, row, strict=True)) for row in rows],
        "seconds": seconds,
    }

    def show() -> None:
        columns = [tr("split"), tr("queries"), tr("tokens"), tr("bags"), tr("images")]
        console.table(columns, rows, title=str(Path(store.path)))

    console.result(found, show)
