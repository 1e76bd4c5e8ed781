"""``xmr train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Train a model and keep it in a run folder: best/ and last/ (model folders), "
        "metrics.jsonl, tensorboard/, config.yaml.\n\n"
        "The configuration is --config, then --interaction, --dataset and --seed, then --set. "
        "Ctrl-C saves last/; --resume goes on exactly from there.\n\n"
        "    xmr train --interaction bagwise\n\n"
        "    xmr train --dataset muge --interaction tokenwise --set training.batch_size=64\n\n"
        "    xmr train --resume --output-dir runs/muge-bagwise"
    )
)
def train(
    interaction: Annotated[
        Literal["cls", "tokenwise", "bagwise"] | None,
        typer.Option(
            help=tr("What meets in the late interaction: one vector each, tokens, or entity bags."),
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "A config file or the name of a built-in one. Default: demo for the demo "
                "dataset, else the published full-size settings of the interaction."
            )
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help=tr("A folder in MUGE form, or demo, or muge. Default: demo.")),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help=tr("The run folder. Default: a new one under runs/.")),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=tr("A model folder or run folder whose weights to start from.")),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help=tr("Go on with a stopped run (--output-dir; default: the newest under runs/)."),
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(help=tr("Sets everything random."))] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help=tr("Change one setting, e.g. training.max_steps=20.")
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, train, print the run."""
    from bagformer_cli.data.datasets import ensure_store, resolve
    from bagformer_cli.text.build import build_titles
    from bagformer_cli.training.run import (
        free_run_folder,
        new_model,
        newest_run,
        require_free,
        resume_config,
        resume_run,
        start_run,
    )

    with console.progress() as progress:
        if resume:
            run = output_dir or newest_run(Path("runs"))
            settings = resume_config(run, overrides or [])
            console.info(tr("Going on with {run}", run=run))
        else:
            settings, template = _settings(config, interaction, dataset, seed, overrides or [])
            name = f"{Path(settings.data.dataset).name}-{settings.model.interaction}"
            run = output_dir or free_run_folder(Path("runs"), name)
            require_free(run)
        folder = resolve(settings.data.dataset, progress=progress)
        if resume:
            store = ensure_store(folder, build_titles(settings), progress=progress)
            result = resume_run(settings, store, run, progress=progress)
        else:
            model = new_model(settings, checkpoint, progress)
            store = ensure_store(folder, model.titles, progress=progress)
            result = start_run(settings, store, run, model, template=template, progress=progress)
    if result.interrupted:
        console.info(
            tr(
                "Stopped at step {step} of {total}; saved. Go on with: "
                "xmr train --resume --output-dir {run}",
                step=result.steps,
                total=result.total_steps,
                run=run,
            )
        )
        raise typer.Exit(130)
    console.result(_report(result), lambda: _show(result))


def _settings(
    config: str | None,
    interaction: str | None,
    dataset: str | None,
    seed: int | None,
    overrides: list[str],
) -> tuple[Any, str]:
    """The configuration that the options ask for, and the file it started from."""
    from bagformer_cli.config import load_config

    if config is None:
        full_size = {"cls": "muge_cls", "tokenwise": "muge_tokenwise"}
        demo = dataset in (None, "demo")
        config = "demo" if demo else full_size.get(interaction or "", "muge_bagformer")
    items = []
    if interaction is not None:
        items.append(f"model.interaction={interaction}")
    if dataset is not None:
        items.append(f"data.dataset={dataset}")
    if seed is not None:
        items.append(f"seed={seed}")
    return load_config(config, [*items, *overrides]), config


def _report(result: Any) -> dict[str, Any]:
    return {
        "run": str(result.run),
        "checkpoint": str(result.run / "best"),
        "steps": result.steps,
        "total_steps": result.total_steps,
        "mean_recall": None if result.best is None else 100 * result.best,
        "best_step": result.best_step,
        "seconds": round(result.seconds, 3),
    }


def _show(result: Any) -> None:
    console.facts(
        {
            tr("run"): result.run,
            tr("best model"): result.run / "best",
            tr("steps"): result.steps,
            tr("best validation mean recall, text to image"): (
                None
                if result.best is None
                else tr(
                    "{recall} % at step {step}",
                    recall=f"{100 * result.best:.2f}",
                    step=result.best_step,
                )
            ),
            tr("seconds of training"): round(result.seconds, 1),
        }
    )
    console.next_steps(
        [
            (f"xmr eval --checkpoint {result.run}", tr("recall both ways, with rerank")),
            (f"xmr score image.jpg '红色连衣裙' --checkpoint {result.run}", tr("score a picture")),
        ]
    )
