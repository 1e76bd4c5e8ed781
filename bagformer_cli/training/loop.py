"""The training loop: optimizer steps, logging, evaluation and saving. It knows no objective.

One optimizer step (:meth:`Trainer._step`)::

    learning rate → for each of ``accumulate`` batches: accumulate_gradients()
                  → sum gradients over processes → clip → AdamW → clamp temperature
                  → update the momentum encoder and the average of the weights → log

A run folder is written by the main process only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.errors import NotFiniteError, TrainingError, listed
from bagformer_cli.files import atomic_folder
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.models.momentum import tensors_under
from bagformer_cli.progress import SILENT, Progress, Task
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.interrupt import stop_on_signal
from bagformer_cli.training.memory_estimate import count_parameters, peak_memory_mb
from bagformer_cli.training.metrics_log import MetricsLog, NoLog
from bagformer_cli.training.mined_batches import BatchMiner
from bagformer_cli.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from bagformer_cli.training.resume import TrainState, load_state, rng_state, save_state
from bagformer_cli.training.task import RetrievalTask, StepOutput
from bagformer_cli.training.teacher import Teacher
from bagformer_cli.training.validation import Validation
from bagformer_cli.training.weight_average import WeightAverage

LOSS_NAMES = {
    "itc_loss": "ITC",
    "late_interaction_loss": tr("late interaction"),
    "itm_loss": "ITM",
    "mlm_loss": "MLM",
    "mfm_loss": "MFM",
    "caption_loss": tr("captioning"),
    "distill_loss": tr("distillation"),
}
"""Names of the losses next to the progress bar; ``metrics.jsonl`` has the keys."""


@dataclass
class TrainResult:
    """The state of a run when training returned.

    Attributes:
        run: The run folder.
        steps: Optimizer steps done, including those before a resume.
        total_steps: Steps of the whole run.
        resumed_at: Steps that were done when this training began; 0: a new run.
        interrupted: Whether Ctrl-C or a signal stopped it before its end.
        best: Best validation mean recall, in [0, 1]; None without a validation split.
        best_step: The step of ``best``.
        seconds: Time spent in training steps, including those before a resume.
        parameters: Numbers that are trained, and all numbers of the model.
        start: Validation mean recall before the first step, in [0, 1]; None: not measured.
        stopped_early: Whether ``training.early_stopping`` ended it.
    """

    run: Path
    steps: int
    total_steps: int
    resumed_at: int
    interrupted: bool
    best: float | None
    best_step: int | None
    seconds: float
    parameters: tuple[int, int] = (0, 0)
    start: float | None = None
    stopped_early: bool = False


@dataclass
class TrainData:
    """The data of a run.

    Attributes:
        batches: Training batches; the same for the same configuration.
        valid: The validation split; None: recall is not measured and ``best/`` is the latest model.
    """

    batches: TrainBatches
    valid: Split | None


class Trainer:
    """One run: a model, its data, its folder.

    Args:
        model: The model to train, on its device.
        config: The run's configuration.
        data: Training batches and validation split.
        run: The run folder.
        resume: Continue exactly where ``run/last`` was saved.
        processes: The processes that train together.
        progress: Where the main process reports.
    """

    def __init__(
        self,
        model: RetrievalModel,
        config: RunConfig,
        data: TrainData,
        run: Path,
        *,
        resume: bool = False,
        processes: Processes = SINGLE_PROCESS,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.config, self.run, self.processes = model, config, run, processes
        self.batches = data.batches
        self.progress = progress if processes.is_main else SILENT
        self.task = RetrievalTask(
            model,
            config,
            Teacher.load(config, model.device),
            positives=data.batches.positives,
            processes=processes,
        )
        self.optimizer = build_optimizer(model, config.training)
        self.validation = Validation(self.task, data.valid, run, self.progress)
        distill = config.distill
        candidates = distill.candidates if distill is not None and distill.mined else None
        self.miner = BatchMiner(model, self.batches, candidates, processes, self.progress)
        decay = config.training.ema
        self.average = None if decay is None else WeightAverage(model, decay)
        self.state = TrainState()
        self._resumed = resume
        if processes.rank:
            # Rank 0 keeps the seed of a single process; the others need their own dropout.
            torch.manual_seed(config.seed + processes.rank)
        if resume:
            last = run / "last"
            self.state, kept = load_state(last, model, self.optimizer, processes.rank)
            self.task.load_state_dict_of_objectives(tensors_under(kept, "task"))
            if self.average is not None:
                self.average.load_state_dict(tensors_under(kept, "ema"))
            self.miner.restore(last, self.state)
        settings = config.training
        self.steps_per_epoch = max(1, self.batches.per_epoch // settings.accumulate)
        all_steps = settings.epochs * self.steps_per_epoch
        self.schedule_steps = settings.schedule_steps or all_steps
        self.total_steps = min(all_steps, settings.max_steps or all_steps)
        self._bf16 = _use_bf16(settings.precision, model.device)

    def train(self) -> TrainResult:
        """Train to the end, or until Ctrl-C or a signal to stop.

        Raises:
            TrainingError: A loss is not finite; ``last/`` holds the last good state.
        """
        state, settings = self.state, self.config.training
        interrupted, resumed_at = False, state.step
        torch.set_float32_matmul_precision("high")
        self.task.train()
        is_main = self.processes.is_main
        known = state.step if self._resumed else -1
        log_file = MetricsLog(self.run, known) if is_main else NoLog()
        with log_file as log, stop_on_signal() as stop:
            trained, total = count_parameters(self.model)
            if trained < total:
                share = f"{100 * trained / total:.2f}"
                self.progress.info(
                    tr(
                        "Training {n} of {total} parameters ({share} %).",
                        n=f"{trained:,}", total=f"{total:,}", share=share,
                    )
                )  # fmt: skip
            if not self._resumed:  # a killed run must find a last/ to resume from
                state.first = self._evaluate(log)
                self._save_last()
            with self.progress.task(tr("Training"), self.total_steps, tr("steps")) as bar:
                bar.advance(state.step)
                stream: Iterator[Batch] | None = None
                exhausted = self.validation.is_exhausted(state)
                while state.step < self.total_steps and not exhausted:
                    mined = self._mine()
                    if mined or stream is None:
                        stream = self.batches.iterate(state.batches)
                    self._step(stream, log, bar)
                    evaluate = self._is_due(settings.evaluate_every or self.steps_per_epoch)
                    if evaluate:
                        self._evaluate(log)
                        # Only the main process has measured recall.
                        exhausted = self.processes.broadcast_object(
                            self.validation.is_exhausted(state)
                        )
                    if exhausted and state.window:  # steps since the last line of the log
                        self._log(log, learning_rate(state.step, self.schedule_steps, settings))
                    # Ctrl-C may reach one process only, but all must leave the loop together.
                    stopped = self.processes.all_reduce_sum(float(stop.is_set())) > 0
                    if evaluate or stopped or self._is_due(settings.save_every):
                        self._save_last()
                    if stopped and state.step < self.total_steps and not exhausted:
                        interrupted = True
                        break
            if not interrupted:
                self.validation.warn_if_not_above_start(state)
        return TrainResult(
            self.run,
            state.step,
            self.total_steps,
            resumed_at,
            interrupted,
            state.best,
            state.best_step,
            state.seconds,
            parameters=count_parameters(self.model),
            start=state.first,
            stopped_early=exhausted and state.step < self.total_steps,
        )

    def _is_due(self, every: int | None) -> bool:
        """Say whether an action is due that happens after every ``every`` steps and at the end."""
        step = self.state.step
        return step == self.total_steps or (every is not None and step % every == 0)

    def _step(self, stream: Iterator[Batch], log: MetricsLog, bar: Task) -> None:
        """Take one optimizer step and log it."""
        start = time.perf_counter()
        settings, state = self.config.training, self.state
        rate = learning_rate(state.step, self.schedule_steps, settings)
        set_learning_rate(self.optimizer, rate)
        figures: dict[str, float] = {}
        for _ in range(settings.accumulate):
            output = accumulate_gradients(
                self.task,
                self._next_batch(stream, figures),
                epoch=state.step / self.steps_per_epoch,
                number=state.batches,
                chunk=settings.micro_batch_size,
                scale=1 / settings.accumulate,
                bf16=self._bf16,
            )
            state.batches += 1
            for name, value in _figures(output).items():
                figures[name] = figures.get(name, 0.0) + value / settings.accumulate
        figures = self.processes.all_reduce_mean(figures)
        self._require_finite(figures)
        # Clip after the sum, so that the norm is that of the whole batch on every process.
        self.processes.all_reduce_gradients(self.model)
        # Without clipping the norm is measured all the same: a gradient that is not finite would
        # spoil every weight.
        limit = math.inf if settings.clip is None else settings.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        figures["gradient_norm"] = float(norm)
        self._require_finite({"gradient_norm": figures["gradient_norm"]})
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.clamp_temperature()
        if self.task.momentum is not None:
            self.task.momentum.update(self.model)
        if self.average is not None:
            self.average.update()
        state.step += 1
        figures["step_seconds"] = time.perf_counter() - start
        state.seconds += figures["step_seconds"]
        state.add_figures(figures)
        shown = self._log(log, rate) if self._is_due(settings.log_every) else {}
        bar.advance(1, **shown)

    def _next_batch(self, stream: Iterator[Batch], figures: dict[str, float]) -> Batch:
        """Take the next batch; adds the time until it was there to ``figures``."""
        start = time.perf_counter()
        batch = next(stream)
        waited = time.perf_counter() - start
        figures["data_seconds"] = figures.get("data_seconds", 0.0) + waited
        return batch.to(self.model.device)

    def _mine(self) -> bool:
        """Mine the batches of a new epoch; returns whether they changed."""
        try:
            return self.miner.mine(self.state.step // self.steps_per_epoch, self.state)
        except NotFiniteError as error:
            raise self._diverged(error.message) from error

    def _log(self, log: MetricsLog, rate: float) -> dict[str, str]:
        """Write the means since the last line; returns what the progress bar shows of them."""
        state = self.state
        means = state.take_means()
        images = self.config.training.batch_size * self.config.training.accumulate
        seconds = max(means.pop("step_seconds", 0.0), 1e-9)
        waited = means.pop("data_seconds", 0.0)
        guess = self.task.random_guess_losses(self.config.training.batch_size)
        log.write(
            "train",
            state.step,
            {
                **means,
                "chance": guess,
                "learning_rate": rate,
                "epoch": state.step / self.steps_per_epoch,
                "seconds": round(state.seconds, 3),
                "samples_per_second": round(images / seconds, 2),
                "data_wait_share": round(waited / seconds, 4),
                "memory_mb": peak_memory_mb(self.model.device),
            },
        )
        return {
            LOSS_NAMES.get(name, name.removesuffix("_loss")): tr(
                "{value} (random guess {guess})", value=f"{means[name]:.3f}", guess=f"{value:.2f}"
            )
            for name, value in guess.items()
            if name in means
        }

    def _require_finite(self, figures: Mapping[str, float]) -> None:
        """Raise unless all figures of a step are finite: the weights are not changed then."""
        broken = {name: value for name, value in figures.items() if not math.isfinite(value)}
        if broken:
            raise self._diverged(listed(f"{name} = {value}" for name, value in broken.items()))

    def _diverged(self, found: str) -> TrainingError:
        return TrainingError(
            tr("The training diverged: a number is not finite."),
            where=tr("step {step}", step=self.state.step + 1),
            found=found,
            hint=tr(
                "Try a lower training.learning_rate, training.clip=1, more "
                "training.warmup_steps, or training.precision=fp32; then continue from the "
                "last good state with --resume."
            ),
        )

    def _evaluate(self, log: MetricsLog) -> float | None:
        """Let the main process evaluate, the average if there is one, while the others wait."""
        applied = nullcontext() if self.average is None else self.average.applied()
        try:
            with applied:
                return self.validation.measure(self.state, log) if self.processes.is_main else None
        except NotFiniteError as error:  # before last/ and best/ are written
            raise self._diverged(error.message) from error
        finally:
            self.processes.barrier()

    def _save_last(self) -> None:
        """Write ``last/``: the model and all that a resumed run needs."""
        rng_states = self.processes.all_gather_object(rng_state())
        if self.processes.is_main:
            with atomic_folder(self.run / "last") as folder:
                save_model(self.model, folder)
                of_task = self.task.state_dict_of_objectives()
                kept = {f"task.{name}": value for name, value in of_task.items()}
                if self.average is not None:
                    average = self.average.state_dict()
                    kept |= {f"ema.{name}": value for name, value in average.items()}
                save_state(folder, self.model, self.optimizer, self.state, rng_states, kept)
                self.miner.save(folder)
        self.processes.barrier()


def _figures(output: StepOutput) -> dict[str, float]:
    """Return the losses, their weights and weighted sum, and the report of a batch as numbers."""
    losses = {name: float(loss.detach()) for name, loss in output.losses.items()}
    weights = {f"{name}_weight": output.weights[name] for name in losses}
    return {"loss": float(output.total.detach()), **losses, **weights, **output.report}


def _use_bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"
