"""``xmr compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Dataset, EvaluatedSplit
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Compare trained models on one dataset: recall in both directions, vectors and bytes per "
        "item, time per query, and the difference from the first model with its 95 % interval "
        "(paired bootstrap over the queries).\n\n"
        "    xmr compare runs/fast runs/shrinktofast runs/inflate"
    )
)
def compare(
    runs: Annotated[list[Path], typer.Argument(help=tr("Run folders or model folders."))],
    dataset: Dataset = "demo",
    split: EvaluatedSplit = "valid",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, compare, print."""
    from bagformer_cli.datasets import resolve
    from bagformer_cli.evaluation.compare import compare_folders
    from bagformer_cli.models.checkpoint import check_model_folder, find_checkpoint

    checkpoints = [find_checkpoint(run) for run in runs]
    for checkpoint in checkpoints:
        check_model_folder(checkpoint)
    with bars.progress() as progress:
        folder = resolve(dataset, progress=progress)
        measured = compare_folders(checkpoints, folder, split, progress)
    rows = [{"run": str(run), **row} for run, row in zip(runs, measured, strict=True)]
    report = {"dataset": dataset, "split": split, "runs": rows}
    console.result(report, lambda: _show(rows))


def _show(rows: list[dict[str, Any]]) -> None:
    columns = [
        tr("run"),
        tr("text → image"),
        tr("image → text"),
        tr("vectors per title"),
        tr("vectors per image"),
        tr("bytes per image"),
        tr("ms per query"),
        tr("difference from the first, 95 % interval"),
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
                _interval(row.get("difference")),
            ]
            for row in rows
        ],
        title=tr("Mean recall, percent"),
    )


def _interval(difference: dict[str, float] | None) -> str | None:
    if difference is None:
        return None
    return "{mean:+.2f} ({lower:+.2f} … {upper:+.2f})".format(**difference)
