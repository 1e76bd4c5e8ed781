"""Evaluate a model folder on a dataset: all that ``xmr eval`` does, as plain functions.

:func:`evaluate_folder` opens the split, applies the settings, evaluates and writes the submission.
:func:`check_folder` checks a submission against the dataset's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bagformer_cli.config import load_config, save_config
from bagformer_cli.data.muge import MugeFolder, Naming, Query, iter_images, iter_queries
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.attributes import first_image_accuracy
from bagformer_cli.evaluation.evaluate import Evaluation, EvaluationOptions, Reranker, evaluate
from bagformer_cli.evaluation.products import read_products
from bagformer_cli.evaluation.submission import (
    CheckedSubmission,
    check_submission,
    write_submission,
)
from bagformer_cli.evaluation.subsets import read_subsets
from bagformer_cli.files import sha256_of
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, require_cross_encoder
from bagformer_cli.models.checkpoint import WEIGHTS, load_model
from bagformer_cli.progress import SILENT, Progress


@dataclass(frozen=True)
class EvaluationRequest:
    """The settings of :func:`evaluate_folder`; each is an option of ``xmr eval``.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        reranker: Model folder whose cross-encoder reranks; None: that of the evaluated model.
        rerank: Numbers K of candidates to rerank; None: the configuration's.
        beta: Weight of the fast score in the merged score; None: the configuration's.
        tune_beta: Choose beta on the validation split and write it into the model folder.
        items: File of image ids, and perhaps names of subsets, to evaluate on.
        products: TSV of image id and product; images of one product count once.
        submission: File to write MUGE's submission to.
        naming: Field names of the submission; None: those of the dataset.
        device: Device of the models; None: a GPU if there is one.
    """

    split: str = "valid"
    reranker: Path | None = None
    rerank: Sequence[int] | None = None
    beta: float | None = None
    tune_beta: bool = False
    items: Path | None = None
    products: Path | None = None
    submission: Path | None = None
    naming: Naming | None = None
    device: str | None = None


def evaluate_folder(
    folder: MugeFolder,
    checkpoint: Path,
    request: EvaluationRequest = EvaluationRequest(),
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Evaluate a model folder on a split of a dataset.

    Args:
        folder: The dataset. Its store is made or updated first.
        checkpoint: The model folder.
        request: The settings.
        progress: Where progress is reported.

    Returns:
        The report of ``xmr eval --json`` without the dataset's name.

    Raises:
        CheckpointError: A model folder is broken, or has no trained cross-encoder to rerank with.
        InputError: A file of the request is missing or wrong, or there is nothing to tune.
        DataError: A file of the dataset is wrong.
    """
    device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(checkpoint, device)
    other = None
    if request.reranker is not None:
        other = load_model(request.reranker, device)
        require_cross_encoder(other, request.reranker)
    elif any(request.rerank or ()):
        require_cross_encoder(model, checkpoint)
    part, options = _open(folder, model, other, request.split, request, progress)
    settings = model.config.evaluation
    key = None if request.reranker is None else reranker_key(request.reranker)
    if key is not None:
        settings.beta = settings.slow_betas.get(key, settings.beta)
    if request.beta is not None:
        settings.beta = request.beta
    if request.tune_beta:
        valid = _open(folder, model, other, "valid", request, progress)
        settings.beta = _tune_beta(model, *valid, checkpoint, progress)
        save_beta(checkpoint, settings.beta, key)
        progress.info(tr("beta {beta}, chosen on validation", beta=f"{settings.beta:g}"))
    if request.products is not None:
        options = replace(options, groups=read_products(request.products, part.image_ids))
    subsets = {"": None} if request.items is None else read_subsets(request.items, part)
    found = {
        name: evaluate(model, part, settings, replace(options, subset=subset), progress)
        for name, subset in subsets.items()
    }
    first = next(iter(found.values()))
    report = {"split": request.split, **first.to_json(), "checkpoint": str(checkpoint)}
    if request.reranker is not None:
        report["slow"] = str(request.reranker)
    if request.items is not None:
        reports = {name: one.to_json() for name, one in found.items()}
        report["stages"] = _mean_stages([one["stages"] for one in reports.values()])
        report["subsets"] = reports
        return report
    if accuracy := first_image_accuracy(folder.path, part, first.best[:, 0]):
        report["attributes"] = accuracy
    if request.submission is not None:
        _write_submission(request.submission, part, first, request.naming or folder.naming)
        report["submission"] = str(request.submission)
    return report


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


def reranker_key(folder: Path) -> str:
    """Name the weights of a model folder, for ``evaluation.slow_betas``: 16 hex digits."""
    return sha256_of(folder / WEIGHTS)[:16]


def save_beta(folder: Path, beta: float, key: str | None) -> None:
    """Write beta into a model folder's configuration.

    Args:
        folder: The evaluated model's folder.
        beta: Weight of the fast score.
        key: :func:`reranker_key` of the model that reranks; None: the model itself.
    """
    path = folder / "config.yaml"
    config = load_config(path)
    if key is None:
        config.evaluation.beta = beta
    else:
        config.evaluation.slow_betas = {**config.evaluation.slow_betas, key: beta}
    save_config(config, path, path)


def open_split(
    folder: MugeFolder, model: RetrievalModel, split: str, progress: Progress = SILENT
) -> Split:
    """Open a split of a dataset with the tokens that a model reads, preprocessing if needed."""
    store = preprocess(
        folder, encoder=model.titles, splits=[split], workers=usable_cores(), progress=progress
    )
    return store.split(split)


def _open(
    folder: MugeFolder,
    model: RetrievalModel,
    other: RetrievalModel | None,
    split: str,
    request: EvaluationRequest,
    progress: Progress,
) -> tuple[Split, EvaluationOptions]:
    """Open a split for the evaluated model and for another one that reranks."""
    part = open_split(folder, model, split, progress)
    if other is None:
        return part, EvaluationOptions(request.rerank)
    reranker = Reranker(other, open_split(folder, other, split, progress))
    return part, EvaluationOptions(request.rerank, reranker)


def _tune_beta(
    model: RetrievalModel,
    split: Split,
    options: EvaluationOptions,
    where: Path,
    progress: Progress,
) -> float:
    tuning = replace(options, tune_beta=True)
    beta = evaluate(model, split, model.config.evaluation, tuning, progress).beta
    if beta is None:
        raise InputError(
            tr("There is no cross-encoder whose weight could be chosen."),
            where=where,
            hint=tr("Name a model with --slow and rerank some candidates: --rerank 50"),
        )
    return beta


def _mean_stages(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the figures of several subsets, one by one."""
    return {
        stage: {
            direction: {
                name: sum(one[stage][direction][name] for one in reports) / len(reports)
                for name in figures
            }
            for direction, figures in both.items()
        }
        for stage, both in reports[0].items()
    }


def _write_submission(path: Path, split: Split, found: Evaluation, naming: Naming) -> None:
    ids_and_texts = zip(split.query_ids.tolist(), split.texts, strict=True)
    queries = [Query(number, text, ()) for number, text in ids_and_texts]
    write_submission(path, queries, split.image_ids[found.best], naming)
