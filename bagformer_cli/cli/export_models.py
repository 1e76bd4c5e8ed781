"""``xmr export onnx`` and others: models in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Split
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.export.onnx_folder import Examples, Precision
    from bagformer_cli.models.build import RetrievalModel
    from bagformer_cli.progress import Progress

app = App()

CALIBRATION = 256  # titles and images that set the ranges of static int8

ModelArgument = Annotated[
    Path | None,
    typer.Argument(help=tr("Model folder or run folder. Default: the newest run under runs/.")),
]


@app.command(
    help=tr(
        "Export a model to ONNX: a folder that runs without torch.\n\n"
        "    xmr export onnx runs/demo\n\n"
        "    xmr export onnx runs/demo exported/ --int8 dynamic --dataset demo\n\n"
        "The folder holds a graph for titles, one for images, one for a trained cross-encoder, "
        "vocabulary, dictionary and settings. `xmr search --runtime onnx` and the Python module "
        "bagformer_cli.runtime read it.\n\n"
        "With --dataset, recall and speed of the model and of the export are measured and printed."
    )
)
def onnx(
    checkpoint: ModelArgument = None,
    out: Annotated[
        Path | None,
        typer.Argument(help=tr("Folder to write. Default: onnx/ in the model folder.")),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help=tr("Half-precision weights and activations, for GPUs."))
    ] = False,
    int8: Annotated[
        Literal["dynamic", "static"] | None,
        typer.Option(
            help=tr(
                "8-bit weights. Activations: dynamic rounds them by their range in each batch; "
                "static by ranges measured on --dataset's training split."
            ),
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help=tr("Dataset on which recall and speed are compared: a folder, demo or muge."),
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Split, typer.Option(help=tr("Split of --dataset on which recall and speed are compared."))
    ] = "valid",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export, compare, print."""
    from bagformer_cli.cli.failures import excluding_options, needed_option
    from bagformer_cli.outputs import require_empty

    if fp16 and int8 is not None:
        raise excluding_options("xmr export onnx", ["--fp16", "--int8"])
    if int8 == "static" and dataset is None:
        raise needed_option("xmr export onnx", "--int8 static", "--dataset")
    from bagformer_cli.calibration import copy_calibration
    from bagformer_cli.datasets import resolve
    from bagformer_cli.export.onnx_folder import export_onnx
    from bagformer_cli.models.checkpoint import load_model
    from bagformer_cli.models.runs import find_checkpoint
    from bagformer_cli.runtime.folder import EXPORTED, MANIFEST

    precision: Precision = "fp16" if fp16 else "fp32"
    if int8 is not None:
        precision = "int8-dynamic" if int8 == "dynamic" else "int8-static"
    with bars.progress() as progress:
        place = find_checkpoint(checkpoint, progress=progress)
        folder = place / EXPORTED if out is None else out
        require_empty(folder, older=MANIFEST)
        data = None if dataset is None else resolve(dataset, progress)
        model = load_model(place)
        examples = None
        if int8 == "static":
            examples = _examples(model, data, progress)
        manifest = export_onnx(model, folder, precision, examples, progress)
        copy_calibration(place, folder)
        report: dict[str, Any] = {
            "checkpoint": str(place),
            "folder": str(folder),
            "precision": manifest.precision,
            "model": manifest.model,
            "cross_encoder": manifest.cross is not None,
            "bytes": sum(file.stat().st_size for file in folder.glob("*.onnx*")),
            "model_bytes": (place / "model.safetensors").stat().st_size,
        }
        if data is not None:
            report |= {"dataset": dataset, "split": split}
            report["compared"] = _compared(model, folder, data, split, progress)
    console.result(report, lambda: show_export(report))


def _examples(model: RetrievalModel, data: Any, progress: Progress) -> Examples:
    """Read titles and images of the training split, spread evenly over it."""
    import numpy as np

    from bagformer_cli.data.images import resize
    from bagformer_cli.evaluation.sources import open_split
    from bagformer_cli.export.onnx_folder import Examples

    train = open_split(data, model, "train", progress)
    size = model.config.image.size
    images = np.linspace(0, len(train.image_ids) - 1, CALIBRATION).astype(int)
    titles = np.linspace(0, len(train.query_ids) - 1, CALIBRATION).astype(int)
    pixels = [resize(train.image(int(at)), size) for at in np.unique(images)]
    return Examples([train.texts[int(at)] for at in np.unique(titles)], np.stack(pixels))


def _compared(
    model: RetrievalModel, folder: Path, data: Any, split: str, progress: Progress
) -> dict[str, Any]:
    from bagformer_cli.evaluation.answers import require_answers
    from bagformer_cli.evaluation.exported import compare_encoders
    from bagformer_cli.evaluation.sources import open_split
    from bagformer_cli.models.item_encoder import ModelEncoder
    from bagformer_cli.models.load_encoder import load_encoder

    part = open_split(data, model, split, progress)
    require_answers(part, data.queries_path(split))
    encoders = [ModelEncoder(model), load_encoder(folder, "cpu")]
    found = compare_encoders(encoders, part, model.config, progress=progress)
    return dict(zip(("torch", "onnx"), [one.to_json() for one in found], strict=True))


def show_export(report: dict[str, Any]) -> None:
    """Print what was written and, if it was compared, both rows."""
    console.facts(
        {
            tr("exported model"): report["folder"],
            tr("precision"): report["precision"],
            tr("cross-encoder"): tr("exported: `--rerank` works")
            if report["cross_encoder"]
            else tr("none: the model has no trained one, so `--rerank` is refused"),
            tr("megabytes"): f"{report['bytes'] / 1e6:.1f}",
            tr("model"): report["checkpoint"],
        }
    )
    if "compared" not in report:
        return
    rows = []
    for name, found in report["compared"].items():
        label = tr("torch, float32") if name == "torch" else f"ONNX, {report['precision']}"
        recalls = [found[way]["mean_recall"] for way in ("text_to_image", "image_to_text")]
        speeds = [found["titles_per_second"], found["images_per_second"]]
        rows.append([label, *recalls, *(f"{speed:,.0f}" for speed in speeds)])
    columns = [
        tr("runtime"), tr("text → image"), tr("image → text"), tr("titles/s"), tr("images/s")
    ]  # fmt: skip
    title = tr(
        "{dataset} {split}: mean recall, %", dataset=report["dataset"], split=report["split"]
    )
    console.table(columns, rows, title=title)
    difference = report["compared"]["onnx"]["score_difference"]
    console.say(tr("Largest difference of a score: {value}", value=f"{difference:.2g}"))


@app.command(
    name="sentence-transformers",
    help=tr(
        "Write a model folder that sentence-transformers opens, with the same scores.\n\n"
        "    xmr export sentence-transformers runs/demo st/\n\n"
        "A model with one vector a side opens as SentenceTransformer, others as "
        "MultiVectorEncoder (version 6 and later), where this package is installed: "
        "MultiVectorEncoder('st/', trust_remote_code=True). The folder holds no code, and xmr "
        "opens it too."
    ),
)
def sentence_transformers(
    checkpoint: Annotated[Path, typer.Argument(help=tr("Model folder or run folder."))],
    out: Annotated[Path, typer.Argument(help=tr("The folder to write to."))],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export and print which class opens the folder."""
    from bagformer_cli.calibration import copy_calibration
    from bagformer_cli.export.sentence_folder import export_sentence_transformers
    from bagformer_cli.models.checkpoint import load_model
    from bagformer_cli.models.runs import find_checkpoint
    from bagformer_cli.outputs import require_empty

    require_empty(out, older="modules.json")
    place = find_checkpoint(checkpoint)
    kind = export_sentence_transformers(load_model(place), out)
    copy_calibration(place, out)
    report = {"checkpoint": str(place), "folder": str(out), "class": kind}
    labels = {"checkpoint": tr("model"), "folder": tr("exported model"), "class": tr("opens as")}
    console.result(report, lambda: console.facts({labels[key]: report[key] for key in report}))
