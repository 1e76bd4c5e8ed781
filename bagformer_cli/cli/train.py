"""``xmr train``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import MAX_SEED, DatasetToTrainOn, Overrides
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.training.train_result import TrainResult

app = App()


@app.command(
    help=tr(
        "Train a model. The run folder holds best/ and last/ (model folders), metrics.jsonl, "
        "tensorboard/, config.yaml and run.json (versions, machine, command).\n\n"
        "Settings are applied in this order, later ones win: --config, --mode, then --interaction, "
        "--dataset, --seed, --checkpoint and --teacher, then --set. Ctrl-C saves last/ and stops; "
        "--resume continues exactly from there.\n\n"
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
            help=tr(
                "Vectors that are compared: cls (one for each side), tokenwise (one for each "
                "token) or bagwise (one for each entity bag)."
            ),
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Training recipe applied on top of --config: a built-in name (fast, base, inflate, "
                "shrinktobase, shrinktofast, chain …) or a YAML file."
            )
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Config file or built-in config. Default: demo for the demo dataset, otherwise the "
                "published full-size settings of the interaction; with --mode, the config that "
                "the mode names."
            )
        ),
    ] = None,
    dataset: DatasetToTrainOn = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help=tr("Run folder. Default: a new one under runs/.")),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=tr("Model or run folder whose weights to start from.")),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "Model or run folder of the teacher. In a mode without distillation its weights "
                "are the ones to start from."
            )
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help=tr("Continue a stopped run (--output-dir; default: the newest under runs/)."),
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help=tr("Random seed."))] = None,
    overrides: Overrides = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse the options, train, print the result."""
    from bagformer_cli.config import default_config
    from bagformer_cli.datasets import ensure_store, find_moved, resolve
    from bagformer_cli.models.runs import report_others
    from bagformer_cli.models.trained import trained_scorers
    from bagformer_cli.progress import SILENT
    from bagformer_cli.training import job as jobs
    from bagformer_cli.training.distributed import join_process_group, leave_process_group
    from bagformer_cli.training.run_folder import RUNS, newest_runs

    processes = join_process_group()
    with bars.progress() if processes.is_main else nullcontext(SILENT) as progress:
        if resume:
            _refuse_with_resume(
                {
                    "--interaction": interaction,
                    "--mode": mode,
                    "--config": config,
                    "--dataset": dataset,
                    "--checkpoint": checkpoint,
                    "--teacher": teacher,
                    "--seed": seed,
                }
            )
            job = jobs.resume_job(output_dir, overrides or [], processes)
            if processes.is_main:
                console.info(_resuming(job.run))
                if output_dir is None:
                    report_others(newest_runs(RUNS)[1:], "--output-dir", progress)
        else:
            if dataset not in (None, "demo"):
                resolve(str(dataset))  # a missing dataset is said before a model is downloaded
            options = {
                "model.interaction": interaction,
                "data.dataset": dataset,
                "seed": seed,
                "training.checkpoint": checkpoint,
            }
            given = [f"{key}={value}" for key, value in options.items() if value is not None]
            job = jobs.new_job(
                config or default_config(dataset, interaction, mode),
                given + (overrides or []),
                mode=mode,
                teacher=teacher,
                output_dir=output_dir,
                processes=processes,
            )
        with processes.main_process_first():  # the others find what it prepares
            name = job.config.data.dataset
            if resume:
                name = find_moved(name, job.run, f"--set data.dataset={tr('FOLDER')}")
            folder = resolve(name, progress=progress)
            store = ensure_store(folder, jobs.titles(job, progress), progress=progress)
        results = jobs.train(job, store, processes, progress)
    leave_process_group(processes)
    if not processes.is_main:
        return
    last = results[-1]
    run = last.run.parent if job.config.chain else last.run
    if last.interrupted:
        console.info(
            tr(
                "Stopped at step {step} of {total} and saved. Continue with: "
                "xmr train --resume --output-dir {run}",
                step=last.steps,
                total=last.total_steps,
                run=run,
            )
        )
        raise typer.Exit(130)
    if job.resume:
        _say_if_complete(last)
    evaluate = f"xmr eval --checkpoint {quote(str(last.run))} --dataset {quote(name)}"
    if job.config.chain:
        report = {"run": str(run), "stages": [_report(result) for result in results]}
        console.result(report, lambda: _show_chain(results, evaluate))
    else:
        reranks = "slow" in trained_scorers(job.config)
        console.result(_report(results[0]), lambda: _show(results[0], evaluate, reranks))


def _resuming(run: Path) -> str:
    """Say where a run continues, which need not be where its best model was saved."""
    from bagformer_cli.models.runs import best_model
    from bagformer_cli.training.resume import saved_step

    step = saved_step(run / "last")
    if step is None:  # a chain, or a run that was killed before its first save
        return tr("Resuming {run}", run=run)
    facts = best_model(run)
    return tr(
        "Resuming {run} at step {step} (best model: {facts})", run=run, step=step, facts=facts
    )


def _say_if_complete(result: TrainResult) -> None:
    """Say why a run that was resumed had nothing left to do, and how to train longer."""
    if result.stopped_early and result.resumed_at == result.steps:
        console.info(
            tr(
                "This run had stopped early at step {n}: recall no longer rose. To train longer: "
                "--set training.early_stopping=null, or a larger training.early_stopping.patience.",
                n=result.steps,
            )
        )
    elif result.resumed_at >= result.total_steps:
        console.info(
            tr(
                "This run was already complete: {n} steps. To train longer: --set "
                "training.epochs=N, or a larger training.max_steps if it is set.",
                n=result.steps,
            )
        )


def _refuse_with_resume(options: dict[str, object]) -> None:
    """Raise if an option is given that a resumed run could only ignore."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(
            tr("--resume continues a run with the settings in its folder."),
            found=" ".join(given),
            hint=tr(
                "Leave these options out; --set changes the length of training, for example "
                "--set training.epochs=20. Or start a new run without --resume."
            ),
        )


def _report(result: TrainResult) -> dict[str, Any]:
    return {
        "run": str(result.run),
        "checkpoint": str(result.run / "best"),
        "steps": result.steps,
        "total_steps": result.total_steps,
        "trained_parameters": result.parameters[0],
        "parameters": result.parameters[1],
        "start_mean_recall": None if result.start is None else 100 * result.start,
        "mean_recall": None if result.best is None else 100 * result.best,
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
        "seconds": round(result.seconds, 3),
        "pairs_per_second": result.pairs_per_second,
        "data_wait_share": result.data_wait_share,
    }


def _show_chain(results: list[TrainResult], evaluate: str) -> None:
    console.table(
        [
            tr("stage"),
            tr("training steps"),
            tr("before training, %"),
            tr("mean recall, %"),
            tr("seconds"),
        ],
        [
            [
                result.run.name,
                result.steps,
                None if result.start is None else 100 * result.start,
                None if result.best is None else 100 * result.best,
                round(result.seconds, 1),
            ]
            for result in results
        ],
    )
    console.next_steps([(evaluate, tr("recall in both directions"))])


def _show(result: TrainResult, evaluate: str, reranks: bool) -> None:
    best = None
    if result.best is not None:
        recall = f"{100 * result.best:.2f}"
        best = tr("{recall} % at step {step}", recall=recall, step=result.best_step)
    start = None if result.start is None else f"{100 * result.start:.2f} %"
    steps: int | str = result.steps
    if result.stopped_early:
        steps = tr(
            "{n} of {total}: recall no longer rose", n=result.steps, total=result.total_steps
        )
    console.facts(
        {
            tr("run folder"): result.run,
            tr("best model"): result.run / "best",
            tr("training steps"): steps,
            tr("validation mean recall before training, text to image"): start,
            tr("best validation mean recall, text to image"): best,
            tr("seconds of training"): round(result.seconds, 1),
            tr("pairs/s"): result.pairs_per_second and round(result.pairs_per_second, 1),
            tr("waiting for data"): None
            if result.data_wait_share is None
            else tr("{share} % of the time", share=f"{100 * result.data_wait_share:.1f}"),
        }
    )
    console.next_steps(
        [
            (
                evaluate,
                tr("recall in both directions, with rerank")
                if reranks
                else tr("recall in both directions"),
            ),
            (
                f"xmr score image.jpg '红色连衣裙' --checkpoint {quote(str(result.run))}",
                tr("score an image against a title"),
            ),
        ]
    )
