"""A resumed run is the run that was never stopped, to the bit, whatever is trained."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bagformer_cli.data.store.store import Store
from bagformer_cli.encoders.weight_files import load_tensors
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import resume_config, resume_run, start_run
from tests.support.black_box import environment, process
from tests.support.datasets import write_split
from tests.support.killing import killed_at_random
from tests.support.small_architectures import architectures, small_config
from tests.support.warm import start as start_warm

QUICK = [("demo", None), ("pretrain_albef", None), ("demo_regions", None)]
"""A convolutional network; a vision transformer with momentum encoder and MLM; regions and one
BERT for both sides. The other pairs run with the slow tests."""
WAYS = {
    "dropout": ["text.dropout=0.1"],
    "accumulate": ["training.accumulate=2", "training.batch_size=4"],
    "gradient caching": ["training.micro_batch_size=4"],
    "other layouts": ["image.options={channels: [8, 12, 16, 24]}"],
    "momentum": ["objectives.momentum={queue: 24}"],
    "bf16": ["training.precision=bf16"],
    "frozen layers": ["image.frozen_layers=1", "text.frozen_layers=1"],
    "augmentation": ["data.augment={crop_scale: [0.5, 1.0], randaugment: [2, 7]}"],
}
"""Ways to train the convolutional demo model."""


def assert_resume_is_exact(
    store: Store, folder: Path, name: str, mode: str | None, *overrides: str
) -> None:
    """Train six steps at once, and three and three."""
    for out, steps in (("whole", 6), ("stopped", 3)):
        config = small_config(name, mode, folder, f"training.max_steps={steps}", *overrides)
        start_run(config, store, folder / out, new_model(config))
    config = resume_config(folder / "stopped", ["training.max_steps=6"])
    assert resume_run(config, store, folder / "stopped").steps == 6
    for file in ("model.safetensors", "state.safetensors"):
        whole, stopped = (load_file(folder / out / "last" / file) for out in ("whole", "stopped"))
        assert whole.keys() == stopped.keys()
        assert [n for n in whole if not torch.equal(whole[n], stopped[n])] == []


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(*pair, id=" ".join(filter(None, pair)),
                     marks=() if pair in QUICK else pytest.mark.slow)
        for pair in architectures()
    ],
)  # fmt: skip
def test_every_config_and_mode_resumes_to_the_bit(
    store: Store, tmp_path: Path, name: str, mode: str | None
) -> None:
    assert_resume_is_exact(store, tmp_path, name, mode)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_resumes_to_the_bit(store: Store, tmp_path: Path, way: str) -> None:
    assert_resume_is_exact(store, tmp_path, "demo", None, *WAYS[way])


def test_a_run_that_took_its_sizes_from_a_pretrained_bert_resumes_to_the_bit(
    store: Store, tmp_path: Path
) -> None:
    """Its model's own settings are not those of the run: width and heads are the BERT's."""
    from transformers import BertConfig, BertModel

    from bagformer_cli.text.tokenizer import Tokenizer

    words = Tokenizer.load("builtin").vocab_size
    sizes = BertConfig(
        vocab_size=words,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
    )
    BertModel(sizes, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    assert_resume_is_exact(store, tmp_path, "demo", None, f"text.pretrained={tmp_path / 'bert'}")


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "mode"), [*QUICK, ("fast_slow", "captioner")])
@pytest.mark.filterwarnings("ignore:.*deterministic")
def test_a_run_on_a_gpu_resumes_to_the_bit(
    store: Store, tmp_path: Path, name: str, mode: str | None
) -> None:
    assert torch.cuda.is_available()
    assert_resume_is_exact(store, tmp_path, name, mode, "training.deterministic=true")


def test_the_moments_of_a_convolution_are_restored_in_its_memory_layout(
    store: Store, tmp_path: Path
) -> None:
    """Fused AdamW walks weights and moments side by side, and weights are channels-last."""
    from bagformer_cli.models.checkpoint import load_model
    from bagformer_cli.training.optimizer import build_optimizer
    from bagformer_cli.training.resume import load_state

    config = small_config("demo", None, tmp_path, "training.max_steps=2")
    start_run(config, store, tmp_path / "run", new_model(config))
    model: Any = load_model(tmp_path / "run/last")
    optimizer = build_optimizer(model, config.training)
    load_state(tmp_path / "run/last", model, optimizer)
    saved = load_tensors(tmp_path / "run/last/state.safetensors")
    channels_last = 0
    for name, weight in model.named_parameters():
        moments = optimizer.state[weight]
        for key in ("exp_avg", "exp_avg_sq"):
            assert moments[key].stride() == weight.stride(), name
            assert torch.equal(moments[key], saved[f"optimizer.{key}.{name}"])
        channels_last += weight.ndim == 4 and not weight.is_contiguous()
    assert channels_last > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, int(time.time())], ids=["fixed", "fresh"])
def test_a_convolutional_run_killed_often_is_the_run_never_killed(
    tmp_path: Path, seed: int
) -> None:
    for split in ("train", "valid"):
        write_split(tmp_path / "set", split, [(n, f"红色商品{n}号", (n,)) for n in range(1, 17)])
    items = ["text.layers=1", "text.width=32", "text.heads=2", "text.feed_forward=48",
             "image.size=32", "model.embed_dim=16", "training.batch_size=8",
             "image.options={channels: [8, 12, 16, 24], output_stride: 8, stem_width: 8}",
             "training.evaluate_every=100", "training.schedule_steps=40",
             "training.save_every=2", "training.max_steps=30"]  # fmt: skip
    start = ["--config", "demo", "--dataset", "set",
             *(part for item in items for part in ("--set", item))]  # fmt: skip
    began = time.monotonic()
    whole = process("train", *start, "--output-dir", "whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    longest = time.monotonic() - began
    first = process("train", *start, "--output-dir", "killed", "--set", "training.max_steps=2",
                    cwd=tmp_path)  # fmt: skip
    assert first.code == 0, first.err
    resume = ["train", "--resume", "--output-dir", "killed", "--set", "training.max_steps=30"]
    killed_at_random(partial(start_warm, resume, environment(), tmp_path), longest, 5, seed)
    ended = process(*resume, cwd=tmp_path)
    assert ended.code == 0, ended.err
    ours, theirs = (load_tensors(tmp_path / out / "last/model.safetensors")
                    for out in ("killed", "whole"))  # fmt: skip
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
