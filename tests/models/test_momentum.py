"""The momentum encoder is a moving average; its queues keep the last items."""

from __future__ import annotations

import torch

from bagformer_cli.config import load_config
from bagformer_cli.interaction import MultiVectors
from bagformer_cli.models.momentum import FeatureQueue, MomentumEncoder
from bagformer_cli.training.initial_model import new_model
from tests.support.small_run import TINY


def items(*lengths: int, first: float = 0.0) -> MultiVectors:
    """Build items of these lengths; every vector of item n is (n, n)."""
    return MultiVectors.from_list(
        [torch.full((length, 2), first + n) for n, length in enumerate(lengths)]
    )


def test_a_full_queue_drops_its_oldest_items() -> None:
    queue = FeatureQueue(7, 3, 2)
    assert len(queue) == 0
    kept: list[tuple[int, float]] = []
    for step in range(6):
        lengths = [1 + (step + n) % 3 for n in range(3)]
        queue.add(items(*lengths, first=3.0 * step), torch.arange(3) + 3 * step)
        kept = [*kept, *((length, 3.0 * step + n) for n, length in enumerate(lengths))][-7:]
        found = queue.items()
        assert len(queue) == len(found) == min(7, 3 * (step + 1))
        numbers = sorted((len(vectors), float(vectors[0, 0])) for vectors in found)
        assert numbers == sorted(kept)
        groups = queue.groups[: len(queue)].tolist()
        assert groups == [int(vectors[0, 0]) for vectors in found]


def test_a_batch_larger_than_the_queue_keeps_its_last_items() -> None:
    queue = FeatureQueue(4, 1, 2)
    queue.add(items(*[1] * 11), torch.arange(11))
    assert sorted(queue.groups.tolist()) == [7, 8, 9, 10]
    assert sorted(queue.items().values[:, 0].tolist()) == [7.0, 8.0, 9.0, 10.0]


def test_a_queue_continues_from_its_saved_state() -> None:
    one, two = FeatureQueue(5, 2, 2), FeatureQueue(5, 2, 2)
    one.add(items(1, 2, 1), torch.arange(3))
    two.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for queue in (one, two):
        queue.add(items(2, 2, 1, 1, first=3.0), torch.arange(3, 7))
    assert torch.equal(one.items().values, two.items().values)
    assert torch.equal(one.groups, two.groups)
    assert two.added == 7


def test_the_momentum_encoder_is_a_moving_average() -> None:
    model = new_model(load_config("demo", TINY))
    momentum = MomentumEncoder(model, 0.9)
    start = [p.detach().clone() for p in model.parameters()]
    expected = [p.clone() for p in start]
    for step in (1, 2):
        with torch.no_grad():
            for parameter, first in zip(model.parameters(), start, strict=True):
                parameter.copy_(first + step)
        momentum.update(model)
        expected = [
            0.9 * e + 0.1 * p.detach() for e, p in zip(expected, model.parameters(), strict=True)
        ]
    for ours, theirs in zip(momentum.model.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad
    assert momentum.model.titles is model.titles
