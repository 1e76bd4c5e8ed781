"""No training step makes the host wait for a GPU: the next step is queued while one is computed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bagformer_cli.config import load_config
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import TrainingError
from bagformer_cli.progress import SILENT
from bagformer_cli.training import loop
from bagformer_cli.training.distributed import SINGLE_PROCESS
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.metrics_log import read_metrics
from bagformer_cli.training.run import make_trainer, start_run
from bagformer_cli.training.step_figures import StepFigures
from tests.support.datasets import write_split
from tests.support.second_device import SecondDevice, second_device
from tests.support.small_run import TINY
from tests.support.waits import Waits

WAYS = {
    "bags": ["training.accumulate=2", "training.clip=1", "training.ema=0.5"],
    "early bags": ["model.bag_fusion=early"],
    "tokens": ["model.interaction=tokenwise", "objectives.late_scale=mean"],
    "single vectors": ["model.interaction=cls"],
    "code tokens": ["model.codes=3"],
    "pooled patches": ["model.keep=4"],
    "convolutions": [
        "image.backbone=resnet10t",
        "image.options={channels: [8, 8, 8, 8], output_stride: 8, stem_width: 8}",
    ],
    "gradient caching": ["training.micro_batch_size=3", "objectives={mlm: 1.0}"],
    "momentum": ["objectives={mlm: 1.0, momentum: {queue: 13}}"],
    "masked": ["model.cross={fusion: joint}", "objectives={mlm: 1.0, mfm: 1.0}"],
    "shuffled": ["objectives.itm_negatives=shuffled"],
    "power hinge": ["objectives={itm: 0.0, loss: power_hinge}"],
    "triplet": ["objectives={itm: 0.0, loss: triplet}"],
    "captioner": ["model.cross={kind: captioner}", "objectives={itm: 0.0, caption: 1.0}"],
    "bf16": ["training.precision=bf16", "data.titles_per_image=2"],
}
"""Ways to train. Regions and a slow teacher are missing: they read how many there are."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Forty pairs; every two share a title, so that some rows have several positives."""
    path = tmp_path_factory.mktemp("pairs")
    queries = [(n, f"{'红绿蓝黄'[n // 2 % 4]}色连衣裙{'长' * (n % 5)}", (n,)) for n in range(40)]
    write_split(path, "train", queries=queries)
    return ensure_store(path, new_model(load_config("demo", TINY)).titles, workers=1)


def moved(batch: Any) -> list[Tensor]:
    """The tensors of a batch that ``Batch.to`` moves."""
    found = []
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor) and field.name not in batch.ON_HOST:
            found.append(value)
        elif hasattr(value, "ON_HOST"):
            found += moved(value)
    return found


def waits_of(store: Store, run: Path, monkeypatch: pytest.MonkeyPatch, *items: str) -> list[str]:
    """Train three steps; return the places at which a step waits before the log is due."""
    waits = Waits("take_step", but=["read"])
    to = Batch.to

    def to_gpu(batch: Batch, device: Any) -> Batch:
        batch = to(batch, device)
        waits.mark(*moved(batch))
        return batch

    monkeypatch.setattr(Batch, "to", to_gpu)
    config = load_config("demo", [*TINY, *items, "training.max_steps=3", "training.log_every=9"])
    model = new_model(config)
    with waits:
        start_run(config, store, run, model)
    return waits.places


@pytest.mark.parametrize("way", WAYS)
def test_no_step_waits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    assert waits_of(store, tmp_path / "run", monkeypatch, *WAYS[way]) == []


def test_a_loss_that_is_read_in_a_step_is_found(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = loop._figures

    def reading(output: Any) -> Any:
        return {name: float(value) for name, value in figures(output).items()}

    monkeypatch.setattr(loop, "_figures", reading)
    found = waits_of(store, tmp_path / "run", monkeypatch)
    assert found
    assert all("loop.py" in place and "_local_scalar_dense" in place for place in found)


def test_figures_are_read_once_for_each_line_of_the_log(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, waiting = StepFigures.read, []

    def counted(figures: StepFigures) -> None:
        waiting.append(len(figures._steps))
        read(figures)

    monkeypatch.setattr(StepFigures, "read", counted)
    config = load_config("demo", [*TINY, "training.max_steps=7", "training.log_every=3"])
    start_run(config, store, tmp_path / "run", new_model(config))
    assert [steps for steps in waiting if steps] == [3, 3, 1]
    lines = read_metrics(tmp_path / "run", "train")
    assert [line["step"] for line in lines] == [3, 6, 7]
    assert all(line["pairs_per_second"] == line["samples_per_second"] > 0 for line in lines)


def test_a_step_that_diverged_is_named_before_anything_is_saved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is due long after; ``last/`` is that of step 2."""
    from bagformer_cli.models.checkpoint import load_model
    from bagformer_cli.training.objectives import contrastive
    from bagformer_cli.training.resume import saved_step

    calls, plain = iter(range(100)), contrastive.contrastive_loss

    def broken(*arguments: Any) -> Tensor:
        return plain(*arguments) * (torch.nan if next(calls) >= 4 else 1.0)  # two losses a step

    monkeypatch.setattr(contrastive, "contrastive_loss", broken)
    config = load_config(
        "demo",
        [*TINY, "training.max_steps=9", "training.log_every=100", "training.save_every=2"],
    )
    with pytest.raises(TrainingError) as caught:
        start_run(config, store, tmp_path / "run", new_model(config))
    assert caught.value.where == "step 3"
    assert "itc_loss = nan" in str(caught.value.found)
    assert saved_step(tmp_path / "run/last") == 2
    assert load_model(tmp_path / "run/last") is not None


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_step_mixes_devices_or_copies_with_waiting(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The kernels of a GPU take the place of the CPU's here, unlike in the tests above."""
    pytest.importorskip("triton")
    config = load_config("demo", [*TINY, *WAYS[way], "training.precision=fp32"])
    model = new_model(config).to(SecondDevice.device)
    trainer = make_trainer(model, config, store, tmp_path / "run", False, SINGLE_PROCESS, SILENT)
    batch, chunk = trainer.batches.batch(0), config.training.micro_batch_size
    task = trainer.task.train()
    with second_device(monkeypatch) as found:
        accumulate_gradients(task, batch.to(found.device), chunk=chunk)
        found.places.clear()  # constants are copied once
        accumulate_gradients(task, batch.to(found.device), number=1, chunk=chunk)
    assert found.places == []
    assert ("score_tiles" in found.kernels) == (config.model.interaction != "cls")


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_no_step_waits_on_a_gpu(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """CUDA itself raises where a step waits; the first steps compile kernels and may wait."""
    assert torch.cuda.is_available()
    step, read = loop.Trainer.take_step, StepFigures.read

    def strict(trainer: Any, *arguments: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if trainer.state.step >= 2 else "default")
        try:
            step(trainer, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def lenient(figures: StepFigures) -> None:
        torch.cuda.set_sync_debug_mode("default")
        read(figures)

    monkeypatch.setattr(loop.Trainer, "take_step", strict)
    monkeypatch.setattr(StepFigures, "read", lenient)
    items = [*TINY, *WAYS[way], "training.max_steps=6", "training.log_every=9"]
    config = load_config("demo", items)
    start_run(config, store, tmp_path / "run", new_model(config))
