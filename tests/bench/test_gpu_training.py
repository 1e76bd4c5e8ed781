"""The benchmark of full-size training steps, with a very small model on the CPU."""

from __future__ import annotations

import pytest
import torch

from bagformer_cli.bench import gpu_training
from bagformer_cli.bench.gpu_clock import Clock
from bagformer_cli.bench.gpu_training import Step, measure_steps, random_batch
from bagformer_cli.training.compilation import BACKEND
from tests.support.small_model import small_model


def test_every_kind_of_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(gpu_training, "compile_layers", compiled.append)
    steps = list(measure_steps(Clock(torch.device("cpu"), rounds=1, warm=0), tiny=True))
    assert [step.pairs for step in steps] == [4, 4, 4, 4, 6]
    assert len(compiled) == 2
    assert all(step.seconds and not step.failure for step in steps)
    with_itm, without, *_, large = steps
    assert with_itm.flops > without.flops > 0  # type: ignore[operator]
    assert large.flops is None
    assert large.pairs_per_second == pytest.approx(6 / (large.seconds or 0))
    assert BACKEND == "inductor"


def test_a_step_that_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(gpu_training, "new_model", no_memory)
    step = next(measure_steps(Clock(torch.device("cpu"), rounds=1, warm=0), tiny=True))
    failure = "OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB."
    assert step == Step(step.name, 4, None, target=0.4, failure=failure)
    assert step.pairs_per_second is None


def test_a_step_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(model: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(gpu_training, "compile_layers", no_compiler)
    steps = list(measure_steps(Clock(torch.device("cpu"), rounds=1, warm=0), tiny=True))
    failures = [step.failure for step in steps]
    assert failures == ["", "", *["RuntimeError: no C compiler"] * 2, ""]


def test_a_random_batch_has_titles_of_different_lengths() -> None:
    batch = random_batch(small_model(), 5)
    assert batch.raw.shape[0] == len(batch) == len(batch.text) == 5
    assert len(set(batch.text.attention_mask.sum(1).tolist())) > 1
    assert torch.equal(batch.positives, torch.eye(5, dtype=torch.bool))
