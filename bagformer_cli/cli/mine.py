"""``xmr mine``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Checkpoint, TrainedDataset
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Find hard negatives: for each title, the images that a model ranks highest and that do "
        "not match it. Training with them (data.hard_negatives) fills batches with such images.\n\n"
        "Images that match by id, by an equal title or by an equal image are left out. Many of the "
        "rest may match as well, although the dataset does not say so: --false-negative-margin "
        "0.05 also leaves out images that score above 95 % of the title's own image.\n\n"
        "    xmr mine --checkpoint runs/shop --k 16 --false-negative-margin 0.05 --out hard.jsonl"
        "\n\n"
        "    xmr train --dataset data/shop --checkpoint runs/shop --set "
        "data.hard_negatives=hard.jsonl"
    )
)
def mine(
    out: Annotated[
        Path,
        typer.Option(
            metavar=tr("FILE"), help=tr("JSONL file to write: one title with its images per line.")
        ),
    ],
    checkpoint: Checkpoint = None,
    dataset: TrainedDataset = None,
    split: Annotated[
        Literal["train", "valid"], typer.Option(help=tr("Split whose titles are mined."))
    ] = "train",
    k: Annotated[int, typer.Option(min=1, max=1000, help=tr("Images per title, at most."))] = 16,
    false_negative_margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=tr(
                "Leave out images that score above p - margin × |p|, where p is the score of the "
                "title's own image. Larger values leave out more. Default: only matching images."
            ),
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, mine, write, print."""
    from bagformer_cli.datasets import own_dataset, resolve
    from bagformer_cli.evaluation.sources import open_split
    from bagformer_cli.machine import choose_device
    from bagformer_cli.models.checkpoint import check_model_folder, load_model
    from bagformer_cli.models.runs import find_checkpoint
    from bagformer_cli.outputs import check_output
    from bagformer_cli.training import hard_negatives

    with bars.progress() as progress:
        folder = None if dataset in (None, "demo") else resolve(str(dataset), progress=progress)
        model_folder = find_checkpoint(checkpoint, progress=progress)
        check_model_folder(model_folder)
        name = dataset or own_dataset(model_folder)
        folder = folder or resolve(name, progress=progress)
        check_output(out, [folder.path, model_folder])
        model = load_model(model_folder, choose_device(None))
        part = open_split(folder, model, split, progress)
        mined = hard_negatives.mine(model, part, k, margin=false_negative_margin, progress=progress)
        hard_negatives.write_negatives(out, part, mined)
    counts = (mined.positions != hard_negatives.NONE).sum(axis=1)
    report = {
        "dataset": name,
        "split": split,
        "checkpoint": str(model_folder),
        "out": str(out),
        "titles": len(counts),
        "negatives": int(counts.sum()),
        "titles_with_fewer": int((counts < k).sum()),
        "left_out_matching": mined.matching,
        "left_out_by_margin": mined.too_close,
    }
    console.result(report, lambda: _show(report, k))


def _show(report: dict[str, Any], k: int) -> None:
    console.facts(
        {
            tr("file"): report["out"],
            tr("model"): report["checkpoint"],
            tr("titles"): report["titles"],
            tr("hard negatives"): report["negatives"],
            tr("titles with fewer than {k}", k=k): report["titles_with_fewer"],
            tr("left out, because they match"): report["left_out_matching"],
            tr("left out by the margin"): report["left_out_by_margin"],
        }
    )
    command = (
        f"xmr train --dataset {quote(report['dataset'])} --checkpoint "
        f"{quote(report['checkpoint'])} --set data.hard_negatives={quote(report['out'])}"
    )
    console.next_steps([(command, tr("train with them, from this model"))])
