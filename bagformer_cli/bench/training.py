"""Measure training samples per second, compared with a plain implementation.

The plain one decodes every image again in each epoch, pads titles, and computes late interaction
one item at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bagformer_cli.bench import plain_maxsim
from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.split import Split
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.scorers import ScoreMatrix, Scorer, score_matrix
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.optimizer import build_optimizer
from bagformer_cli.training.task import RetrievalTask

MAX_TOKENS = 25  # titles are padded to this length


@dataclass(frozen=True)
class Row:
    """One implementation.

    Attributes:
        name: ``plain`` or ``xmr``.
        samples_per_second: Images (with their titles) per second, median over the steps.
        speedup: ``samples_per_second`` divided by that of ``plain``.
    """

    name: str
    samples_per_second: float
    speedup: float


def plain_scores(
    model: RetrievalModel, scorer: Scorer, texts: Encoded, images: Encoded
) -> ScoreMatrix:
    """Score a batch; late interaction as in BagFormer's code: padded, by loops over items."""
    if scorer != "late":
        return score_matrix(model, scorer, texts, images)
    padded = plain_maxsim.pad(texts.vectors, MAX_TOKENS)
    patches = images.vectors.values.view(len(images.vectors), -1, images.vectors.dim)
    t2i, i2t = (
        plain_maxsim.original_t2i(padded, patches),
        plain_maxsim.original_i2t(padded, patches),
    )
    if model.config.objectives.late_scale == "mean":
        t2i = t2i / texts.vectors.lengths.to(t2i.device)[:, None]
        i2t = i2t / images.vectors.lengths.to(i2t.device)[:, None]
    return ScoreMatrix(t2i, i2t)


def run(
    config: RunConfig, split: Split, *, steps: int = 6, progress: Progress = SILENT
) -> list[Row]:
    """Train a few steps with both implementations, in turns, on the same batches.

    Args:
        config: The configuration; its interaction should not be ``cls``, which has no MaxSim.
        split: A preprocessed training split.
        steps: Timed steps of each implementation, after one step to warm up.
        progress: Receives the progress.
    """
    implementations = {
        "plain": _steps(config, split, plain=True),
        "xmr": _steps(config, split, plain=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in implementations}
    with progress.task(tr("Training steps"), 2 * (steps + 1)) as task:
        for number in range(steps + 1):
            for name, stream in implementations.items():
                start = time.perf_counter()
                next(stream)
                if number:  # the first step warms up
                    seconds[name].append(time.perf_counter() - start)
                task.advance(1)
    size = config.training.batch_size
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [Row(name, size / median, medians["plain"] / median) for name, median in medians.items()]


def _steps(
    config: RunConfig,
    split: Split,
    *,
    plain: bool,
) -> Iterator[None]:
    """Train one step at each ``next``."""
    model = new_model(config)
    task = RetrievalTask(model, config)
    if plain:
        task.context.score = plain_scores
    optimizer = build_optimizer(model, config.training)
    data = config.data.model_copy(update={"cache_mb": 0, "workers": 0}) if plain else config.data
    batches = TrainBatches(
        split,
        data,
        Sampling(config.training.batch_size, config.seed),
        image_size=model.config.image.size,
        pad_id=model.titles.tokenizer.pad_id,
    )
    batch: Batch
    for batch in batches.iterate():
        task(batch.to(model.device)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield
