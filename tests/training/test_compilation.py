"""``training.compile`` compiles the layers, and changes neither names, evaluation nor results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.sampler import Sampling
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.train_batches import TrainBatches
from bagformer_cli.datasets import ensure_store
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.training import compilation
from bagformer_cli.training.compilation import compile_layers, uncompiled
from bagformer_cli.training.gradient_cache import accumulate_gradients
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import resume_config, resume_run, start_run
from bagformer_cli.training.task import RetrievalTask
from tests.support.datasets import write_split
from tests.support.small_run import TINY, weights

LAYERS = 1 + 1 + 2  # of the text tower, the image tower and the fusion encoder
TITLES = ["裙", "红色裙", "红色碎花连衣裙", "红色碎花连衣裙女夏季新款"]


class Graphs:
    """A backend of torch.compile that runs the graph as it is and counts compilations."""

    def __init__(self) -> None:
        self.compiled = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        self.compiled += 1

        def run(*arguments: Tensor) -> object:
            self.calls += 1
            return graph.forward(*arguments)

        return run


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    torch._dynamo.reset()
    backend = Graphs()
    monkeypatch.setattr(compilation, "BACKEND", backend)
    return backend


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("pairs")
    queries = [(n, f"{TITLES[n % 4]}第{n}款", (n,)) for n in range(32)]
    for split in ("train", "valid"):
        write_split(path, split, queries=queries)
    return ensure_store(path, new_model(config()).titles, workers=1)


def config(*items: str) -> RunConfig:
    return load_config("demo", [*TINY, "training.compile=true", *items])


def batches(settings: RunConfig, store: Store, model: RetrievalModel) -> TrainBatches:
    pad_id = model.titles.tokenizer.pad_id
    return TrainBatches(
        store.split("train"), settings.data, Sampling(8, 0), image_size=16, pad_id=pad_id
    )


def gradients(model: RetrievalModel, settings: RunConfig, store: Store) -> dict[str, Tensor]:
    """Gradients of three batches whose longest titles differ."""
    torch.manual_seed(3)
    task = RetrievalTask(model, settings).train()
    for number in range(3):
        chunk = settings.training.micro_batch_size
        accumulate_gradients(task, batches(settings, store, model).batch(number), chunk=chunk)
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    largest = max(float(value.abs().max()) for value in one.values())
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5 * largest, msg=name)


def test_layers_are_compiled_in_place_under_their_own_names(graphs: Graphs, store: Store) -> None:
    settings = config("text.dropout=0.1")
    plain, compiled = new_model(settings), new_model(settings)
    assert compile_layers(compiled) == LAYERS
    assert list(compiled.state_dict()) == list(plain.state_dict())
    expected = gradients(plain, settings, store)
    assert graphs.calls == 0
    assert_same_gradients(expected, gradients(compiled, settings, store))
    assert graphs.calls >= 3 * LAYERS


def test_the_lengths_of_titles_share_one_compilation(graphs: Graphs) -> None:
    model = new_model(config()).train()
    compile_layers(model)
    layer = model.dual.text_encoder.bert.encoder.layer[0]
    for length in (5, 9, 12, 25):
        layer(torch.randn(4, length, 32))
    assert graphs.compiled == 1


def test_evaluation_runs_the_layers_as_they_were_written(graphs: Graphs) -> None:
    model = new_model(config()).eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model.encode_images(pixels).vectors.values
        compile_layers(model)
        with uncompiled():
            found = model.encode_images(pixels).vectors.values
    assert torch.equal(found, expected)
    assert graphs.compiled == 0


@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_bit(graphs: Graphs, store: Store, tmp_path: Path) -> None:
    common = ["text.dropout=0.1", "training.schedule_steps=6", "training.micro_batch_size=3"]
    for name, steps in (("whole", 6), ("broken", 3)):
        settings = config(*common, f"training.max_steps={steps}")
        start_run(settings, store, tmp_path / name, new_model(settings))
    assert graphs.calls
    settings = resume_config(tmp_path / "broken", ["training.max_steps=6"])
    torch._dynamo.reset()
    torch.manual_seed(999)
    resume_run(settings, store, tmp_path / "broken")
    ours, theirs = weights(tmp_path / "broken/last"), weights(tmp_path / "whole/last")
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_a_network_of_convolutions_keeps_them(graphs: Graphs) -> None:
    options = "image.options={channels: [8, 8, 8, 8], output_stride: 8, stem_width: 8}"
    model = new_model(config("image.backbone=resnet10t", options))
    assert compile_layers(model) == LAYERS - 1
    assert isinstance(model.dual.vision_encoder.backbone, nn.Module)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["training.micro_batch_size=3"]], ids=["whole", "chunks"])
def test_compiled_kernels_give_the_gradients_of_the_layers(store: Store, more: list[str]) -> None:
    """Dropout too: its masks are those of the layers that are not compiled."""
    torch._dynamo.reset()
    settings = config("text.dropout=0.1", *more)
    plain, compiled = new_model(settings), new_model(settings)
    compile_layers(compiled)
    assert_same_gradients(gradients(plain, settings, store), gradients(compiled, settings, store))
