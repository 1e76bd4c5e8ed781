"""A batch encoded in chunks gives the gradients of the batch encoded at once."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.batches import Batch
from bagformer_cli.data.masking import TokenMasking
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import ConfigError
from bagformer_cli.interaction import MultiVectors, maxsim
from bagformer_cli.training.encoded_batch import Context
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.objectives import build_objectives
from bagformer_cli.training.task import RetrievalTask
from tests.support.datasets import write_split
from tests.support.small_run import TINY

ALL = (
    "{itc: 1.0, late_interaction: 1.0, itm: 0.0, mlm: 1.0, mfm: 1.0, late_scale: mean, "
    "momentum: {queue: 21, alpha: 0.4}}"
)
KINDS = {
    "cls": ["model.interaction=cls", "objectives.itm=0"],
    "late": ["model.interaction=bagwise", "objectives.itm=0", "objectives.itc=0"],
    "hinge": ["objectives={loss: power_hinge, itm: 0.0}"],
    "everything": ["model.cross={fusion: joint}", f"objectives={ALL}"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Pairs, some of which share a title."""
    queries = [(n, f"{'红绿蓝黄'[n % 4]}色连衣裙第{n // 2}款", (n,)) for n in range(1100)]
    folder = write_split(tmp_path_factory.mktemp("pairs"), queries=queries)
    return ensure_store(folder.path, new_model(settings()).titles, workers=1)


def settings(*overrides: str) -> RunConfig:
    return load_config("demo", [*TINY, "text.dropout=0.1", *overrides])


def batch_of(store: Store, config: RunConfig, size: int) -> Batch:
    titles = new_model(config).titles.tokenizer
    masks = config.objectives.masking
    return TrainBatches(
        store.split("train"),
        config.data,
        Sampling(size, seed=0),
        image_size=config.image.size,
        pad_id=titles.pad_id,
        masking=TokenMasking.of(titles, masks.tokens, whole_bags=masks.whole_bags),
    ).batch(0)


def gradients(
    store: Store, config: RunConfig, batch: Batch, chunk: int | None, steps: int = 1
) -> tuple[dict[str, float], list[Tensor]]:
    """Return losses and gradients of the last of ``steps`` equal batches."""
    model = new_model(config)
    links = TrainBatches(
        store.split("train"), config.data, Sampling(2, seed=0), image_size=16, pad_id=0
    ).positives
    task = RetrievalTask(model, config, positives=links).train()
    for _ in range(steps):
        model.zero_grad()
        torch.manual_seed(0)
        output = accumulate_gradients(task, batch, epoch=0.5, chunk=chunk)
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return {name: float(loss.detach()) for name, loss in output.losses.items()}, found


def relative(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Return the distance of all gradients together, relative to their norm."""
    difference = sum(float((a - b).square().sum()) for a, b in zip(ours, theirs, strict=True))
    length = sum(float(b.square().sum()) for b in theirs)
    return (difference / length) ** 0.5


@pytest.mark.parametrize("kind", list(KINDS))
def test_chunks_give_the_gradients_of_the_whole_batch(store: Store, kind: str) -> None:
    config = settings(*KINDS[kind], "text.dropout=0.0")
    batch = batch_of(store, config, 20)
    losses, whole = gradients(store, config, batch, None, steps=2)
    same, parts = gradients(store, config, batch, 6, steps=2)
    assert same == pytest.approx(losses, rel=1e-5)
    assert relative(parts, whole) < 1e-5


def test_the_second_encoding_uses_the_rng_state_of_the_first(store: Store) -> None:
    """With dropout, the vectors that are scored and those that carry gradients are the same."""
    config = settings(*KINDS["late"], "text.dropout=0.3")
    batch = batch_of(store, config, 12)
    model = new_model(config)
    task = RetrievalTask(model, config).train()
    seen: list[Tensor] = []
    model.dual.text_proj.register_forward_hook(lambda *a: seen.append(a[2].detach().clone()))
    accumulate_gradients(task, batch, chunk=4)
    half = len(seen) // 2
    assert half >= 3
    for first, second in zip(seen[:half], seen[half:], strict=True):
        assert torch.equal(first, second)


def test_running_statistics_are_updated_once_per_chunk(store: Store) -> None:
    options = "image.options={channels: [8, 8, 8, 8], output_stride: 8, stem_width: 8}"
    config = settings(*KINDS["cls"], "image.backbone=resnet10t", options)
    batch = batch_of(store, config, 12)
    model = new_model(config)
    task = RetrievalTask(model, config).train()
    accumulate_gradients(task, batch, chunk=4)
    counts = [b for name, b in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(int(count) == 3 for count in counts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cls", "late"])
def test_a_batch_of_1024_in_chunks_of_32_has_the_same_gradients(store: Store, kind: str) -> None:
    config = settings(*KINDS[kind], "text.dropout=0.0")
    batch = batch_of(store, config, 1024)
    _, whole = gradients(store, config, batch, None)
    _, parts = gradients(store, config, batch, 32)
    assert relative(parts, whole) < 1e-5


def test_recomputed_argmax_indices_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    lengths = [3, 1, 4, 2, 5, 1, 2]

    def both(limit: int) -> list[Tensor]:
        torch.manual_seed(1)
        sides = [MultiVectors.from_list([torch.randn(n, 8) for n in lengths]) for _ in range(2)]
        leaves = [MultiVectors(s.values.detach().requires_grad_(), s.offsets) for s in sides]
        module = import_module("bagformer_cli.interaction.maxsim")
        monkeypatch.setattr(module, "MAX_SAVED_ARGMAX_BYTES", limit)
        t2i, i2t = maxsim(*leaves)
        (t2i * torch.arange(49.0).view(7, 7)).sum().backward()
        (maxsim(*leaves)[1] ** 2).sum().backward()
        return [t2i.detach(), i2t.detach(), *(leaf.values.grad for leaf in leaves)]

    for kept, again in zip(both(1 << 30), both(500), strict=True):
        torch.testing.assert_close(again, kept)


# -------------------------------------------------------------------------------------- memory


def test_a_queue_that_does_not_fit_is_refused_before_it_is_allocated() -> None:
    config = settings("objectives.momentum={queue: 100000000}", "objectives.late_interaction=0")
    model = new_model(config)
    objective = next(o for o in build_objectives(Context(model, config)) if o.name == "itc_loss")
    needed = objective.memory(config.training.batch_size)
    assert needed["queues (cls)"] == 100_000_000 * (2 * 16 * 4 + 32)  # one vector of 16 a side
    config.objectives.momentum.queue = 2**31 - 1
    with pytest.raises(ConfigError, match="more memory") as caught:
        RetrievalTask(model, config)
    assert "queues" in str(caught.value.found)
    assert "queue" in str(caught.value.where)


def test_a_small_queue_is_accepted() -> None:
    config = settings("objectives.momentum={queue: 1000}")
    RetrievalTask(new_model(config), config)
