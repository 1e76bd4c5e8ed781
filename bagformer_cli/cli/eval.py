"""``xmr eval``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.formatting import duration
from bagformer_cli.cli.options import Checkpoint, EvaluatedSplit, TrainedDataset
from bagformer_cli.cli.views import show_recall
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.evaluation.submission import CheckedSubmission

app = App()


@app.command(
    name="eval",
    help=tr(
        "Measure recall: the share of texts whose right image is among the first 1, 5 and 10, and "
        "of images whose right text is. All images of the split are candidates.\n\n"
        "Each stage has a row: the recall stage, the cross-encoder's rerank of its best K, and the "
        "merged score of both.\n\n"
        "Without --dataset, the dataset that the model was trained on is used.\n\n"
        "    xmr eval --checkpoint runs/demo\n\n"
        "    xmr eval --checkpoint runs/fast --slow runs/captioner --rerank 50,100 --tune-beta\n\n"
        "    xmr eval --dataset muge --split test --submission predictions.jsonl\n\n"
        "    xmr eval --dataset muge --split valid --check predictions.jsonl"
    ),
)
def evaluate_command(
    dataset: TrainedDataset = None,
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
            metavar=tr("FILE"),
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
            metavar=tr("FILE"),
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
    from bagformer_cli.datasets import own_dataset, recall_before_training, resolve
    from bagformer_cli.evaluation.dataset import check_folder, evaluate_folder
    from bagformer_cli.evaluation.request import EvaluationRequest, check_request
    from bagformer_cli.models.checkpoint import check_model_folder, find_checkpoint

    if check is not None:
        options = {
            "--checkpoint": checkpoint, "--slow": slow, "--rerank": rerank, "--beta": beta,
            "--tune-beta": tune_beta or None, "--items": items, "--products": products,
            "--submission": submission, "--naming": naming,
        }  # fmt: skip
        _require_check_alone(
            dataset, [name for name, value in options.items() if value is not None]
        )
        checked = check_folder(check, resolve(str(dataset)), split)
        report = {"dataset": dataset, "split": split, "check": str(check), **checked.to_json()}
        console.result(report, lambda: _show_check(report, checked))
        return
    request = EvaluationRequest(
        split, slow, _counts(rerank), beta, tune_beta, items, products, submission, naming
    )
    check_request(request)
    with bars.progress() as progress:
        # Errors come before long work: a missing dataset first, then the model folders.
        folder = None if dataset in (None, "demo") else resolve(str(dataset), progress=progress)
        model = find_checkpoint(checkpoint, progress=progress)
        reranker = None if slow is None else find_checkpoint(slow)
        for model_folder in filter(None, (model, reranker)):
            check_model_folder(model_folder)
        name = dataset or own_dataset(model)
        folder = folder or resolve(name, progress=progress)
        request = replace(request, reranker=reranker)
        report = {"dataset": name, **evaluate_folder(folder, model, request, progress)}
        start = recall_before_training(model, name, split)
        if start is not None and items is None and products is None:
            report["before_training"] = start
    console.result(report, lambda: show_evaluation(report))


def _require_check_alone(dataset: str | None, others: list[str]) -> None:
    """Raise InputError if options are given that ``--check`` does not use, or no dataset is."""
    from bagformer_cli.errors import InputError

    if others:
        raise InputError(
            tr("--check reads a submission without a model; these options have no effect on it."),
            found=" ".join(others),
            expected=tr("--check FILE --dataset FOLDER --split SPLIT"),
        )
    if dataset is None:
        raise InputError(
            tr("--check compares a submission with a dataset, and none is named."),
            hint=tr("Name the one that it was written for: --dataset FOLDER"),
        )


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
    if checked.recall is None:
        console.say(tr("Recall is unknown: the answers of this split are hidden."))
        return
    if checked.n_without_answers:
        console.warn(
            tr(
                "{n} queries of the split name no image; each counts as a miss, as in the official "
                "script.",
                n=checked.n_without_answers,
            )
        )
    percent = checked.recall.percent()
    facts = {name.replace("recall", "R"): value for name, value in percent.items()}
    facts[tr("mean recall")] = facts.pop("mean_R")
    console.facts(facts)


def show_evaluation(report: dict[str, Any]) -> None:
    """Print the report of an evaluation."""
    title = tr(
        "{dataset} {split}: {queries} queries, {items} images; {checkpoint}",
        dataset=report["dataset"],
        split=report["split"],
        queries=report["n_queries"],
        items=report["n_items"],
        checkpoint=report["checkpoint"],
    )
    if _mean_recall(report, "recall") is None:
        console.say(title)
        console.say(tr("Recall is unknown: the answers of this split are hidden."))
    else:
        start = {name: report[name] for name in ("before_training",) if name in report}
        show_recall({**start, **report["stages"]}, title=title)
        _explain_stages(report)
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
    parts = {"encode": tr("encode"), "recall": tr("recall"), "rerank": tr("rerank")}
    facts = {parts.get(name, name): duration(value) for name, value in report["seconds"].items()}
    if "beta" in report:
        facts[tr("beta: merged score = slow + beta × fast")] = f"{report['beta']:g}"
    console.facts(facts)
    if "submission" in report:
        _show_submission(report)


def _mean_recall(report: dict[str, Any], stage: str) -> float | None:
    value: float | None = report["stages"][stage]["text_to_image"]["mean_recall"]
    return value


def _explain_stages(report: dict[str, Any]) -> None:
    """Say what the rows rerank and merged are, and whether reranking alone is worse."""
    stages = [name for name in report["stages"] if name.startswith("rerank")]
    if not stages:
        return
    console.say(
        tr(
            "rerank: the best candidates in the order of the cross-encoder alone. merged: in the "
            "order of slow + beta × fast, which is the order of a search with --rerank."
        )
    )
    last = stages[-1].removeprefix("rerank")  # "@100" where several K were measured
    recall = _mean_recall(report, "recall") or 0.0
    if (_mean_recall(report, f"rerank{last}") or 0.0) >= recall:
        return
    console.say(
        tr(
            "rerank is lower than recall: the cross-encoder alone orders these candidates worse "
            "than the recall stage."
        )
    )
    if (_mean_recall(report, f"merged{last}") or 0.0) < recall:
        console.say(tr("So is merged: choose beta with --tune-beta, or do not rerank."))


def _show_submission(report: dict[str, Any]) -> None:
    """Print where a submission was written and in which order its images are."""
    if report["submission_order"] == "recall":
        order = tr("order of the recall stage")
    elif report["submission_reranked"] >= 10:  # as many as a line of the file has
        order = tr("merged order")
    else:
        order = tr(
            "merged order of the best {n}, then the order of the recall stage",
            n=report["submission_reranked"],
        )
    path = report["submission"]
    console.say(tr("Submission written: {path} ({order})", path=path, order=order))
