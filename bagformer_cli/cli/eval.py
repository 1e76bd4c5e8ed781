"""``xmr eval``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.evaluation_view import show_evaluation
from bagformer_cli.cli.failures import excluding_options, needed_option
from bagformer_cli.cli.hybrid_evaluation import evaluate_hybrid, show_hybrid
from bagformer_cli.cli.options import Checkpoint, EvaluatedSplit, TrainedDataset
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.evaluation.dataset import EvaluatedFolder
    from bagformer_cli.evaluation.request import EvaluationRequest
    from bagformer_cli.evaluation.submission import CheckedSubmission
    from bagformer_cli.progress import Progress

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
        "    xmr eval --checkpoint runs/demo --report report.html\n\n"
        "    xmr eval --checkpoint runs/fast --slow runs/captioner --rerank 50,100 --tune-beta\n\n"
        "    xmr eval --dataset muge --split test --submission predictions.jsonl\n\n"
        "    xmr eval --checkpoint runs/demo --calibrate\n\n"
        "    xmr eval --model hf:OFA-Sys/chinese-clip-vit-base-patch16 --dataset muge\n\n"
        "    xmr eval --features texts.jsonl images.jsonl --dataset muge\n\n"
        "    xmr eval --dataset muge --split valid --check predictions.jsonl\n\n"
        "    xmr eval --dataset data/shop --split test --hybrid index/"
    ),
)
def evaluate_command(
    dataset: TrainedDataset = None,
    split: EvaluatedSplit = "valid",
    checkpoint: Checkpoint = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar=tr("hf:NAME|st:NAME|open_clip:NAME"),
            help=tr(
                "Model of another library, by its folder or name: hf (transformers), st "
                "(sentence-transformers) or open_clip. Only the recall stage is measured."
            ),
        ),
    ] = None,
    features: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar=tr("TEXTS IMAGES"),
            help=tr(
                "Files with the vectors of the split's texts and images, made by any program: "
                ".jsonl in Chinese-CLIP's form, .parquet, .npz, .npy or .safetensors. Vectors are "
                "scaled to length 1; many vectors per item are compared by MaxSim."
            ),
        ),
    ] = None,
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
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help=tr(
                "Fit the probability that a result is a match on the first 10 results of the "
                "validation split's queries, and save it in the model folder."
            ),
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
    report_page: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar=tr("FILE"),
            help=tr(
                "Write an HTML page: figures with intervals, curves, recall by kind of query, the "
                "worst and the best queries with their images."
            ),
            show_default=False,
        ),
    ] = None,
    hybrid: Annotated[
        str | None,
        typer.Option(
            metavar=tr("INDEX"),
            help=tr(
                "Measure hybrid search in this index with the split's queries: nDCG@10 of vectors, "
                "words and both fused. The share of the words is chosen on valid; with --split "
                "valid on every second query."
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
    from bagformer_cli.evaluation.request import EvaluationRequest, check_request

    if report_page is not None:
        from bagformer_cli.pages.html import require_page

        require_page(report_page)
    others = {  # neither --check nor --hybrid uses these
        "--model": model, "--features": features, "--slow": slow, "--rerank": rerank,
        "--beta": beta, "--tune-beta": tune_beta or None, "--calibrate": calibrate or None,
        "--items": items, "--products": products, "--submission": submission, "--naming": naming,
        "--report": report_page,
    }  # fmt: skip
    if check is not None:
        unused = _given({"--checkpoint": checkpoint, **others, "--hybrid": hybrid})
        _check_submission(check, dataset, split, unused)
        return
    if hybrid is not None:
        hybrid_report = evaluate_hybrid(hybrid, dataset, split, checkpoint, _given(others))
        console.result(hybrid_report, lambda: show_hybrid(hybrid_report))
        return
    request = EvaluationRequest(
        split, slow, _counts(rerank), beta, tune_beta, items, products, submission, naming,
        calibrate, report_page,
    )  # fmt: skip
    check_request(request)
    sources = _given({"--model": model, "--features": features, "--checkpoint": checkpoint})
    if len(sources) > 1:
        raise excluding_options("xmr eval", sources)
    if model is not None:
        from bagformer_cli.evaluation.open_source import own_folder

        checkpoint = own_folder(model)
    with bars.progress() as progress:
        if features is not None or (model is not None and checkpoint is None):
            report = _evaluate_other(features or str(model), dataset, request, progress)
        else:
            report = _evaluate_own(checkpoint, dataset, request, progress)
    console.result(report, lambda: show_evaluation(report))


def _given(options: Mapping[str, object]) -> list[str]:
    """Return the names of the options that have a value."""
    return [name for name, value in options.items() if value is not None]


def _evaluate_own(
    checkpoint: Path | None, dataset: str | None, request: EvaluationRequest, progress: Progress
) -> dict[str, Any]:
    """Evaluate a model of this project: the given one, or that of the newest run."""
    from bagformer_cli.datasets import own_dataset, recall_before_training, resolve
    from bagformer_cli.evaluation.dataset import evaluate_folder
    from bagformer_cli.models.checkpoint import check_model_folder
    from bagformer_cli.models.runs import find_checkpoint

    # Errors come before long work: a missing dataset first, then the model folders.
    folder = None if dataset in (None, "demo") else resolve(str(dataset), progress=progress)
    own = find_checkpoint(checkpoint, progress=progress)
    reranker = None if request.reranker is None else find_checkpoint(request.reranker)
    for model_folder in filter(None, (own, reranker)):
        check_model_folder(model_folder)
    name = dataset or own_dataset(own)
    folder = folder or resolve(name, progress=progress)
    request = replace(request, reranker=reranker)
    report = _finished(evaluate_folder(folder, own, request, progress), name, request, progress)
    start = recall_before_training(own, name, request.split)
    if start is not None and request.items is None and request.products is None:
        report["before_training"] = start
    return report


def _evaluate_other(
    given: str | tuple[Path, Path],
    dataset: str | None,
    request: EvaluationRequest,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate the model of another library, or files of vectors."""
    from bagformer_cli.datasets import resolve
    from bagformer_cli.evaluation.dataset import evaluate_source
    from bagformer_cli.evaluation.open_source import open_source
    from bagformer_cli.evaluation.request import refuse_reranking
    from bagformer_cli.evaluation.stored_vectors import StoredVectors

    option = "--model" if isinstance(given, str) else "--features"
    if dataset is None:
        raise needed_option("xmr eval", option, tr("--dataset FOLDER"))
    refuse_reranking(request, "xmr eval")  # before long work
    folder = resolve(dataset, progress=progress)
    source = StoredVectors(*given) if isinstance(given, tuple) else open_source(given)
    return _finished(evaluate_source(folder, source, request, progress), dataset, request, progress)


def _finished(
    found: EvaluatedFolder, dataset: str, request: EvaluationRequest, progress: Progress
) -> dict[str, Any]:
    """Write the page of an evaluation if the request names one, and return the report."""
    report = {"dataset": dataset, **found.report}
    if request.page is not None:
        from bagformer_cli.pages.evaluation import write_evaluation_page

        write_evaluation_page(request.page, found, dataset, progress)
        report["page"] = str(request.page)
    return report


def _check_submission(path: Path, dataset: str | None, split: str, unused: list[str]) -> None:
    """Check a submission and print the outcome (``--check``).

    Args:
        path: The submission.
        dataset: Value of ``--dataset``, which must be given.
        split: Value of ``--split``.
        unused: Options that are given and that ``--check`` does not use.
    """
    from bagformer_cli.datasets import resolve
    from bagformer_cli.errors import InputError
    from bagformer_cli.evaluation.dataset import check_folder

    if unused:
        raise InputError(
            tr("--check reads a submission without a model; these options have no effect on it."),
            found=" ".join(unused),
            expected=tr("--check FILE --dataset FOLDER --split SPLIT"),
        )
    if dataset is None:
        raise InputError(
            tr("--check compares a submission with a dataset, and none is named."),
            hint=tr("Name the one that it was written for: --dataset FOLDER"),
        )
    checked = check_folder(path, resolve(dataset), split)
    report = {"dataset": dataset, "split": split, "check": str(path), **checked.to_json()}
    console.result(report, lambda: _show_check(report, checked))


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
