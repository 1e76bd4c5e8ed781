"""``xmr export``: models and vectors in other programs' formats."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.export_models import app as models
from bagformer_cli.cli.options import Device, Split
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.progress import Progress

app = App(tr("Write models and vectors in other programs' formats."), group=True)
app.registered_commands.extend(models.registered_commands)


class VectorFormat(StrEnum):
    """The forms of vector files."""

    parquet = "parquet"
    jsonl = "jsonl"
    npz = "npz"
    npy = "npy"
    safetensors = "safetensors"
    lance = "lance"


@app.command(
    help=tr(
        "Write vectors to the files texts.FORMAT and images.FORMAT.\n\n"
        "A model encodes a dataset's split. An index or a folder of xmr encode gives the vectors "
        "that it holds. jsonl is Chinese-CLIP's form.\n\n"
        "    xmr export vectors runs/muge vectors/ --dataset muge --split valid\n\n"
        "    xmr export vectors hf:google/siglip2-base-patch16-224 vectors/ --dataset muge\n\n"
        "    xmr export vectors index/ vectors/ --format npz\n\n"
        "`xmr eval --model vectors/ --dataset muge` measures the recall of such files."
    )
)
def vectors(
    source: Annotated[
        str,
        typer.Argument(
            help=tr(
                "A model folder or run folder; hf:NAME, st:NAME or open_clip:NAME for a model of "
                "another library; an index; a folder written by xmr encode."
            )
        ),
    ],
    out: Annotated[Path, typer.Argument(help=tr("The folder to write to."))],
    dataset: Annotated[
        str | None,
        typer.Option(
            help=tr("Dataset that a model encodes: a folder of MUGE files, or demo or muge."),
            show_default=False,
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help=tr("Split of --dataset to encode."))] = "valid",
    form: Annotated[
        VectorFormat, typer.Option("--format", help=tr("Form of the files."))
    ] = VectorFormat.parquet,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export and print what was written."""
    from bagformer_cli.export.vectors import export_rows, vector_file
    from bagformer_cli.outputs import check_output_folder

    check_output_folder(out)
    with bars.progress() as progress:
        if dataset is None:
            written = export_rows(source, out, form.value, progress)
        else:
            written = _export_split(source, out, (dataset, split, form.value), device, progress)
    report: dict[str, Any] = {
        "source": source,
        "files": {
            side: {"path": str(vector_file(out, side, form.value)), "items": count}
            for side, count in written.items()
        },
    }
    labels = {"text": tr("titles"), "image": tr("images")}
    console.result(
        report,
        lambda: console.facts(
            {
                labels[side]: tr("{n} in {path}", n=file["items"], path=file["path"])
                for side, file in report["files"].items()
            }
        ),
    )


def _export_split(
    source: str, out: Path, what: tuple[str, str, str], device: str | None, progress: Progress
) -> dict[Any, int]:
    """Encode a dataset's split with a model and write both sides; return the numbers of items."""
    from bagformer_cli.config import EvaluationConfig
    from bagformer_cli.datasets import resolve
    from bagformer_cli.evaluation.open_source import open_source
    from bagformer_cli.export.vectors import write_side
    from bagformer_cli.vectors.vector_writers import Part

    dataset, split, form = what
    folder = resolve(dataset, progress=progress)
    model = open_source(source, device)
    part = model.open(folder, split, progress)
    if model.model is not None and model.model.config.model.pooling != "each":
        progress.warn(
            tr(
                "This model scores both directions alike (model.pooling), which files of vectors "
                "do not say: their recall from image to text will differ."
            )
        )
    encoded = model.encode(part, EvaluationConfig().batch_size, progress=progress)
    written = {}
    for side, ids, items in (
        ("text", part.query_ids, encoded.texts),
        ("image", part.image_ids, encoded.images),
    ):
        single = items.vectors.uniform_length == 1
        parts = iter([Part(ids.tolist(), items.vectors)])
        written[side] = write_side(out, side, form, parts, single=single)  # type: ignore[arg-type]
    return written
