"""Each pretraining objective alone lowers its loss far below that of a random guess."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bagformer_cli.data.store.store import Store
from bagformer_cli.training.gradient_cache import accumulate_gradients
from tests.support.small_pretraining import coloured_things, made, with_regions


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return coloured_things(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Images that have nothing in common.

    In a set with shared properties ITM would be content to separate pairs that share none: pairs
    with half a title in common are rare.
    """
    meanings = np.random.default_rng(0).normal(size=(64, 32))
    return with_regions(tmp_path_factory.mktemp("named"), meanings)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Images with two of sixteen properties each."""
    tables = np.random.default_rng(0).normal(size=(2, 8, 16))
    pairs = [np.concatenate([tables[0, n // 8], tables[1, n % 8]]) for n in range(64)]
    return with_regions(tmp_path_factory.mktemp("described"), np.stack(pairs))


REGIONS = [
    "model.cross={fusion: joint}",
    "image.regions={width: 32, maximum: 4}",
    "text.layers=2",
]

ALONE = {  # settings and learning rate
    "itc": (
        [
            "model.interaction=cls",
            "objectives={itm: 0.0, momentum: {queue: 0, alpha: 0.0}}",
            "text.layers=2",
        ],
        6e-3,
    ),
    "late": (
        [
            "objectives={itc: 0.0, itm: 0.0, late_scale: mean, momentum: {queue: 0, alpha: 0.0}}",
            "text.layers=2",
        ],
        6e-3,
    ),
    "mlm": (["objectives={itc: 0.0, late_interaction: 0.0, itm: 0.0, mlm: 1.0}"], 3e-3),
    "mlm joint": (
        [
            "model.cross={fusion: joint}",
            "objectives={itc: 0.0, late_interaction: 0.0, itm: 0.0, mlm: 1.0}",
        ],
        3e-3,
    ),
    "itm": (["objectives={itc: 0.0, late_interaction: 0.0, itm: 1.0}"], 3e-3),
    "itm joint": (
        [
            *REGIONS,
            "model.cross={fusion: joint, logits: 1}",
            "objectives={itc: 0.0, late_interaction: 0.0, itm: 1.0, itm_negatives: shuffled}",
        ],
        3e-3,
    ),
    "mfm": ([*REGIONS, "objectives={itc: 0.0, late_interaction: 0.0, itm: 0.0, mfm: 1.0}"], 3e-3),
    "mfm normalised": (
        [
            *REGIONS,
            "objectives={itc: 0.0, late_interaction: 0.0, itm: 0.0, mfm: 1.0, "
            "mfm_temperature: 0.1}",
        ],
        3e-3,
    ),
}

STEPS = {"itm joint": 1500, "mfm normalised": 1000}  # of the others: 600

SETS = {"itm joint": "named", "mfm": "described", "mfm normalised": "described"}
"""The data of some objectives; the others learn from ``store``.

If nothing but MFM trains an image encoder from scratch, it makes the patches of an image more and
more alike, and then none can be found among the others. Regions cannot mix, like the video frames
of the solution that MFM comes from.
"""


def learn_alone(store: Store, name: str, steps: int) -> tuple[list[float], list[float]]:
    """Each step's loss relative to the random-guess loss, and matching accuracy."""
    overrides, rate = ALONE[name]
    small = ["objectives.temperature.minimum=0.01", "objectives.temperature.initial=0.05"]
    task, batches = made(store, *overrides, *small)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=rate, weight_decay=0.0)
    task.train()
    torch.manual_seed(0)
    kept, accuracies = [], []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        output = accumulate_gradients(
            task, batches.batch(step), epoch=step / batches.per_epoch, number=step
        )
        optimizer.step()
        optimizer.zero_grad()
        task.model.clamp_temperature()
        guess = next(iter(task.random_guess_losses(16).values()), math.log(16 * 4))
        kept.append(float(output.total.detach()) / guess)
        accuracies.append(output.report.get("itm_accuracy", math.nan))
    return kept, accuracies


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALONE))
def test_each_objective_learns_alone(name: str, request: pytest.FixtureRequest) -> None:
    data: Store = request.getfixturevalue(SETS.get(name, "store"))
    found, accuracies = learn_alone(data, name, STEPS.get(name, 600))
    if name.startswith("itm"):
        assert np.mean(accuracies[-16:]) > 0.95
    else:
        assert np.mean(found[-8:]) < 0.1
