"""The one training loop. It knows batches, a task with named losses, steps and recall; no model."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.epochs import TrainBatches
from bagformer_cli.data.store.split import Split
from bagformer_cli.errors import TrainingError
from bagformer_cli.evaluation.evaluate import Evaluation, evaluate
from bagformer_cli.files import atomic_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_tensors, save_model, save_tensors
from bagformer_cli.progress import SILENT, Progress, Task
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.metrics_log import MetricsLog, NoLog
from bagformer_cli.training.mined_batches import mine_neighbours
from bagformer_cli.training.optimizer import build_optimizer, learning_rate
from bagformer_cli.training.resume import Position, load_state, random_state, save_state
from bagformer_cli.training.task import RetrievalTask, StepOutput
from bagformer_cli.training.teacher import Teacher

MINED = "mined.safetensors"


@dataclass
class TrainResult:
    """How a sitting of training ended.

    Attributes:
        run: The run folder.
        steps: Optimizer steps done in all.
        total_steps: Where the run ends.
        interrupted: Whether Ctrl-C ended it before that.
        best: Best validation mean recall, in [0, 1], and the step it was reached at.
        seconds: Time spent in training steps, over all sittings.
    """

    run: Path
    steps: int
    total_steps: int
    interrupted: bool
    best: float | None
    best_step: int | None
    seconds: float


class Trainer:
    """One run: a model, its data, its folder.

    Args:
        model: What is trained, on its device.
        config: The run's configuration.
        batches: Training batches, the same for the same configuration.
        valid: The validation split; None: no recall is measured and ``best/`` is the last.
        run: The run folder; ``last/`` in it is gone on from if ``resume``.
        resume: Go on exactly where ``last/`` was saved.
        processes: The processes that train together; the first of them writes and reports.
        progress: Where to report.
    """

    def __init__(
        self,
        model: RetrievalModel,
        config: RunConfig,
        batches: TrainBatches,
        valid: Split | None,
        run: Path,
        *,
        resume: bool = False,
        processes: Processes = SINGLE_PROCESS,
        progress: Progress = SILENT,
    ) -> None:
        self.processes = processes
        self.model = model
        self.config = config
        self.batches = batches
        self.valid = valid
        self.run = run
        self.progress = progress if processes.is_main else SILENT
        self.task = RetrievalTask(
            model,
            config,
            Teacher.load(config, model.device),
            positives=batches.positives,
            processes=processes,
        )
        self.optimizer = build_optimizer(model, config.training)
        self.position = Position()
        if processes.rank:
            torch.manual_seed(config.seed + processes.rank)
        if resume:
            self.position, kept = load_state(run / "last", model, self.optimizer, processes.rank)
            self.task.load_state_dict_of_objectives(kept)
        settings = config.training
        self.steps_per_epoch = max(1, batches.per_epoch // settings.accumulate)
        all_steps = settings.epochs * self.steps_per_epoch
        self.schedule_steps = settings.schedule_steps or all_steps
        self.total_steps = min(all_steps, settings.max_steps or all_steps)
        self._bf16 = _use_bf16(settings.precision, model.device)

    def train(self) -> TrainResult:
        """Train to the end, or to Ctrl-C.

        Raises:
            TrainingError: A loss is not a number; ``last/`` holds the last good state.
        """
        place = self.position
        interrupted = False
        torch.set_float32_matmul_precision("high")
        self.task.train()
        with self._log() as log, _stop_on_interrupt() as stop:
            if place.step == 0:
                place.first = self._evaluate(log)
                self._save_last()
            with self.progress.task(tr("Training"), self.total_steps, tr("steps")) as bar:
                bar.advance(place.step)
                self._mine(again=False)
                stream = self.batches.iterate(place.batches)
                while place.step < self.total_steps:
                    if self._mine(again=True):
                        stream = self.batches.iterate(place.batches)
                    self._step(stream, log, bar)
                    due = self._due(self.config.training.evaluate_every or self.steps_per_epoch)
                    if due:
                        self._evaluate(log)
                    stopped = self.processes.all_reduce_sum(float(stop.is_set())) > 0
                    if due or stopped or self._due(self.config.training.save_every):
                        self._save_last()
                    if stopped and place.step < self.total_steps:
                        interrupted = True
                        break
        return TrainResult(
            self.run,
            place.step,
            self.total_steps,
            interrupted,
            place.best,
            place.best_step,
            place.seconds,
        )

    def _log(self) -> MetricsLog:
        return MetricsLog(self.run, self.position.step) if self.processes.is_main else NoLog()

    def _mine(self, *, again: bool) -> bool:
        """At the beginning of an epoch: which images go with each title, as the student sees it.

        Kept in the run folder and found again by a run that goes on; batches made ahead with the
        old ones are dropped.
        """
        distill, place = self.config.distill, self.position
        if distill is None or not distill.mined or distill.candidates is None:
            return False
        epoch = place.step // self.steps_per_epoch
        if place.mined == epoch and (again or self.batches.neighbours is not None):
            return False
        kept = self.run / "last" / MINED
        if place.mined == epoch and kept.is_file():
            self.batches.neighbours = load_tensors(kept)["neighbours"].numpy()
            return True
        if self.processes.is_main:
            self.batches.neighbours = mine_neighbours(
                self.model, self.batches.split, distill.candidates, self.progress
            )
        self.batches.neighbours = self.processes.broadcast_object(self.batches.neighbours)
        place.mined = epoch
        return True

    def _due(self, every: int | None) -> bool:
        step = self.position.step
        return step == self.total_steps or (every is not None and step % every == 0)

    def _step(self, stream: Iterator[Batch], log: MetricsLog, bar: Task) -> None:
        """One optimizer step: ``accumulate`` batches forward and backward, then the update."""
        start = time.perf_counter()
        settings, place = self.config.training, self.position
        rate = learning_rate(place.step, self.schedule_steps, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        figures: dict[str, float] = {}
        for _ in range(settings.accumulate):
            output = accumulate_gradients(
                self.task,
                next(stream).to(self.model.device),
                epoch=place.step / self.steps_per_epoch,
                number=place.batches,
                chunk=settings.micro_batch_size,
                scale=1 / settings.accumulate,
                bf16=self._bf16,
            )
            place.batches += 1
            for name, value in _figures(output).items():
                figures[name] = figures.get(name, 0.0) + value / settings.accumulate
        figures = self.processes.all_reduce_mean(figures)
        self._require_finite(figures)
        self.processes.all_reduce_gradients(self.model)
        if settings.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
            figures["gradient_norm"] = float(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.clamp_temperature()
        if self.task.momentum is not None:
            self.task.momentum.update(self.model)
        place.step += 1
        place.seconds += time.perf_counter() - start
        self._report(figures, rate, log, bar)

    def _report(
        self, figures: Mapping[str, float], rate: float, log: MetricsLog, bar: Task
    ) -> None:
        place = self.position
        window = place.window
        window["steps"] = window.get("steps", 0) + 1
        for name, value in figures.items():
            window[name] = window.get(name, 0.0) + value
            place.counts[name] = place.counts.get(name, 0) + 1
        if not self._due(self.config.training.log_every):
            bar.advance(1)
            return
        steps = window.pop("steps")
        means = {name: value / place.counts.get(name, steps) for name, value in window.items()}
        window.clear()
        place.counts.clear()
        chance = self.task.random_guess_losses(self.config.training.batch_size)
        log.write(
            "train",
            place.step,
            {
                **means,
                "chance": chance,
                "learning_rate": rate,
                "epoch": place.step / self.steps_per_epoch,
                "seconds": round(place.seconds, 3),
            },
        )
        shown = {
            name.removesuffix("_loss"): tr(
                "{value} (chance {chance})", value=f"{means[name]:.3f}", chance=f"{value:.2f}"
            )
            for name, value in chance.items()
            if name in means
        }
        bar.advance(1, **shown)

    def _require_finite(self, figures: Mapping[str, float]) -> None:
        broken = [name for name, value in figures.items() if not abs(value) < float("inf")]
        if broken:
            raise TrainingError(
                tr("A loss is not a number."),
                where=tr("step {step}", step=self.position.step + 1),
                found=", ".join(f"{name} = {figures[name]}" for name in broken),
                hint=tr(
                    "Try a lower training.learning_rate, training.clip=1, more "
                    "training.warmup_steps, or training.precision=fp32; then go on from the last "
                    "good state with --resume."
                ),
            )

    def _evaluate(self, log: MetricsLog) -> float | None:
        """Full-pool recall on validation, by the first process; keeps ``best/``."""
        if not self.processes.is_main:
            self.processes.barrier()
            return None
        try:
            return self._measure(log)
        finally:
            self.processes.barrier()

    def _measure(self, log: MetricsLog) -> float | None:
        place = self.position
        if self.valid is None:
            self._save_best()
            return None
        found = evaluate(
            self.model, self.valid, self.config.evaluation, rerank=False, progress=self.progress
        )
        mean = found.mean_recall
        log.write("valid", place.step, found.to_json())
        self.progress.info(self._recall_line(found))
        if place.first is not None and mean < place.first and self._pretrained:
            self.progress.warn(
                tr(
                    "Recall is below that of the pretrained model before training ({first}): "
                    "try a lower learning rate or a larger batch.",
                    first=f"{100 * place.first:.2f}",
                )
            )
        # where no fast scorer is trained its recall says nothing: the latest is kept
        if place.best is None or mean > place.best or not self.task.trains_fast_scorer:
            place.best, place.best_step = mean, place.step
            self._save_best()
        return mean

    @property
    def _pretrained(self) -> bool:
        return self.config.text.pretrained is not None or self.config.image.pretrained is not False

    def _recall_line(self, found: Evaluation) -> str:
        both = found.stages["recall"]
        return tr(
            "step {step}: validation mean recall {t2i} text to image, {i2t} image to text",
            step=self.position.step,
            t2i=f"{100 * both['text_to_image'].mean:.2f}",
            i2t=f"{100 * both['image_to_text'].mean:.2f}",
        )

    def _save_best(self) -> None:
        with atomic_folder(self.run / "best") as folder:
            save_model(self.model, folder)

    def _save_last(self) -> None:
        chances = self.processes.all_gather_object(random_state())
        if self.processes.is_main:
            self._write_last(chances)
        self.processes.barrier()

    def _write_last(self, chances: list[dict[str, Tensor]]) -> None:
        with atomic_folder(self.run / "last") as folder:
            save_model(self.model, folder)
            more = self.task.state_dict_of_objectives()
            save_state(folder, self.model, self.optimizer, self.position, chances, more)
            if self.batches.neighbours is not None:
                neighbours = torch.from_numpy(self.batches.neighbours)
                save_tensors({"neighbours": neighbours}, folder / MINED)


def _figures(output: StepOutput) -> dict[str, float]:
    """The losses, their weights and weighted sum, and the report of a step as numbers."""
    losses = {name: float(loss.detach()) for name, loss in output.losses.items()}
    weights = {f"{name}_weight": output.weights[name] for name in losses}
    return {"loss": float(output.total.detach()), **losses, **weights, **output.report}


def _use_bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a step ends whole; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> Any:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
