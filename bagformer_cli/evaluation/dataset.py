"""Evaluate a model folder on a dataset: all that ``xmr eval`` does, as plain functions.

:func:`evaluate_folder` opens the split, applies the settings, evaluates and writes the submission;
:func:`evaluate_source` does the same for vectors that another library made.
:func:`check_folder` checks a submission against the dataset's files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bagformer_cli.config import EvaluationConfig
from bagformer_cli.data.muge import MugeFolder, Naming, Query, iter_images, iter_queries
from bagformer_cli.data.product_ids import ProductIds, ids_of
from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.answers import require_answers, warn_without_answers
from bagformer_cli.evaluation.attributes import first_image_accuracy
from bagformer_cli.evaluation.calibration import calibrate_folder
from bagformer_cli.evaluation.evaluate import EvaluationOptions, evaluate
from bagformer_cli.evaluation.products import read_products
from bagformer_cli.evaluation.query_sets import recall_by_set
from bagformer_cli.evaluation.request import (
    DEFAULTS,
    EvaluationRequest,
    check_request,
    refuse_reranking,
)
from bagformer_cli.evaluation.reranking import Reranking
from bagformer_cli.evaluation.result import Evaluation
from bagformer_cli.evaluation.sources import OwnModel, VectorSource
from bagformer_cli.evaluation.submission import (
    CheckedSubmission,
    check_submission,
    require_pool,
    write_submission,
)
from bagformer_cli.evaluation.subsets import read_subsets
from bagformer_cli.messages import tr
from bagformer_cli.outputs import check_output, check_output_folder
from bagformer_cli.progress import SILENT, Progress


@dataclass(frozen=True)
class EvaluatedFolder:
    """An evaluation of a split of a dataset.

    Attributes:
        report: The report of ``xmr eval --json`` without the dataset's name. Recalls are None if
            the split's answers are hidden.
        folder: The dataset.
        split: The split.
        source: The model.
        evaluation: The evaluation on the whole split, or on the first subset of the request.
    """

    report: dict[str, Any]
    folder: Path
    split: Split
    source: VectorSource
    evaluation: Evaluation


def evaluate_folder(
    folder: MugeFolder,
    checkpoint: Path,
    request: EvaluationRequest = DEFAULTS,
    progress: Progress = SILENT,
) -> EvaluatedFolder:
    """Evaluate a model folder on a split of a dataset.

    Args:
        folder: The dataset. Its store is made or updated first.
        checkpoint: The model folder.
        request: The settings.
        progress: Where progress is reported.

    Raises:
        CheckpointError: A model folder is broken, or has no trained cross-encoder to rerank with.
        InputError: A file of the request is missing or wrong, settings contradict each other,
            the split's answers are hidden and no submission is to be written, or the split has
            too few pairs to calibrate on.
        DataError: A file of the dataset is wrong.
    """
    check_request(request)
    _check_outputs(request, folder.path, checkpoint)
    if request.tune_beta or request.calibrate:
        check_output_folder(checkpoint)
    reranking = Reranking.load(folder, checkpoint, request)
    model = reranking.model
    source = OwnModel(model, str(checkpoint))
    part = source.open(folder, request.split, progress)
    unanswered = _check_answers(part, folder, request, progress)
    settings = model.config.evaluation
    settings.beta = reranking.beta(progress)
    options = reranking.options(request.split, progress)
    found = _evaluate(source, part, settings, (request, options), progress)
    report = _report(found, part, folder, request)
    report |= {"n_without_answers": unanswered, "checkpoint": str(checkpoint)}
    if request.calibrate:
        pairs = next(iter(found.values())).pairs
        report["calibration"] = calibrate_folder(
            checkpoint, model, pairs, folder.path.name, progress
        )
    if request.reranker is not None:
        report["slow"] = str(request.reranker)
    return EvaluatedFolder(report, folder.path, part, source, next(iter(found.values())))


def evaluate_source(
    folder: MugeFolder,
    source: VectorSource,
    request: EvaluationRequest = DEFAULTS,
    progress: Progress = SILENT,
) -> EvaluatedFolder:
    """Evaluate another library's model, or vectors, on a split of a dataset; nothing is reranked.

    Args:
        folder: The dataset. Its store is made or updated first.
        source: The model or the vectors.
        request: The settings, without those of a rerank.
        progress: Where progress is reported.

    Raises:
        InputError: As :func:`evaluate_folder`; or the settings ask for a rerank.
        DataError: A file of the dataset, or of the vectors, is wrong.
    """
    check_request(request)
    refuse_reranking(request, source.name)
    _check_outputs(request, folder.path)
    part = source.open(folder, request.split, progress)
    unanswered = _check_answers(part, folder, request, progress)
    settings = EvaluationConfig(candidates=0)
    options = EvaluationOptions((), keep_scores=request.page is not None)
    found = _evaluate(source, part, settings, (request, options), progress)
    report = _report(found, part, folder, request)
    report |= {"n_without_answers": unanswered, "checkpoint": source.name, **source.facts()}
    return EvaluatedFolder(report, folder.path, part, source, next(iter(found.values())))


def check_folder(path: str | Path, folder: MugeFolder, split: str) -> CheckedSubmission:
    """Check a submission against the queries and images of a dataset's split.

    Args:
        path: The submission.
        folder: The dataset. If it lacks the split's images, image ids are not compared.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        InputError: The submission or the split's queries file is missing.
        DataError: The first wrong line of the submission.
    """
    folder.require(split, images=False)
    images = folder.images_path(split)
    pool = {number for number, _ in iter_images(images)} if images.is_file() else None
    return check_submission(path, list(iter_queries(folder.queries_path(split))), pool)


def _check_outputs(request: EvaluationRequest, *inputs: Path) -> None:
    """Check that submission and page can be written and overwrite nothing that is read."""
    given = (*inputs, request.reranker, request.items, request.products)
    for output in (request.submission, request.page):
        if output is not None:
            check_output(output, [path for path in given if path is not None])


def _evaluate(
    source: VectorSource,
    part: Split,
    settings: EvaluationConfig,
    how: tuple[EvaluationRequest, EvaluationOptions],
    progress: Progress,
) -> dict[str, Evaluation]:
    """Evaluate on the whole split, under the name "", or on each subset of the request."""
    request, options = how
    if request.products is not None:
        options = replace(options, groups=read_products(request.products, part.image_ids))
    subsets = {"": None} if request.items is None else read_subsets(request.items, part)
    return {
        name: evaluate(source, part, settings, replace(options, subset=subset), progress)
        for name, subset in subsets.items()
    }


def _report(
    found: dict[str, Evaluation], part: Split, folder: MugeFolder, request: EvaluationRequest
) -> dict[str, Any]:
    """Make the report of an evaluation, and write its submission."""
    first = next(iter(found.values()))
    report = {"split": request.split, **first.to_json()}
    if request.items is not None:
        reports = {name: one.to_json() for name, one in found.items()}
        report["stages"] = _mean_stages([one["stages"] for one in reports.values()])
        report["subsets"] = reports
        report.pop("gains", None)  # those of the first subset
        return report
    if request.products is not None:  # first.best holds products, not images
        return report
    if accuracy := first_image_accuracy(folder.path, part, first.best[:, 0]):
        report["attributes"] = accuracy
    if sets := recall_by_set(folder.path, part, first):
        report["sets"] = sets
    if request.submission is not None:
        _write_submission(
            request.submission,
            part,
            first,
            request.naming or folder.naming,
            shop=ids_of(folder.path),
        )
        report["submission"] = str(request.submission)
        report["submission_order"] = "merged" if first.reranked else "recall"
        report["submission_reranked"] = first.reranked
    return report


def _check_answers(
    part: Split, folder: MugeFolder, request: EvaluationRequest, progress: Progress
) -> int:
    """Check that the split fits the request; count its queries without answers."""
    where = folder.queries_path(request.split)
    if request.submission is not None:
        require_pool(request.submission, len(part.image_ids))
    else:
        require_answers(
            part,
            where,
            hint=tr(
                "Write what the model finds, to be scored elsewhere: --submission predictions.jsonl"
            ),
        )
    return warn_without_answers(part, where, progress)


def _mean_stages(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the figures of several subsets, one by one; None if no subset has the figure."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {
        stage: {
            direction: {
                name: mean([one[stage][direction][name] for one in reports]) for name in figures
            }
            for direction, figures in both.items()
        }
        for stage, both in reports[0].items()
    }


def _write_submission(
    path: Path, split: Split, found: Evaluation, naming: Naming, shop: ProductIds
) -> None:
    ids_and_texts = zip(split.query_ids.tolist(), split.texts, strict=True)
    queries = [Query(number, text, ()) for number, text in ids_and_texts]
    write_submission(path, queries, split.image_ids[found.best], naming, shop)
