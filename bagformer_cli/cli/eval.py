"""``xmr eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Checkpoint, Dataset, EvaluatedSplit
from bagformer_cli.cli.views import show_recall
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.evaluation.submission import CheckedSubmission

app = App()


@app.command(
    name="eval",
    help=tr(
        "Measure recall over the full pool, text to image and image to text: of the recall stage, "
        "of the cross-encoder's rerank of the best K, and of the merged score.\n\n"
        "    xmr eval --dataset muge\n\n"
        "    xmr eval --checkpoint runs/fast --slow runs/captioner --rerank 50,100 --tune-beta\n\n"
        "    xmr eval --dataset muge --split test --submission predictions.jsonl\n\n"
        "    xmr eval --dataset muge --split valid --check predictions.jsonl"
    ),
)
def evaluate_command(
    dataset: Dataset = "demo",
    split: EvaluatedSplit = "valid",
    checkpoint: Checkpoint = None,
    slow: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "Model folder or run folder whose cross-encoder reranks. Default: the model itself."
            )
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="K[,K]",
            help=tr(
                "Number of candidates to rerank; 0: none. Default: the config's, if the model has "
                "a trained cross-encoder."
            ),
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(min=0, help=tr("Merged score = slow + beta × fast. Default: the config's.")),
    ] = None,
    tune_beta: Annotated[
        bool,
        typer.Option(
            "--tune-beta",
            help=tr("Choose beta on the validation split and save it in the model folder."),
        ),
    ] = False,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYS",
            help=tr(
                "File of image ids, one per line: evaluate on these images and their queries. "
                "With a subset name after a tab: on each subset, and their average."
            ),
        ),
    ] = None,
    products: Annotated[
        Path | None,
        typer.Option(
            help=tr("TSV of image id and product: several images of one product count once.")
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(help=tr("Write MUGE's submission file: ten image ids per query.")),
    ] = None,
    naming: Annotated[
        Literal["query", "text"] | None,
        typer.Option(
            help=tr(
                "Keys of the submission: query_id/item_ids or text_id/image_ids. "
                "Default: those of the dataset's files."
            ),
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr(
                "Check a submission against the dataset's split, without a model, and print its "
                "recall if the answers are known."
            ),
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, evaluate or check, print."""
    from bagformer_cli.datasets import resolve
    from bagformer_cli.evaluation.dataset import EvaluationRequest, check_folder, evaluate_folder
    from bagformer_cli.models.checkpoint import check_model_folder, find_checkpoint

    if check is not None:
        checked = check_folder(check, resolve(dataset), split)
        report = {"dataset": dataset, "split": split, "check": str(check), **checked.to_json()}
        console.result(report, lambda: _show_check(report, checked))
        return
    counts = _counts(rerank)
    with bars.progress() as progress:
        # Errors come before long work: a missing dataset first, then the model folders. The demo
        # dataset is drawn only when there is a model to evaluate on it.
        folder = None if dataset == "demo" else resolve(dataset, progress=progress)
        model = find_checkpoint(checkpoint)
        reranker = None if slow is None else find_checkpoint(slow)
        for model_folder in filter(None, (model, reranker)):
            check_model_folder(model_folder)
        request = EvaluationRequest(
            split, reranker, counts, beta, tune_beta, items, products, submission, naming
        )
        folder = folder or resolve(dataset, progress=progress)
        report = {"dataset": dataset, **evaluate_folder(folder, model, request, progress)}
    console.result(report, lambda: show_evaluation(report))


def _counts(rerank: str | None) -> list[int] | None:
    """Parse ``50,100``; None: the config's."""
    from bagformer_cli.errors import InputError

    if rerank is None:
        return None
    parts = rerank.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(
            tr("--rerank takes whole numbers."), found=rerank, expected=tr("for example 50,100")
        )
    return [int(part) for part in parts]


def _show_check(report: dict[str, Any], checked: CheckedSubmission) -> None:
    """Print the outcome of ``--check``."""
    console.say(
        tr(
            "{path} is a correct submission: {n} queries.",
            path=report["check"],
            n=checked.n_queries,
        )
    )
    if checked.unknown:
        console.warn(
            tr("{n} of its queries are not in the split.", n=len(checked.unknown)),
            where=report["check"],
        )
    if checked.recall is not None:
        figures = checked.recall.percent()
        console.facts({name: f"{value:.2f}" for name, value in figures.items()})


def show_evaluation(report: dict[str, Any]) -> None:
    """Print the report of an evaluation."""
    show_recall(
        report["stages"],
        title=tr(
            "{dataset} {split}: {queries} queries, {items} images; {checkpoint}",
            dataset=report["dataset"],
            split=report["split"],
            queries=report["n_queries"],
            items=report["n_items"],
            checkpoint=report["checkpoint"],
        ),
    )
    if report.get("attributes"):
        names = {
            "kind": tr("kind"),
            "colour": tr("colour"),
            "pattern": tr("pattern"),
            "part": tr("colour of a part"),
            "binding": tr("binding (which object has which attribute)"),
            "all": tr("all attributes"),
        }
        console.table(
            [
                tr("first-image accuracy by attribute"),
                tr("% of queries that mention it"),
            ],
            [[names.get(name, name), share] for name, share in report["attributes"].items()],
        )
    facts = {name: f"{value:.1f} s" for name, value in report["seconds"].items()}
    if "beta" in report:
        facts[tr("beta: merged score = slow + beta × fast")] = f"{report['beta']:g}"
    console.facts(facts)
    if "submission" in report:
        console.say(tr("Submission written: {path}", path=report["submission"]))
