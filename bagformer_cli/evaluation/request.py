"""The settings of an evaluation, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bagformer_cli.data.muge import Naming
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr


@dataclass(frozen=True)
class EvaluationRequest:
    """The settings of ``evaluation.dataset.evaluate_folder``; each is an option of ``xmr eval``.

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
        calibrate: Fit what a score means, and write it into the model folder.
        page: HTML page to be written of the evaluation; the scores of all pairs are kept for it.
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
    calibrate: bool = False
    page: Path | None = None
    device: str | None = None


DEFAULTS = EvaluationRequest()


def check_request(request: EvaluationRequest) -> None:
    """Refuse settings of which one would be ignored.

    Raises:
        InputError: Two settings contradict each other; the error names both.
    """
    no_rerank = request.rerank is not None and not any(request.rerank)
    merging = {"--tune-beta": request.tune_beta, "--beta": request.beta is not None}
    reranking = {"--rerank": any(request.rerank or ()), "--slow": request.reranker is not None}
    clashes = {
        "--rerank 0": (no_rerank, {**merging, "--slow": reranking["--slow"]}),
        "--products": (request.products is not None, {**merging, **reranking}),
        "--submission": (
            request.submission is not None,
            {"--items": request.items is not None, "--products": request.products is not None},
        ),
        "--report": (
            request.page is not None,
            {"--items": request.items is not None, "--products": request.products is not None},
        ),
        "--calibrate": (
            request.calibrate,
            {"--items": request.items is not None, "--products": request.products is not None},
        ),
        "--beta": (request.beta is not None, {"--tune-beta": request.tune_beta}),
    }
    reasons = {
        "--rerank 0": tr("--rerank 0 reranks nothing, so there is no merged score."),
        "--products": tr("With --products only the recall stage is measured."),
        "--submission": tr("A submission holds images of the whole split."),
        "--report": tr("The page shows the whole split."),
        "--calibrate": tr("--calibrate fits on the results of the whole split."),
        "--beta": tr("--beta fixes the weight that --tune-beta chooses."),
    }
    for name, (given, others) in clashes.items():
        wrong = [other for other, is_given in others.items() if is_given]
        if given and wrong:
            raise InputError(
                reasons[name],
                where="xmr eval",
                found=f"{name} {' '.join(wrong)}",
                hint=tr("Leave out one of the two."),
            )
    if request.calibrate and request.split != "valid":
        raise InputError(
            tr("--calibrate fits on the validation split only."),
            where="xmr eval",
            found=f"--split {request.split}",
            hint=tr(
                "The model has seen the training split, and a test split that was fitted on "
                "measures nothing. Leave out --split."
            ),
        )
    if request.naming is not None and request.submission is None:
        raise InputError(
            tr("--naming names the fields of a submission, and none is written."),
            where="xmr eval",
            hint=tr("Add --submission FILE, or leave out --naming."),
        )


def refuse_reranking(request: EvaluationRequest, where: str) -> None:
    """Refuse settings of a rerank or a calibration for vectors of no model of this project.

    Args:
        request: The settings.
        where: The model or the vectors, for the message.

    Raises:
        InputError: The settings ask for a rerank or a calibration; the error names them.
    """
    if request.calibrate:
        raise InputError(
            tr("--calibrate writes into a model folder of xmr, and this is none."),
            where=where,
            found="--calibrate",
            hint=tr("Leave it out."),
        )
    given = {
        "--rerank": any(request.rerank or ()),
        "--slow": request.reranker is not None,
        "--beta": request.beta is not None,
        "--tune-beta": request.tune_beta,
    }
    if any(given.values()):
        raise InputError(
            tr("Only a model that xmr trained can be reranked; here the recall stage is measured."),
            where=where,
            found=" ".join(name for name, is_given in given.items() if is_given),
            hint=tr("Leave it out."),
        )
