"""Measure recall on the validation split during training and keep the best model."""

from __future__ import annotations

from pathlib import Path

from bagformer_cli.data.store.split import Split
from bagformer_cli.evaluation.answers import without_answers
from bagformer_cli.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from bagformer_cli.files import atomic_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.progress import SILENT, Progress
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

    def measure(self, state: TrainState, log: MetricsLog) -> float | None:
        """Measure recall, log it and write ``best/`` if this is the best model so far.

        Returns:
            Mean recall, text to image, in [0, 1]; None without a validation split.
        """
        if self.split is None:
            self._save_best()
            return None
        config = self.task.config
        no_rerank = EvaluationOptions(rerank=())
        found = evaluate(self.task.model, self.split, config.evaluation, no_rerank, self.progress)
        mean = found.mean_recall
        log.write("valid", state.step, found.to_json())
        self.progress.info(_recall_line(state.step, found))
        pretrained = config.text.pretrained is not None or config.image.pretrained is not False
        if pretrained and state.first is not None and mean < state.first:
            self.progress.warn(
                tr(
                    "Recall is below that of the pretrained model before training ({first}): "
                    "try a lower learning rate or a larger batch.",
                    first=f"{100 * state.first:.2f}",
                )
            )
        if state.best is None or mean > state.best or not self.task.trains_fast_scorer:
            state.best, state.best_step = mean, state.step
            self._save_best()
        return mean

    def _save_best(self) -> None:
        with atomic_folder(self.run / "best") as folder:
            save_model(self.task.model, folder)


def _recall_line(step: int, found: Evaluation) -> str:
    recall = found.stages["recall"]
    return tr(
        "step {step}: validation mean recall {t2i} text to image, {i2t} image to text",
        step=step,
        t2i=f"{100 * recall['text_to_image'].mean:.2f}",
        i2t=f"{100 * recall['image_to_text'].mean:.2f}",
    )
