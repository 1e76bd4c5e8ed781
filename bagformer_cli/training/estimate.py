"""Estimate a training before it is started: parameters, memory, time and disk.

Sizes follow from the configuration. The time of a step is measured: the first steps of a training
that is thrown away (:func:`probe`), on the dataset if it is there, else on drawn products.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bagformer_cli.config import RunConfig
from bagformer_cli.data.store.store import Store
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.scorers import Scorer, vectors_per_item
from bagformer_cli.models.trained import trained_scorers
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.arithmetic import training_arithmetic
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.loop import Trainer
from bagformer_cli.training.memory_estimate import peak_memory_mb, training_bytes
from bagformer_cli.training.metrics_log import NoLog
from bagformer_cli.training.run import make_trainer
from bagformer_cli.training.teacher import check_teacher

WARM_STEPS = 2
"""Steps before the measured ones: the first ones allocate memory and fill caches."""

MOST_SECONDS = 60.0
"""The probe ends after this time, with at least one measured step."""

GENERATED_EPOCH = 100_000
"""Pairs of an epoch where the dataset, and so its length, is missing."""

_FLOAT = 4  # bytes of a float32
PRODUCTS = 1_000_000  # of the index whose size is estimated


@dataclass(frozen=True)
class Probe:
    """The measured steps of a training.

    Attributes:
        data: The images: those of the ``dataset``, or ``generated`` ones.
        steps: Optimizer steps that were measured.
        step_seconds: Mean time of a step.
        pairs_per_second: Titles with their images trained on in a second.
        data_wait_share: Share of the time in which a step waited for its batch, in [0, 1].
        memory_mb: Most memory used so far: of the GPU, or of the process.
        epoch_pairs: Titles with their images in an epoch; of ``generated`` data, 100,000.
        epoch_seconds: Time of an epoch of that many pairs.
        training_seconds: Time of all steps; None: their number depends on the dataset.
    """

    data: Literal["dataset", "generated"]
    steps: int
    step_seconds: float
    pairs_per_second: float
    data_wait_share: float
    memory_mb: int
    epoch_pairs: int
    epoch_seconds: float
    training_seconds: float | None


def for_estimate(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Return a configuration of the same sizes that needs no weights, no hub and no other files.

    Args:
        config: The run's configuration.

    Returns:
        The configuration, and remarks on its differences.

    Raises:
        InputError: It is a chain.
        ConfigError: A teacher is needed and none is named.
    """
    if config.chain:
        raise InputError(
            tr("A chain consists of several runs, with a configuration for each."),
            where="chain",
            found=" > ".join(config.chain),
            hint=tr("Estimate each of its modes: xmr estimate --mode {mode}", mode=config.chain[0]),
        )
    check_teacher(config)
    config = config.model_copy(deep=True)
    remarks = []
    text, image = config.text, config.image
    names = [text.pretrained, text.chinese_clip, image.chinese_clip, config.training.checkpoint]
    left_out = [str(name) for name in names if name is not None]
    if left_out:
        remarks.append(
            tr(
                "Weights are not read: {names}. Sizes are those of the configuration.",
                names=", ".join(left_out),
            )
        )
    text.pretrained = text.chinese_clip = image.chinese_clip = None
    image.pretrained = False
    config.training.checkpoint = None
    if text.tokenizer != "builtin" and not Path(text.tokenizer).exists():
        remarks.append(
            tr(
                "The vocabulary is the built-in one; {name} may have another size.",
                name=text.tokenizer,
            )
        )
        text.tokenizer = "builtin"
    if config.data.hard_negatives is not None:
        config.data.hard_negatives = None
        remarks.append(tr("Batches are drawn without data.hard_negatives."))
    config.training.early_stopping = None
    config.training.log_every = 2**30  # figures are read once, at the end of the probe
    return config, remarks


def parameters_by_part(model: RetrievalModel) -> dict[str, int]:
    """Count the numbers of a model by its parts; a shared part counts once."""
    dual = model.dual
    parts: dict[str, nn.Module | None] = {
        "text_encoder": dual.text_encoder,
        "image_encoder": dual.vision_encoder,
        "projections": dual,
        "cross_encoder": model.cross,
    }
    seen: set[int] = set()
    counts = {}
    for name, part in parts.items():
        own = [] if part is None else [p for p in part.parameters() if id(p) not in seen]
        seen |= {id(p) for p in own}
        counts[name] = sum(p.numel() for p in own)
    counts["other"] = sum(p.numel() for p in model.parameters() if id(p) not in seen)
    return {name: count for name, count in counts.items() if count}


def memory_of(trainer: Trainer) -> dict[str, int]:
    """Estimate the bytes of a training on a GPU in bfloat16, by consumer; see ``memory_estimate``.

    Activations are counted for transformer towers only.
    """
    config = trainer.config
    images = config.training.micro_batch_size or config.training.batch_size
    return {**training_bytes(trainer.model, config, images), **trainer.task.needed_bytes()}


def run_bytes(model: RetrievalModel, config: RunConfig) -> int:
    """Estimate the size of a run folder: ``best/`` and ``last/`` with the optimizer's moments."""
    numbers = [p.numel() for p in model.parameters()]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    copies = 2 + (config.objectives.momentum is not None)
    averages = 0 if config.training.ema is None else trained
    return _FLOAT * (copies * sum(numbers) + 2 * trained + averages)


def index_bytes(model: RetrievalModel) -> tuple[int, int]:
    """Estimate an index of a million products: int8 vectors, in the table and in the cache.

    Returns:
        Vectors of an image, and bytes of the index without thumbnails.
    """
    config = model.config
    with torch.no_grad():
        scorer: Scorer = "late" if "late" in trained_scorers(config) else "cls"
        vectors = vectors_per_item(model, scorer)[1]
    dim = config.model.embed_dim
    stored = vectors * dim + _FLOAT  # int8, and one scale for each image
    return vectors, PRODUCTS * (2 * stored + 2 * dim)  # 2 · dim: the single vector in float16


def make_probe_trainer(config: RunConfig, model: RetrievalModel, store: Store) -> Trainer:
    """Make the trainer of a probe; it writes nothing.

    Args:
        config: From :func:`for_estimate`.
        model: The model of it.
        store: The preprocessed dataset.
    """
    return make_trainer(model, config, store, Path("probe"), False, SINGLE_PROCESS, SILENT)


def probe(
    trainer: Trainer,
    data: Literal["dataset", "generated"],
    steps: int,
    progress: Progress = SILENT,
) -> Probe:
    """Measure the first steps of a training.

    Args:
        trainer: From :func:`make_probe_trainer`.
        data: Where its images are from.
        steps: Steps to measure; fewer if they take longer than :data:`MOST_SECONDS`.
        progress: Receives the steps.
    """
    state, batches = trainer.state, trainer.batches
    settings = trainer.config.training
    arithmetic = training_arithmetic(deterministic=settings.deterministic)
    trainer.task.train()
    stream = batches.iterate(0, pinned=trainer.model.device.type == "cuda")
    task = progress.task(tr("Measuring steps"), WARM_STEPS + steps, tr("{n} steps", n="{n}"))
    with arithmetic, task as bar:
        begun = start = time.perf_counter()
        before = (state.pairs, state.waited)
        done = 0
        for number in range(WARM_STEPS + steps):
            trainer.take_step(stream, NoLog(), bar)
            if number < WARM_STEPS:
                trainer.figures.read()  # waits for the GPU
                start, before = time.perf_counter(), (state.pairs, state.waited)
            else:
                done += 1
                if time.perf_counter() - begun > MOST_SECONDS:
                    break
        trainer.figures.read()
        seconds = time.perf_counter() - start
    speed = (state.pairs - before[0]) / seconds
    own = batches.per_epoch * settings.batch_size * trainer.config.data.titles_per_image
    pairs = own if data == "dataset" else GENERATED_EPOCH
    known = data == "dataset" or settings.max_steps is not None
    return Probe(
        data,
        done,
        seconds / done,
        speed,
        min(1.0, (state.waited - before[1]) / seconds),
        peak_memory_mb(trainer.model.device),
        pairs,
        pairs / speed,
        trainer.total_steps * seconds / done if known else None,
    )
