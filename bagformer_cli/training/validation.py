"""Measure recall on the validation split during training and keep the best model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bagformer_cli.config import RunConfig
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import ConfigError
from bagformer_cli.evaluation.answers import without_answers
from bagformer_cli.evaluation.evaluate import EvaluationOptions, evaluate
from bagformer_cli.evaluation.result import Evaluation
from bagformer_cli.evaluation.sources import OwnModel
from bagformer_cli.files import atomic_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.frozen_towers import KeptModel, keep_outputs
from bagformer_cli.training.initial_model import initial_checkpoint
from bagformer_cli.training.metrics_log import MetricsLog
from bagformer_cli.training.resume import TrainState
from bagformer_cli.training.task import RetrievalTask


class Validation:
    """Evaluates a model on the whole validation split and writes ``best/``.

    ``best/`` is the model with the highest mean recall of the fast scorer. It is the latest model
    if there is no validation split with answers, or if no fast scorer is trained, whose recall then
    says nothing.

    Args:
        task: The model and its objectives.
        split: The validation split; None: none.
        run: The run folder.
        progress: Where to report.

    Raises:
        ConfigError: ``training.early_stopping`` is set, but no recall is measured that could rise.
    """

    def __init__(
        self, task: RetrievalTask, split: Split | None, run: Path, progress: Progress = SILENT
    ) -> None:
        self.task, self.run, self.progress = task, run, progress
        if split is not None and len(without_answers(split)) == len(split.query_ids):
            progress.warn(
                tr(
                    "No validation query names its images: recall is not measured, and best/ is "
                    "the latest model."
                )
            )
            split = None
        self.split = split
        self._model: OwnModel | None = None
        if task.config.training.early_stopping is not None:
            self._require_recall()

    def _require_recall(self) -> None:
        """Raise unless recall is measured and trained."""
        if self.split is not None and self.task.trains_fast_scorer:
            return
        raise ConfigError(
            tr("Early stopping compares validation recall, and this run has none to compare."),
            where="training.early_stopping",
            found=tr("no validation split whose queries name their images")
            if self.split is None
            else tr("only the cross-encoder is trained"),
            hint=tr("Train without it: --set training.early_stopping=null"),
        )

    def measure(self, state: TrainState, log: MetricsLog) -> float | None:
        """Measure recall, log it and write ``best/`` if this is the best model so far.

        Returns:
            Mean recall, text to image, in [0, 1]; None without a validation split.
        """
        if self.split is None:
            self._save_best(None)
            return None
        config = self.task.config
        no_rerank = EvaluationOptions(rerank=())
        source = self._source(self.split)
        found = evaluate(source, self.split, config.evaluation, no_rerank, self.progress)
        mean = found.mean_recall
        report = found.to_json()
        if state.first is not None:
            report["above_start"] = round(100 * (mean - state.first), 6)
        log.write("valid", state.step, report)
        self.progress.info(_recall_line(state, found))
        self._note_gain(state, mean)
        if state.best is None or mean > state.best or not self.task.trains_fast_scorer:
            state.best, state.best_step = mean, state.step
            self._save_best(report)
        return mean

    def _source(self, split: Split) -> OwnModel:
        """Return the model; outputs of its frozen towers are computed once and kept."""
        if self._model is None:
            model = self.task.model
            kept = keep_outputs(model, self.task.config, split, self.progress)
            self._model = OwnModel(model) if kept is None else KeptModel(model, kept)
        return self._model

    def is_exhausted(self, state: TrainState) -> bool:
        """Tell whether recall has not risen for the evaluations that early stopping waits."""
        early = self.task.config.training.early_stopping
        return early is not None and state.stale >= early.patience

    def warn_if_not_above_start(self, state: TrainState) -> None:
        """Warn if no evaluation of a training was above the one before its first step."""
        if state.best_step or not state.step or state.first is None:
            return
        if self.task.trains_fast_scorer and starts_from_weights(self.task.config):
            self.progress.warn(
                tr(
                    "Training did not raise validation recall: it was highest before the first "
                    "step ({start} %), and best/ is the model of that time. Try a lower "
                    "training.learning_rate, training.layer_decay=0.75, frozen layers "
                    "(text.frozen_layers, image.frozen_layers), LoRA (training.lora), or a larger "
                    "batch.",
                    start=f"{100 * state.first:.2f}",
                )
            )

    def _note_gain(self, state: TrainState, mean: float) -> None:
        """Count the evaluations without a gain, for early stopping."""
        early = self.task.config.training.early_stopping
        least = 0.0 if early is None else early.min_delta
        # Rounded, because equal recalls may be summed in other orders.
        gain = None if state.compared is None else round(100 * (mean - state.compared), 6)
        if gain is None or (gain > 0 and gain >= least):
            state.compared, state.stale = mean, 0
        else:
            state.stale += 1

    def _save_best(self, report: dict[str, Any] | None) -> None:
        with atomic_folder(self.run / "best") as folder:
            save_model(self.task.model, folder, report)


def starts_from_weights(config: RunConfig) -> bool:
    """Tell whether a run starts from trained weights: a checkpoint, or a pretrained tower."""
    text, image = config.text, config.image
    tower = text.pretrained is not None or image.pretrained is not False
    tower |= text.chinese_clip is not None or image.chinese_clip is not None
    return tower or initial_checkpoint(config) is not None


def _recall_line(state: TrainState, found: Evaluation) -> str:
    recall, step = found.stages["recall"], state.step
    if state.first is not None:
        return tr(
            "step {step}: validation mean recall {t2i} text to image (start {start}), {i2t} image "
            "to text",
            step=step,
            t2i=f"{100 * recall['text_to_image'].mean:.2f}",
            start=f"{100 * state.first:.2f}",
            i2t=f"{100 * recall['image_to_text'].mean:.2f}",
        )
    return tr(
        "step {step}: validation mean recall {t2i} text to image, {i2t} image to text",
        step=step,
        t2i=f"{100 * recall['text_to_image'].mean:.2f}",
        i2t=f"{100 * recall['image_to_text'].mean:.2f}",
    )
