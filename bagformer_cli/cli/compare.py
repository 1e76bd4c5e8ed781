"""``xmr compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Dataset
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Put trained models side by side: recall both ways, vectors and bytes an item, time of a "
        "query, and whether each is better or worse than the first for certain (paired bootstrap "
        "over the queries).\n\n"
        "    xmr compare runs/fast runs/shrinktofast runs/inflate"
    )
)
def compare(
    runs: Annotated[list[Path], typer.Argument(help=tr("Run folders or model folders."))],
    dataset: Dataset = "demo",
    split: Annotated[Literal["valid", "test", "train"], typer.Option()] = "valid",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, measure, print."""
    from bagformer_cli.datasets import ensure_store, resolve
    from bagformer_cli.evaluation.compare import measure, paired_bootstrap
    from bagformer_cli.models.checkpoint import check_model_folder, find_checkpoint, load_model

    places = [find_checkpoint(run) for run in runs]
    for place in places:
        check_model_folder(place)
    rows: list[dict[str, Any]] = []
    first = None
    with bars.progress() as progress:
        folder = resolve(dataset, progress=progress)
        for run, place in zip(runs, places, strict=True):
            model = load_model(place)
            store = ensure_store(folder, model.titles, splits=[split], progress=progress)
            found = measure(model, store.split(split), progress)
            row: dict[str, Any] = {
                "run": str(run),
                "text_to_image": found.text_to_image.percent(),
                "image_to_text": found.image_to_text.percent(),
                "vectors": {"title": found.title_vectors, "image": found.image_vectors},
                "image_bytes": found.image_bytes,
                "query_ms": found.query_ms,
            }
            if first is None:
                first = found.ranks
            else:
                gap = paired_bootstrap([found.ranks], [first])
                row["difference"] = {"mean": gap.mean, "lower": gap.lower, "upper": gap.upper}
            rows.append(row)
    report = {"dataset": dataset, "split": split, "runs": rows}
    console.result(report, lambda: _show(rows))


def _show(rows: list[dict[str, Any]]) -> None:
    columns = [
        tr("run"),
        tr("text → image"),
        tr("image → text"),
        tr("vectors a title"),
        tr("vectors an image"),
        tr("bytes an image"),
        tr("ms a query"),
        tr("against the first (95 %)"),
    ]
    console.table(
        columns,
        [
            [
                row["run"],
                row["text_to_image"]["mean_recall"],
                row["image_to_text"]["mean_recall"],
                row["vectors"]["title"],
                row["vectors"]["image"],
                row["image_bytes"],
                row["query_ms"],
                _gap(row.get("difference")),
            ]
            for row in rows
        ],
        title=tr("Mean recall, percent"),
    )


def _gap(difference: dict[str, float] | None) -> str | None:
    if difference is None:
        return None
    return "{mean:+.2f} ({lower:+.2f} … {upper:+.2f})".format(**difference)
