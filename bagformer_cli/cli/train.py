"""``xmr train``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Train a model and keep it in a run folder: best/ and last/ (model folders), "
        "metrics.jsonl, tensorboard/, config.yaml.\n\n"
        "The configuration is --config, then --mode (settings laid over it: fast, base, inflate, "
        "shrinktobase, shrinktofast, chain and others, or a file), then --interaction, --dataset, "
        "--seed and --teacher, then --set. Ctrl-C saves last/; --resume goes on exactly from "
        "there.\n\n"
        "    xmr train --interaction bagwise\n\n"
        "    xmr train --mode shrinktobase --teacher runs/demo-inflate/best\n\n"
        "    xmr train --dataset muge --interaction tokenwise --set training.batch_size=64\n\n"
        "    xmr train --resume --output-dir runs/muge-bagwise\n\n"
        "    torchrun --nproc-per-node 4 $(which xmr) train --config pretrain_albef"
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
    mode: Annotated[
        str | None,
        typer.Option(
            help=tr("A mode's name or file: which scorer is trained, with which loss, by whom.")
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Config file or built-in config. Default: demo for the demo dataset, otherwise the "
                "published full-size settings of the interaction; with --mode, the config of "
                "its paper."
            )
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help=tr("Dataset: a folder of MUGE files, or the names demo or muge. Default: demo.")
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help=tr("The run folder. Default: a new one under runs/.")),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=tr("A model folder or run folder whose weights to start from.")),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "A model folder or run folder that teaches; for a mode without distillation, "
                "whose weights to start from."
            )
        ),
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
    from bagformer_cli.config import default_config, load_config
    from bagformer_cli.datasets import ensure_store, resolve
    from bagformer_cli.progress import SILENT
    from bagformer_cli.text.from_config import build_titles
    from bagformer_cli.training.chain import resume_chain, stage_configs, start_chain
    from bagformer_cli.training.distributed import start_processes, stop_processes
    from bagformer_cli.training.run import (
        check_start,
        free_run_folder,
        new_model,
        newest_run,
        require_free,
        resume_config,
        resume_run,
        start_run,
    )

    processes = start_processes()
    with bars.progress() if processes.is_main else nullcontext(SILENT) as progress:
        if resume:
            run = processes.broadcast_object(output_dir or newest_run(Path("runs")))
            settings = resume_config(run, overrides or [])
            if processes.is_main:
                console.info(tr("Going on with {run}", run=run))
        else:
            template = config or default_config(dataset, interaction, mode)
            items = _items(interaction, dataset, seed, checkpoint) + (overrides or [])
            settings = load_config(template, items, mode)
            _take_teacher(settings, teacher)
            name = f"{Path(settings.data.dataset).name}-{mode or settings.model.interaction}"
            run = processes.broadcast_object(output_dir or free_run_folder(Path("runs"), name))
            if processes.is_main:
                require_free(run)
            stages = stage_configs(settings, run, template, items)
            if not stages:
                check_start(settings)
        processes.require_world_size(settings.training.processes)
        with processes.main_process_first():  # what it prepares the others find
            folder = resolve(settings.data.dataset, progress=progress)
            store = ensure_store(folder, build_titles(settings), progress=progress)
        if settings.chain:
            results = (
                resume_chain(store, run, progress, processes)
                if resume
                else start_chain(settings, stages, store, run, progress, processes)
            )
        elif resume:
            results = [resume_run(settings, store, run, progress, processes)]
        else:
            model = new_model(settings, None, progress)
            results = [
                start_run(
                    settings,
                    store,
                    run,
                    model,
                    template=template,
                    processes=processes,
                    progress=progress,
                )
            ]
    stop_processes(processes)
    if not processes.is_main:
        return
    if results[-1].interrupted:
        console.info(
            tr(
                "Stopped at step {step} of {total}; saved. Go on with: "
                "xmr train --resume --output-dir {run}",
                step=results[-1].steps,
                total=results[-1].total_steps,
                run=run,
            )
        )
        raise typer.Exit(130)
    if settings.chain:
        report = {"run": str(run), "stages": [_report(result) for result in results]}
        console.result(report, lambda: _show_chain(results))
    else:
        console.result(_report(results[0]), lambda: _show(results[0]))


def _items(
    interaction: str | None, dataset: str | None, seed: int | None, checkpoint: Path | None
) -> list[str]:
    """What the options say, as overrides."""
    values = {
        "model.interaction": interaction,
        "data.dataset": dataset,
        "seed": seed,
        "training.checkpoint": checkpoint,
    }
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def _take_teacher(settings: Any, teacher: Path | None) -> None:
    """Where distillation has an outside teacher, that; else weights to start from."""
    if teacher is None:
        return
    if settings.distill is not None and settings.model.alignment is None:
        settings.distill.teacher = str(teacher)
    else:
        settings.training.checkpoint = str(teacher)


def _show_chain(results: list[Any]) -> None:
    console.table(
        [tr("stage"), tr("training steps"), tr("mean recall, %"), tr("seconds")],
        [
            [
                result.run.name,
                result.steps,
                None if result.best is None else 100 * result.best,
                round(result.seconds, 1),
            ]
            for result in results
        ],
    )
    console.next_steps(
        [(f"xmr eval --checkpoint {results[-1].run}", tr("recall both ways, with rerank"))]
    )


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
            tr("training steps"): result.steps,
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
