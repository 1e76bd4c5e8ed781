"""``xmr estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import DatasetToTrainOn, Overrides, TrainingMode
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.config import RunConfig
    from bagformer_cli.data.muge import MugeFolder
    from bagformer_cli.progress import Progress

app = App()

_GENERATED = 64  # images that are drawn at least where the dataset is missing


@app.command(
    help=tr(
        "Estimate a training before it is started: parameters, memory, time of an epoch on this "
        "machine, and disk space of the run and of an index.\n\n"
        "The time is measured: a few steps are trained and thrown away, on the dataset if it is "
        "there, else on drawn products. Weights that the configuration names are not read, and "
        "nothing is downloaded.\n\n"
        "    xmr estimate --config demo\n\n"
        "    xmr estimate --config muge_bagformer_8gb --set training.batch_size=64"
    )
)
def estimate(
    config: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Config file or built-in config. Default: the one that `xmr train` takes for the "
                "dataset or the mode."
            )
        ),
    ] = None,
    mode: TrainingMode = None,
    dataset: DatasetToTrainOn = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help=tr("Model or run folder of the teacher, if the mode distils one.")),
    ] = None,
    overrides: Overrides = None,
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help=tr("Training steps to measure; the measurement ends after a minute at most."),
        ),
    ] = 20,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, build, measure, print."""
    from dataclasses import asdict

    from bagformer_cli.config import default_config, load_config
    from bagformer_cli.datasets import ensure_store
    from bagformer_cli.machine import cpu
    from bagformer_cli.temporary import scratch_folder
    from bagformer_cli.training import estimate as estimates
    from bagformer_cli.training.initial_model import new_model
    from bagformer_cli.training.memory_estimate import count_parameters

    given = [] if dataset is None else [f"data.dataset={dataset}"]
    name = config or default_config(dataset, None, mode)
    wanted = load_config(name, [*given, *(overrides or [])], mode)
    if teacher is not None and wanted.distill is not None:
        wanted.distill.teacher = str(teacher)
    settings, remarks = estimates.for_estimate(wanted)
    with bars.progress() as progress, scratch_folder() as scratch:
        folder = _dataset(settings)
        found = folder is not None
        if folder is None:
            folder = _draw(settings, scratch / "drawn", progress)
            remarks.append(
                tr("The dataset {name} is not here: steps are measured on drawn products.",
                   name=settings.data.dataset)
            )  # fmt: skip
        model = new_model(settings)
        store = ensure_store(folder, model.titles, splits=["train"], progress=progress)
        trainer = estimates.make_probe_trainer(settings, model, store)
        trained, everything = count_parameters(model)
        needed = estimates.memory_of(trainer)
        vectors, index = estimates.index_bytes(model)
        measured = estimates.probe(trainer, "dataset" if found else "generated", steps, progress)
        device = str(model.device)
    for remark in remarks:
        console.warn(remark)
    report = {
        "config": str(name),
        "dataset": settings.data.dataset,
        "device": device,
        "machine": _machine(device, cpu().name, cpu().cores),
        "parameters": {
            "total": everything,
            "trained": trained,
            "parts": estimates.parameters_by_part(model),
        },
        "gpu_memory_bytes": {"total": sum(needed.values()), "parts": needed},
        "probe": asdict(measured),
        "run_bytes": estimates.run_bytes(model, settings),
        "vectors_per_image": vectors,
        "index_bytes_per_million": index,
    }
    console.result(report, lambda: _show(report))


def _dataset(settings: RunConfig) -> MugeFolder | None:
    """Find the training split of the dataset; None: it is not here, and is not drawn for this."""
    from bagformer_cli.data.muge import MugeFolder, naming_of
    from bagformer_cli.datasets import BUILT_IN, folder_of, resolve

    path = folder_of(settings.data.dataset)
    if settings.data.dataset in BUILT_IN and naming_of(path) is None:
        return None
    folder = resolve(settings.data.dataset) if not path.is_dir() else MugeFolder(path)
    folder.require("train")
    return folder


def _draw(settings: RunConfig, out: Path, progress: Progress) -> MugeFolder:
    """Draw products, a little more than a batch of them."""
    from bagformer_cli.datasets import draw_products

    if settings.image.regions is not None:
        raise InputError(
            tr("Regions of images are read from the dataset, which is not here."),
            where="image.regions",
            found=settings.data.dataset,
            hint=tr("Name a dataset that has them: --dataset FOLDER"),
        )
    images = max(_GENERATED, 2 * settings.training.batch_size)
    size = min(256, max(32, settings.image.size or 224))
    return draw_products(out, images, size, progress)


def _machine(device: str, name: str, cores: int) -> str:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(0)
    return tr("{cpu}, {n} cores", cpu=name, n=cores)


def _show(report: dict[str, Any]) -> None:
    """Print the estimate: parameters, memory, time, disk."""
    from bagformer_cli.cli.formatting import duration

    parts = {
        "text_encoder": tr("text encoder"),
        "image_encoder": tr("image encoder"),
        "projections": tr("projections and heads"),
        "cross_encoder": tr("cross-encoder"),
        "other": tr("others"),
    }
    parameters = report["parameters"]
    console.table(
        [tr("part"), tr("parameters")],
        [
            *([parts[name], count] for name, count in parameters["parts"].items()),
            [tr("together"), parameters["total"]],
            [tr("of these trained"), parameters["trained"]],
        ],
    )
    console.say()
    probe, memory = report["probe"], report["gpu_memory_bytes"]
    per_epoch = tr("{time} for {n} pairs", time=duration(probe["epoch_seconds"]),
                   n=f"{probe['epoch_pairs']:,}")  # fmt: skip
    console.facts(
        {
            tr("machine"): report["machine"],
            tr("steps measured"): tr("{n}, on drawn products", n=probe["steps"])
            if probe["data"] == "generated"
            else tr("{n}, on the dataset", n=probe["steps"]),
            tr("seconds per step"): round(probe["step_seconds"], 3),
            tr("pairs/s"): round(probe["pairs_per_second"], 1),
            tr("waiting for data"): f"{probe['data_wait_share']:.1%}",
            tr("an epoch"): per_epoch,
            tr("the whole training"): None
            if probe["training_seconds"] is None
            else duration(probe["training_seconds"]),
            tr("memory used here"): f"{probe['memory_mb'] / 1e3:.2f} GB",
            tr("memory on a GPU, estimated"): f"{(memory['total'] / 1e9) + 1:.1f} GB",
            tr("run folder"): _size(report["run_bytes"]),
            tr("index of a million products"): tr(
                "{size}, {n} vectors of an image as int8",
                size=_size(report["index_bytes_per_million"]), n=report["vectors_per_image"],
            ),
        }
    )  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
