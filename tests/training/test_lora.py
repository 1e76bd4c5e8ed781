"""LoRA: only adapters learn, peft reads them, merged weights give the same scores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.store.store import Store
from bagformer_cli.encoders.weight_files import load_tensors
from bagformer_cli.errors import CheckpointError, ConfigError, MissingDependencyError
from bagformer_cli.evaluation.encoded_split import encode_split, score_matrices
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import load_model, merge_adapters, save_model
from bagformer_cli.models.lora import check_adapters
from bagformer_cli.training.initial_model import new_model
from bagformer_cli.training.run import resume_config, resume_run, start_run
from tests.support.remarks import Remarks
from tests.support.small_architectures import small_config
from tests.training.test_resume import assert_resume_is_exact

VIT = (
    "image={backbone: vit_base_patch16_224, size: 32, "
    "options: {patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}}"
)
FAST = "training.learning_rate=0.01"
LORA = "training.lora={rank: 2, alpha: 8}"


def settings(folder: Path, *overrides: str, lora: str = LORA) -> RunConfig:
    return small_config("demo", None, folder, VIT, FAST, lora, *overrides)


def trained(store: Store, run: Path, *overrides: str, **options: Any) -> RetrievalModel:
    """Train three steps; the model still has its adapters apart."""
    config = settings(run.parent, "training.max_steps=3", *overrides)
    model = new_model(config)
    start_run(config, store, run, model, **options)
    return model.eval()


def scores(model: RetrievalModel, store: Store) -> Tensor:
    split = store.split("valid")
    images, texts = encode_split(model, split, 8, states=False)
    t2i, _ = score_matrices(texts, images, model.config)
    return torch.from_numpy(t2i)


def test_only_adapters_and_heads_are_trained(store: Store, tmp_path: Path) -> None:
    start = {
        name: value.clone() for name, value in new_model(settings(tmp_path)).state_dict().items()
    }
    notes = Remarks()
    model = trained(store, tmp_path / "run", progress=notes)
    towers = ("dual.text_encoder.", "dual.vision_encoder.")
    for name, parameter in model.named_parameters():
        free = not name.startswith(towers) or ".lora_" in name
        assert parameter.requires_grad == free, name
        assert free or torch.equal(parameter, start[name]), name
    adapters = [name for name, _ in model.named_parameters() if ".lora_B." in name]
    assert len(adapters) == 2 * 1 + 2  # query and value of a layer of BERT, qkv of two blocks
    assert all(model.get_parameter(name).abs().sum() > 0 for name in adapters)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    assert f"Training {count:,} of {total:,} parameters" in notes.notes[0]


def test_a_merged_model_has_the_scores_of_the_model_with_adapters(
    store: Store, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    model = trained(store, tmp_path / "run")
    expected = scores(model, store)
    for folder in (tmp_path / "run/last", tmp_path / "run/best"):
        assert (
            load_tensors(folder / "model.safetensors").keys()
            == load_tensors(tmp_path / "run/last/model.safetensors").keys()
        )
    read = load_model(tmp_path / "run/last")
    assert not any("lora" in name for name in read.state_dict())
    torch.testing.assert_close(scores(read, store), expected, rtol=0, atol=1e-5)
    found = xmr("convert", "merge-lora", tmp_path / "run/last", tmp_path / "whole", "--json")
    assert found.code == 0, found.err
    whole = load_tensors(tmp_path / "whole/model.safetensors")
    assert not [name for name in whole if "lora" in name]
    assert not (tmp_path / "whole/adapter").exists()
    torch.testing.assert_close(
        scores(load_model(tmp_path / "whole"), store), expected, rtol=0, atol=1e-5
    )
    again = xmr("convert", "merge-lora", tmp_path / "whole", tmp_path / "again")
    assert again.code == 2
    assert "has no LoRA adapters" in again.err
    full = xmr("convert", "merge-lora", tmp_path / "run/last", tmp_path / "whole")
    assert (full.code, "not empty" in full.err) == (2, True)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # read by peft
def test_peft_itself_reads_the_adapters_onto_a_bert_and_a_timm_model(
    store: Store, tmp_path: Path
) -> None:
    """Each folder is an adapter of the other library's own model."""
    config = settings(tmp_path)
    plain = new_model(config.model_copy(update={"training": load_config("demo").training}))
    model = trained(store, tmp_path / "run")
    ids, pixels = torch.randint(5, 200, (2, 6)), torch.randn(2, 3, 32, 32)
    ours = model.dual.text_encoder.bert(ids).last_hidden_state
    bert = plain.dual.text_encoder.bert
    before = bert(ids).last_hidden_state
    theirs = PeftModel.from_pretrained(bert, tmp_path / "run/last/adapter/text").eval()
    torch.testing.assert_close(theirs(ids).last_hidden_state, ours, rtol=0, atol=1e-5)
    assert not torch.allclose(before, ours, atol=1e-4)
    backbone = plain.dual.vision_encoder.backbone.eval()
    theirs = PeftModel.from_pretrained(backbone, tmp_path / "run/last/adapter/image").eval()
    ours = model.dual.vision_encoder.backbone.forward_features(pixels)
    torch.testing.assert_close(
        theirs.base_model.model.forward_features(pixels), ours, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "items",
    [[LORA, "text.dropout=0.1"], ["training.lora={rank: 2, dropout: 0.2}", "training.ema=0.9"],
     ["training.lora={rank: 2, towers: text}", "objectives.momentum={queue: 24}",
      "training.layer_decay=0.8"]],
    ids=["both towers", "dropout and average", "momentum encoder"],
)  # fmt: skip
def test_a_lora_run_resumes_to_the_bit(store: Store, tmp_path: Path, items: list[str]) -> None:
    assert_resume_is_exact(store, tmp_path, "demo", None, VIT, *items)


def test_a_resumed_run_cannot_change_its_adapters(store: Store, tmp_path: Path) -> None:
    trained(store, tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot change"):
        resume_config(tmp_path / "run", ["training.lora.rank=4"])
    with pytest.raises(ConfigError, match="cannot change"):
        resume_config(tmp_path / "run", ["training.lora=null"])
    more = resume_config(tmp_path / "run", ["training.max_steps=4"])
    assert resume_run(more, store, tmp_path / "run").steps == 4


def test_another_training_starts_from_the_merged_weights(store: Store, tmp_path: Path) -> None:
    """With or without new adapters; they start without effect."""
    expected = scores(trained(store, tmp_path / "run"), store)
    for number, lora in enumerate(("training.lora=null", "training.lora={rank: 3}")):
        config = settings(tmp_path, f"training.checkpoint={tmp_path / 'run/last'}", lora=lora)
        notes = Remarks()
        model = new_model(config, progress=notes).eval()
        assert notes.warnings == []
        torch.testing.assert_close(scores(model, store), expected, rtol=0, atol=1e-5)
        save_model(model, tmp_path / f"start{number}")
        read = load_model(tmp_path / f"start{number}")
        torch.testing.assert_close(scores(read, store), expected, rtol=0, atol=1e-5)


def test_gradients_reach_adapters_with_gradient_checkpointing(store: Store, tmp_path: Path) -> None:
    """The inputs of the recomputed layers are frozen embeddings."""
    plain = trained(store, tmp_path / "plain")
    less = trained(store, tmp_path / "less", "model.gradient_checkpointing=true")
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(less.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["training.lora={targets: [nothing]}"], "nothing"),
        (["training.lora={targets: [query, qkw]}"], "qkw"),
        (["training.lora={}", "image.backbone=resnet10t",
          "image.options={channels: [8, 12, 16, 24], stem_width: 8}"], "image"),
        (["training.lora={}", "text.frozen_layers=1"], "text"),
        (["training.lora={}", "text.encoder=words", "objectives.itm=0"], "text"),
    ],
)  # fmt: skip
def test_targets_that_match_nothing_are_refused(
    tmp_path: Path, items: list[str], said: str
) -> None:
    config = small_config("demo", None, tmp_path, VIT, *items)
    with pytest.raises(ConfigError, match="finds no linear layer") as caught:
        check_adapters(config)
    assert said in str(caught.value.found)
    with pytest.raises(ConfigError, match="finds no linear layer"):
        new_model(config)


def test_patterns_choose_layers_and_the_other_tower_is_trained_in_full(tmp_path: Path) -> None:
    lora = "training.lora={towers: image, targets: ['blocks.1.*.fc?']}"
    model = new_model(settings(tmp_path, lora=lora))
    adapted = {n.partition(".lora_A")[0] for n, _ in model.named_parameters() if "lora_A" in n}
    start = "dual.vision_encoder.backbone.blocks.1.mlp"
    assert adapted == {f"{start}.fc1", f"{start}.fc2"}
    assert all(p.requires_grad for p in model.dual.text_encoder.parameters())


def test_a_backbone_that_reads_a_weight_without_its_layer_is_refused(tmp_path: Path) -> None:
    """An adapter of BEiT's qkv would be trained to no effect."""
    beit = (
        "image={backbone: beit_base_patch16_224, size: 32, "
        "options: {embed_dim: 24, depth: 1, num_heads: 2}}"
    )
    with pytest.raises(ConfigError, match="an adapter has no effect") as caught:
        check_adapters(small_config("demo", None, tmp_path, beit, LORA))
    assert "qkv" in str(caught.value.found)
    check_adapters(
        small_config("demo", None, tmp_path, beit, "training.lora={targets: [query, value, proj]}")
    )


def test_a_folder_without_its_adapters_is_refused(store: Store, tmp_path: Path) -> None:
    trained(store, tmp_path / "run")
    place = tmp_path / "run/last/config.yaml"
    save_model(load_model(tmp_path / "run/last"), tmp_path / "plain")
    (tmp_path / "plain/config.yaml").write_text(place.read_text())
    with pytest.raises(CheckpointError, match="adapters of this LoRA model are missing"):
        load_model(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="has no LoRA adapters"):
        merge_adapters(_plain(tmp_path), tmp_path / "out")


def _plain(tmp_path: Path) -> Path:
    save_model(new_model(settings(tmp_path, lora="seed=1")), tmp_path / "ordinary")
    return tmp_path / "ordinary"


def test_without_peft_one_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match="peft") as caught:
        check_adapters(settings(tmp_path))
    assert caught.value.hint == 'pip install "bagformer-cli[lora]"'


def test_frozen_towers_and_adapters_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"training\.lora trains the towers"):
        load_config("demo", ["training.lora={}", "model.freeze_towers=true"])


def test_moments_are_kept_of_adapters_and_heads_only(store: Store, tmp_path: Path) -> None:
    trained(store, tmp_path / "run")
    state = load_tensors(tmp_path / "run/last/state.safetensors")
    moments = [n for n in state if n.startswith("optimizer.exp_avg.dual.text_encoder")]
    assert moments
    assert all(".lora_" in name for name in moments)
