"""Training samples a second, beside the plain way: images decoded anew, padded MaxSim loops."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bagformer_cli.bench import plain_maxsim
from bagformer_cli.config import RunConfig
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.epochs import TrainBatches
from bagformer_cli.data.store.split import Split
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.dual import Encoded
from bagformer_cli.models.scorers import ScoreMatrix, Scorer, score_matrix
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.training.optimizer import build_optimizer
from bagformer_cli.training.run import new_model
from bagformer_cli.training.task import RetrievalTask

_LONGEST = 25


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes:
        name: Which.
        samples_per_second: Images with their titles, median over the steps.
        speedup: Times as many as the plain way.
    """

    name: str
    samples_per_second: float
    speedup: float


def plain_scores(
    model: RetrievalModel, scorer: Scorer, texts: Encoded, images: Encoded
) -> ScoreMatrix:
    """Score as BagFormer's code does: padded, one title and one image after the other."""
    if scorer != "late":
        return score_matrix(model, scorer, texts, images)
    padded = plain_maxsim.pad(texts.vectors, _LONGEST)
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
    """Train a few steps both ways, taking turns, on the same batches.

    Args:
        config: What to train; ``interaction`` should not be ``cls``.
        split: A preprocessed training split.
        steps: Timed steps of each way.
        progress: Where to report.
    """
    ways = {
        "plain": _steps(config, split, plain=True),
        "xmr": _steps(config, split, plain=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with progress.task(tr("Training steps"), 2 * (steps + 1)) as task:
        for number in range(steps + 1):
            for name, stream in ways.items():
                start = time.perf_counter()
                next(stream)
                if number:  # the first is for warming up
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
    """A training step for each ``next``."""
    model = new_model(config)
    task = RetrievalTask(model, config)
    if plain:
        task.context.score = plain_scores
    optimizer = build_optimizer(model, config.training)
    data = config.data.model_copy(update={"cache_mb": 0, "workers": 0}) if plain else config.data
    batches = TrainBatches(
        split,
        data,
        image_size=config.image.size,
        batch_size=config.training.batch_size,
        pad_id=model.titles.tokenizer.pad_id,
        seed=config.seed,
    )
    batch: Batch
    for batch in batches.iterate():
        task(batch.to(model.device)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield
