"""The rerank of an evaluation: which model does it, and the weight beta of the merged score.

The evaluated model reranks with its own cross-encoder, or another model does (``--slow``). Beta is
chosen for a pair of models. So the evaluated model's ``config.yaml`` keeps one for itself
(``evaluation.beta``) and one for each other model (``evaluation.slow_betas``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bagformer_cli.config import load_config, save_config
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.answers import require_answers
from bagformer_cli.evaluation.evaluate import EvaluationOptions, Reranker, evaluate
from bagformer_cli.evaluation.request import EvaluationRequest
from bagformer_cli.evaluation.sources import open_split
from bagformer_cli.files import sha256_of
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, require_cross_encoder
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.runs import WEIGHTS
from bagformer_cli.progress import Progress


@dataclass(frozen=True)
class Reranking:
    """The models of an evaluation, which are loaded, and how they rerank.

    Attributes:
        folder: The dataset.
        checkpoint: The folder of the evaluated model.
        model: The evaluated model.
        other: Another model that reranks; None: the evaluated model does.
        request: The settings of the evaluation.
    """

    folder: MugeFolder
    checkpoint: Path
    model: RetrievalModel
    other: RetrievalModel | None
    request: EvaluationRequest

    @classmethod
    def load(cls, folder: MugeFolder, checkpoint: Path, request: EvaluationRequest) -> Reranking:
        """Load the models; check that they can do what is requested.

        Raises:
            CheckpointError: A model folder is broken, or has no trained cross-encoder.
            InputError: A setting of the merged score is given, and nothing is merged.
        """
        device = request.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = load_model(checkpoint, device)
        other = None
        if request.reranker is not None:
            other = load_model(request.reranker, device)
            require_cross_encoder(other, request.reranker)
        elif any(request.rerank or ()):
            require_cross_encoder(model, checkpoint)
        counts = EvaluationOptions(request.rerank).counts(model.config.evaluation)
        if not (counts and (other or model).can_rerank):
            options = {
                "--tune-beta": request.tune_beta,
                "--beta": request.beta is not None,
                "--slow": other is not None,
            }
            for option, given in options.items():
                if given:
                    raise _no_merged_score(checkpoint, other or model, option)
        return cls(folder, checkpoint, model, other, request)

    def options(self, split: str, progress: Progress) -> EvaluationOptions:
        """Return the options for a split, which is opened for another model that reranks."""
        reranker = None
        if self.other is not None:
            reranker = Reranker(self.other, open_split(self.folder, self.other, split, progress))
        return EvaluationOptions(
            self.request.rerank,
            reranker,
            keep_scores=self.request.page is not None,
            keep_pairs=self.request.calibrate,
        )

    def beta(self, progress: Progress) -> float:
        """Return the weight of the fast score: given, tuned and saved now, or configured."""
        settings, request = self.model.config.evaluation, self.request
        if request.beta is not None:
            return request.beta
        key = None if request.reranker is None else reranker_key(request.reranker)
        if request.tune_beta:
            beta = self._tuned_beta(progress)
            save_beta(self.checkpoint, beta, key)
            progress.info(tr("beta {beta}, chosen on validation", beta=f"{beta:g}"))
            return beta
        if key is None or key in settings.slow_betas:
            return settings.beta if key is None else settings.slow_betas[key]
        progress.info(
            tr(
                "No beta was chosen for the cross-encoder of {slow}: {beta} of the configuration "
                "is used. Choose one with --tune-beta.",
                slow=request.reranker,
                beta=f"{settings.beta:g}",
            )
        )
        return settings.beta

    def _tuned_beta(self, progress: Progress) -> float:
        valid = open_split(self.folder, self.model, "valid", progress)
        options = replace(self.options("valid", progress), tune_beta=True)
        require_answers(valid, self.folder.queries_path("valid"))
        beta = evaluate(self.model, valid, self.model.config.evaluation, options, progress).beta
        assert beta is not None  # load() has checked that something is reranked
        return beta


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
    config = load_config(path, stored=True)
    if key is None:
        config.evaluation.beta = beta
    else:
        config.evaluation.slow_betas = {**config.evaluation.slow_betas, key: beta}
    save_config(config, path, path)


def _no_merged_score(checkpoint: Path, model: RetrievalModel, option: str) -> InputError:
    """Make the error for an option about beta where nothing is merged."""
    if not model.can_rerank:
        message = tr("The model has no trained cross-encoder, so there is no merged score.")
        hint = tr("Name a model with a trained cross-encoder: --slow RUN")
    else:
        message = tr("The model's evaluation.candidates is 0, so there is no merged score.")
        hint = tr("Say how many candidates to rerank: --rerank 50")
    return InputError(message, where=checkpoint, found=option, hint=hint)
