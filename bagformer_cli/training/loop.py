"""The training loop: optimizer steps, logging, evaluation and saving. It knows no objective.

One optimizer step (:meth:`Trainer.take_step`)::

    learning rate → for each of ``accumulate`` batches: accumulate_gradients()
                  → sum gradients over processes → clip → AdamW → clamp temperature
                  → update the momentum encoder and the average of the weights
                  → keep the figures, and read them if a line of the log is due

No step reads a number from the GPU (``step_figures``), so that the host queues the next step while
the GPU computes.

A run folder is written by the main process only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

import torch
from torch import Tensor, nn

from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.errors import NotFiniteError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.progress import SILENT, Progress, Task
from bagformer_cli.training.arithmetic import training_arithmetic
from bagformer_cli.training.compilation import compile_layers, uncompiled
from bagformer_cli.training.distributed import SINGLE_PROCESS, Processes
from bagformer_cli.training.encoded_batch import Figure
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.interrupt import stop_on_signal
from bagformer_cli.training.last_folder import LastFolder
from bagformer_cli.training.memory_estimate import count_parameters, peak_memory_mb
from bagformer_cli.training.metrics_log import LOSS_NAMES, MetricsLog, NoLog
from bagformer_cli.training.mined_batches import BatchMiner
from bagformer_cli.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from bagformer_cli.training.resume import TrainState
from bagformer_cli.training.run_loggers import RunLogger
from bagformer_cli.training.run_record import record_end
from bagformer_cli.training.step_figures import StepFigures, diverged
from bagformer_cli.training.task import RetrievalTask, StepOutput
from bagformer_cli.training.teacher import Teacher
from bagformer_cli.training.train_result import TrainResult
from bagformer_cli.training.validation import Validation
from bagformer_cli.training.weight_average import WeightAverage

End = Literal["complete", "stopped early", "interrupted"]
"""How training ended: after all steps, by ``training.early_stopping``, or by a signal."""


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
        if config.training.compile:
            compile_layers(model)  # after the momentum encoder was copied from it
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
        self._last = LastFolder(run, self.task, self.optimizer, self.average, self.miner, processes)
        if resume:
            self.state = self._last.restore()
        self.figures = StepFigures(self.state, processes)
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
        state, resumed_at = self.state, self.state.step
        self.task.train()
        arithmetic = training_arithmetic(deterministic=self.config.training.deterministic)
        with arithmetic, self._open_log() as log, stop_on_signal() as stop:
            self._say_trained_share()
            if not self._resumed:  # a killed run must find a last/ to resume from
                state.first = self._evaluate(log)
                self._save_last()
            end = self._take_steps(log, stop)
            if end != "interrupted":
                self.validation.warn_if_not_above_start(state)
        speed = {
            "seconds": round(state.seconds, 3),
            "pairs_per_second": state.pairs / state.seconds if state.seconds else None,
            "data_wait_share": state.waited / state.seconds if state.seconds else None,
        }
        if self.processes.is_main:
            record_end(self.run, state.step, speed)
        return TrainResult(
            self.run,
            state.step,
            self.total_steps,
            resumed_at,
            end == "interrupted",
            state.best,
            state.best_step,
            state.seconds,
            pairs_per_second=speed["pairs_per_second"],
            data_wait_share=speed["data_wait_share"],
            parameters=count_parameters(self.model),
            start=state.first,
            stopped_early=end == "stopped early",
        )

    def _open_log(self) -> MetricsLog:
        """Open the log of the run; only the main process writes one."""
        if not self.processes.is_main:
            return NoLog()
        settings = self.config.model_dump(mode="json")
        loggers = [
            RunLogger(name, self.run, settings, self.progress)
            for name in self.config.training.loggers
        ]
        return MetricsLog(self.run, self.state.step if self._resumed else -1, loggers)

    def _say_trained_share(self) -> None:
        """Say how many parameters are trained, if some are frozen."""
        trained, total = count_parameters(self.model)
        if trained < total:
            share = f"{100 * trained / total:.2f}"
            self.progress.info(
                tr(
                    "Training {n} of {total} parameters ({share} %).",
                    n=f"{trained:,}", total=f"{total:,}", share=share,
                )
            )  # fmt: skip

    def _take_steps(self, log: MetricsLog, stop: Event) -> End:
        """Take the steps that are left, with evaluations and saves in between."""
        state, settings = self.state, self.config.training
        with self.progress.task(tr("Training"), self.total_steps, tr("{n} steps", n="{n}")) as bar:
            bar.advance(state.step)
            stream: Iterator[Batch] | None = None
            exhausted = self.validation.is_exhausted(state)
            while state.step < self.total_steps and not exhausted:
                mined = self._mine()
                if mined or stream is None:
                    pinned = self.model.device.type == "cuda"
                    stream = self.batches.iterate(state.batches, pinned=pinned)
                self.take_step(stream, log, bar)
                evaluate = self._is_due(settings.evaluate_every or self.steps_per_epoch)
                if evaluate:
                    self._evaluate(log)
                    # Only the main process has measured recall.
                    exhausted = self.processes.broadcast_object(self.validation.is_exhausted(state))
                if exhausted and state.window:  # steps since the last line of the log
                    self._log(log, learning_rate(state.step, self.schedule_steps, settings))
                # Ctrl-C may reach one process only, but all must leave the loop together.
                stopped = self.processes.all_reduce_sum(float(stop.is_set())) > 0
                if evaluate or stopped or self._is_due(settings.save_every):
                    self._save_last()
                if stopped and state.step < self.total_steps and not exhausted:
                    return "interrupted"
        return "complete" if state.step >= self.total_steps else "stopped early"

    def _is_due(self, every: int | None) -> bool:
        """Say whether an action is due that happens after every ``every`` steps and at the end."""
        step = self.state.step
        return step == self.total_steps or (every is not None and step % every == 0)

    def take_step(self, stream: Iterator[Batch], log: MetricsLog, bar: Task) -> None:
        """Take one optimizer step and log it.

        Args:
            stream: Training batches; a step takes ``training.accumulate`` of them.
            log: Receives a line every ``training.log_every`` steps.
            bar: Advances by one.
        """
        start = time.perf_counter()
        settings, state = self.config.training, self.state
        rate = learning_rate(state.step, self.schedule_steps, settings)
        set_learning_rate(self.optimizer, rate)
        figures: dict[str, Figure] = {}
        waited = 0.0
        for _ in range(settings.accumulate):
            began = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - began
            state.pairs += len(batch.text) * self.processes.world_size
            output = accumulate_gradients(
                self.task,
                batch.to(self.model.device),
                epoch=state.step / self.steps_per_epoch,
                number=state.batches,
                chunk=settings.micro_batch_size,
                scale=1 / settings.accumulate,
                bf16=self._bf16,
            )
            state.batches += 1
            for name, value in _figures(output).items():
                figures[name] = figures.get(name, 0.0) + value / settings.accumulate
        # Clip after the sum, so that the norm is that of the whole batch on every process.
        self.processes.all_reduce_gradients(self.model)
        # Without clipping the norm is measured all the same: a gradient that is not finite spoils
        # every weight, and its norm shows that before they are saved.
        figures["gradient_norm"] = self._clip_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.clamp_temperature()
        if self.task.momentum is not None:
            self.task.momentum.update(self.model)
        if self.average is not None:
            self.average.update()
        state.step += 1
        state.waited += waited
        seconds = time.perf_counter() - start
        state.seconds += seconds
        self.figures.keep(state.step, figures | {"data_seconds": waited, "step_seconds": seconds})
        shown = self._log(log, rate) if self._is_due(settings.log_every) else {}
        bar.advance(1, **shown)

    def _clip_gradients(self) -> Tensor:
        """Clip the gradients if ``training.clip`` is set; returns their norm before."""
        parameters, clip = list(self.model.parameters()), self.config.training.clip
        if clip is None:  # only measured: clip_grad_norm_ would write every gradient again
            return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return nn.utils.clip_grad_norm_(parameters, clip)

    def _mine(self) -> bool:
        """Mine the batches of a new epoch; returns whether they changed."""
        try:
            with uncompiled():
                return self.miner.mine(self.state.step // self.steps_per_epoch, self.state)
        except NotFiniteError as error:
            raise diverged(self.state.step + 1, error.message) from error

    def _log(self, log: MetricsLog, rate: float) -> dict[str, str]:
        """Write the means since the last line; returns what the progress bar shows of them."""
        self.figures.read()
        state = self.state
        means = state.take_means()
        images = self.config.training.batch_size * self.config.training.accumulate
        seconds = max(means.pop("step_seconds", 0.0), 1e-9)
        speed = images * self.config.data.titles_per_image / seconds
        waited = means.pop("data_seconds", 0.0) / seconds
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
                "pairs_per_second": round(speed, 2),
                "data_wait_share": round(waited, 4),
                "memory_mb": peak_memory_mb(self.model.device),
            },
        )
        rates = {
            tr("pairs/s"): f"{speed:,.{0 if speed >= 10 else 1}f}",
            tr("waiting for data"): f"{waited:.0%}",
        }
        return rates | {
            LOSS_NAMES.get(name, name.removesuffix("_loss")): tr(
                "{value} (random guess {guess})", value=f"{means[name]:.3f}", guess=f"{value:.2f}"
            )
            for name, value in guess.items()
            if name in means
        }

    def _evaluate(self, log: MetricsLog) -> float | None:
        """Let the main process evaluate, the average if there is one, while the others wait."""
        self.figures.read()
        applied = nullcontext() if self.average is None else self.average.applied()
        try:
            with applied, uncompiled():
                return self.validation.measure(self.state, log) if self.processes.is_main else None
        except NotFiniteError as error:  # before last/ and best/ are written
            raise diverged(self.state.step + 1, error.message) from error
        finally:
            self.processes.barrier()

    def _save_last(self) -> None:
        """Write ``last/``: the model and all that a resumed run needs."""
        self.figures.read()  # raises if a step diverged
        self._last.save(self.state)


def _figures(output: StepOutput) -> dict[str, Figure]:
    """Return the losses, their weights and weighted sum, and the report of a batch, unread."""
    losses = {name: loss.detach().double() for name, loss in output.losses.items()}
    weights = {f"{name}_weight": output.weights[name] for name in losses}
    return {"loss": output.total.detach().double(), **losses, **weights, **output.report}


def _use_bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"
