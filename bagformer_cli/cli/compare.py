"""``xmr compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import EvaluatedSplit, TrainedDataset
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Compare trained models on one dataset: recall in both directions, vectors and bytes per "
        "item, time per query, and the difference from the first model with its 95 % interval "
        "(paired bootstrap over the queries).\n\n"
        "Without --dataset, the models must have been trained on the same dataset, which is used."
        "\n\n"
        "    xmr compare runs/fast runs/shrinktofast runs/inflate\n\n"
        "    xmr compare runs/fast hf:OFA-Sys/chinese-clip-vit-base-patch16 vectors/ --dataset muge"
    )
)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help=tr(
                "Run folders or model folders; hf:NAME, st:NAME or open_clip:NAME for models of "
                "other libraries; folders with the vector files texts.* and images.*."
            )
        ),
    ],
    dataset: TrainedDataset = None,
    split: EvaluatedSplit = "valid",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, compare, print."""
    from bagformer_cli.datasets import recall_before_training, resolve
    from bagformer_cli.evaluation.compare import compare_folders
    from bagformer_cli.evaluation.open_source import own_folder

    own = {run: own_folder(run) for run in runs}
    name = dataset or _common_dataset(own)
    with bars.progress() as progress:
        folder = resolve(name, progress=progress)
        measured = compare_folders([own[run] or run for run in runs], folder, split, progress)
    rows = [{"run": run, **row} for run, row in zip(runs, measured, strict=True)]
    for row in rows:
        checkpoint = own[str(row["run"])]
        if checkpoint is not None and (start := recall_before_training(checkpoint, name, split)):
            row["before_training"] = start
    report = {"dataset": name, "split": split, "runs": rows}
    console.result(report, lambda: _show(report))


def _common_dataset(own: dict[str, Path | None]) -> str:
    """Return the dataset that all models were trained on.

    Args:
        own: The model folder of each run; None: it is no model of this project.

    Raises:
        InputError: They were trained on different datasets, or some by another program.
    """
    from bagformer_cli.datasets import folder_of, own_dataset
    from bagformer_cli.errors import InputError, joined, listed, with_place

    others = [run for run, folder in own.items() if folder is None]
    if others:
        raise InputError(
            tr("The dataset of a model that another program trained is not known."),
            found=listed(others),
            hint=tr("Name the dataset on which all are to be measured: --dataset FOLDER"),
        )
    found = {run: own_dataset(folder) for run, folder in own.items() if folder is not None}
    if len({folder_of(name).resolve() for name in found.values()}) > 1:
        pairs = [with_place(name, run) for run, name in found.items()]
        raise InputError(
            tr("These models were trained on different datasets."),
            found=joined(pairs),
            hint=tr("Name the dataset on which all are to be measured: --dataset FOLDER"),
        )
    return next(iter(found.values()))


def _show(report: dict[str, Any]) -> None:
    """Print two tables that fit a terminal of 80 columns: recall, then the cost of each model."""
    from bagformer_cli.models.runs import short_names

    rows = report["runs"]
    names = short_names([row["run"] for row in rows])
    has_start = any(_start(row) is not None for row in rows)
    console.table(
        [
            tr("model"),
            *([tr("before training")] if has_start else []),
            tr("text → image"),
            tr("image → text"),
            *([tr("difference (95 %)")] if len(rows) > 1 else []),
        ],
        [
            [
                name,
                *([_start(row)] if has_start else []),
                row["text_to_image"]["mean_recall"],
                row["image_to_text"]["mean_recall"],
                *([_interval(row.get("difference"))] if len(rows) > 1 else []),
            ]
            for name, row in zip(names, rows, strict=True)
        ],
        title=tr(
            "{dataset} {split}: mean recall in percent",
            dataset=report["dataset"],
            split=report["split"],
        ),
    )
    if has_start:
        console.say(tr("before training: text → image before the first step of the run."))
    if len(rows) > 1:
        console.say(
            tr(
                "difference: text → image minus that of the first run; if its 95 % interval "
                "contains 0, the difference may be chance."
            )
        )
    console.say()
    console.table(
        [
            tr("model"),
            tr("per title"),
            tr("per image"),
            tr("bytes per image"),
            tr("ms per query"),
        ],
        [
            [
                name,
                row["vectors"]["title"],
                row["vectors"]["image"],
                row["image_bytes"],
                row["query_ms"],
            ]
            for name, row in zip(names, rows, strict=True)
        ],
        title=tr("Vectors per title and image, size, search time"),
    )


def _start(row: dict[str, Any]) -> float | None:
    """Return the mean recall before training, text to image, in percent; None: unknown."""
    start = row.get("before_training")
    return None if start is None else start["text_to_image"]["mean_recall"]


def _interval(difference: dict[str, float] | None) -> str:
    if difference is None:
        return "–"
    return "{mean:+.2f} ({lower:+.2f} … {upper:+.2f})".format(**difference)
