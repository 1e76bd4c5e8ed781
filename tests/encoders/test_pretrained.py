"""Pretrained weights fit completely, or an error says what was found and what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from bagformer_cli.config import ImageConfig, load_config
from bagformer_cli.encoders.pretrained_bert import load_bert, require_same_vocabulary
from bagformer_cli.encoders.vision import VisionEncoder
from bagformer_cli.encoders.weight_files import read_state_dict
from bagformer_cli.errors import CheckpointError, ConfigError
from tests.support.small_model import TINY, saved_model

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "vocab_size": 200, "model_type": "bert"}  # fmt: skip


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A folder with a BERT of two layers."""
    torch.manual_seed(1)
    sizes = {key: value for key, value in SIZES.items() if key != "model_type"}
    model = BertModel(BertConfig(**sizes), add_pooling_layer=False)
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SIZES))
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def configure(folder: Path, **values: object) -> None:
    (folder / "config.json").write_text(json.dumps({**SIZES, **values}))


QUERY = "encoder.layer.1.attention.self.query.weight"
MISFITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other sizes": (lambda f: configure(f, hidden_size=64), "another shape"),
    "fewer tokens": (lambda f: configure(f, vocab_size=100), "another shape"),
    "more layers promised": (lambda f: configure(f, num_hidden_layers=3), "missing"),
    "fewer layers promised": (lambda f: configure(f, num_hidden_layers=1), "2 layers"),
    "another kind": (lambda f: configure(f, model_type="roberta"), "roberta"),
    "a weight missing": (lambda f: change(f, lambda w: w.pop(QUERY)), "missing"),
    "other names": (
        lambda f: change(f, lambda w: [w.__setitem__(f"x.{k}", w.pop(k)) for k in list(w)]),
        "missing",
    ),
    "quantised": (
        lambda f: change(f, lambda w: w.update({QUERY: w[QUERY].to(torch.int8)})),
        "whole numbers",
    ),
    "a pointer": (
        lambda f: (f / "config.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "NaN": (lambda f: change(f, lambda w: w[QUERY].fill_(torch.nan)), "not finite"),
    "cut off": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:5000]
        ),
        "damaged or cut off",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged or cut off"),
    "config only": (lambda f: (f / "model.safetensors").unlink(), "not a pretrained BERT"),
    "weights only": (lambda f: (f / "config.json").unlink(), "not a pretrained BERT"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "half a config": (lambda f: (f / "config.json").write_text("{}"), "incomplete"),
    "huge": (lambda f: configure(f, hidden_size=10**9), "not usable"),
    "an option that is none": (lambda f: configure(f, hidden_act="evil"), "not usable"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISFITS)
def test_a_bert_that_does_not_fit_is_refused(bert: Path, kind: str) -> None:
    damage, said = MISFITS[kind]
    damage(bert)
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load_bert(str(bert), 1)


def test_weights_of_a_language_model_are_read_whatever_their_names(bert: Path) -> None:
    """Published checkpoints have ``bert.``, old names of norms, a pooler and heads."""
    plain = load_bert(str(bert), 2).state_dict()
    weights = {f"bert.{k}": v for k, v in load_file(bert / "model.safetensors").items()}
    weights = {k.replace("LayerNorm.weight", "LayerNorm.gamma"): v for k, v in weights.items()}
    weights |= {"bert.pooler.dense.weight": torch.ones(32, 32), "cls.bias": torch.ones(200)}
    torch.save(weights, bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    read = load_bert(str(bert), 2).state_dict()
    assert all(torch.equal(read[name], plain[name]) for name in plain)


@pytest.mark.parametrize("size", [0x80, 0x88])
def test_the_content_of_a_weight_file_decides_not_its_ending(tmp_path: Path, size: int) -> None:
    """A header of 128 more than a multiple of 256 bytes makes the first byte that of a pickle."""
    weights = {"a.weight": torch.arange(6.0).view(2, 3)}
    save_file(weights, tmp_path / "plain.safetensors")
    data = (tmp_path / "plain.safetensors").read_bytes()
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    header = header.rstrip().ljust(256 + size)
    (tmp_path / "weights.bin").write_bytes(
        len(header).to_bytes(8, "little") + header + data[-6 * 4 :]
    )
    torch.save(weights, tmp_path / "weights.safetensors")
    torch.save(weights, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("weights.bin", "weights.safetensors", "old.safetensors"):
        read = read_state_dict(tmp_path / name)
        assert torch.equal(read["a.weight"], weights["a.weight"]), name


@pytest.mark.parametrize("form", ["meta", "sparse", "complex"])
def test_tensors_without_plain_numbers_are_no_weights(tmp_path: Path, form: str) -> None:
    value = torch.ones(2, 3)
    others = {
        "meta": value.to("meta"),
        "sparse": value.to_sparse(),
        "complex": value.to(torch.complex64),
    }
    torch.save({"a.weight": others[form]}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="holds no weights") as caught:
        read_state_dict(tmp_path / "weights.pt")
    assert "a.weight" in str(caught.value.found)


def test_weights_in_several_files_are_refused_with_the_way_to_join_them(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "model-00001-of-00001.safetensors")
    (bert / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="several files"):
        load_bert(str(bert), 2)


def test_half_precision_is_computed_in_float32_and_randomness_is_left_alone(bert: Path) -> None:
    change(bert, lambda w: w.update({k: v.half() for k, v in w.items() if v.is_floating_point()}))
    before = torch.get_rng_state()
    assert load_bert(str(bert), 2).dtype == torch.float32
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json", "nothing"])
def test_another_vocabulary_is_refused(bert: Path, kind: str) -> None:
    tokens = tuple(f"t{n}" for n in range(200))
    if kind == "vocab.txt":
        (bert / kind).write_text("".join(f"{token}\n" for token in tokens))
    elif kind == "tokenizer.json":
        ids = {token: number for number, token in enumerate(tokens)}
        (bert / kind).write_text(json.dumps({"model": {"type": "WordPiece", "vocab": ids}}))
    model = load_bert(str(bert), 1)
    require_same_vocabulary(str(bert), model, tokens)
    others = [tokens[:-1]] if kind == "nothing" else [tokens[:-1], (*tokens[:-1], "other")]
    for other in others:
        with pytest.raises(CheckpointError, match="another vocabulary"):
            require_same_vocabulary(str(bert), model, other)


def test_a_file_or_a_model_folder_of_xmr_is_no_bert_and_the_error_says_what_to_do(
    tmp_path: Path,
) -> None:
    torch.save({"model": {"text_encoder.x": torch.ones(1)}}, tmp_path / "albef.pt")
    with pytest.raises(CheckpointError, match="xmr convert"):
        load_bert(str(tmp_path / "albef.pt"), 1)
    with pytest.raises(CheckpointError, match="--checkpoint"):
        load_bert(str(saved_model(tmp_path / "model")), 1)


# Images.


def resnet(folder: Path, name: str = "resnet10t", **options: Any) -> Path:
    torch.manual_seed(5)
    folder.mkdir(parents=True, exist_ok=True)
    source = timm.create_model(name, num_classes=10, **options)
    save_file(source.state_dict(), folder / "model.safetensors")
    return folder


def encoder(source: Path, **values: Any) -> VisionEncoder:
    return VisionEncoder(
        ImageConfig(backbone="resnet10t", size=32, pretrained=str(source), **values)
    )


def test_a_backbone_is_loaded_whole_and_its_classifier_left_out(tmp_path: Path) -> None:
    folder = resnet(tmp_path)
    weights = load_file(folder / "model.safetensors")
    own = encoder(folder).backbone.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "a.pth")
    assert torch.equal(encoder(tmp_path / "a.pth").backbone.conv1[0].weight, own["conv1.0.weight"])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("another backbone", "another shape"),
        ("a transformer", "missing"),
        ("a layer missing", "missing"),
        ("a layer more", "unexpected"),
        ("NaN", "NaN"),
        ("cut off", "damaged or cut off"),
        ("quantised", "whole numbers"),
        ("no npz", "git lfs pull"),
        ("ALBEF", "missing"),
        ("code", "never run"),
        ("no tensors", "no weights"),
        ("named otherwise", "belong to another backbone"),
        ("an empty folder", "no weights of an image backbone"),
    ],
)
def test_weights_of_another_backbone_are_refused(tmp_path: Path, kind: str, said: str) -> None:
    folder = resnet(
        tmp_path, {"another backbone": "resnet18", "a transformer": "vit_tiny_patch16_224"}.get(
            kind, "resnet10t"
        ),
    )  # fmt: skip
    place = folder
    if kind == "a layer missing":
        change(folder, lambda w: w.pop("layer4.0.conv1.weight"))
    elif kind == "a layer more":
        change(folder, lambda w: w.update({"layer4.1.conv1.weight": torch.ones(1)}))
    elif kind == "NaN":
        change(folder, lambda w: w["layer4.0.conv1.weight"].fill_(torch.nan))
    elif kind == "cut off":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif kind == "quantised":
        name = "layer4.0.conv1.weight"
        change(folder, lambda w: w.update({name: w[name].to(torch.int8)}))
    elif kind == "no npz":
        place = tmp_path / "x.npz"
        place.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif kind in ("ALBEF", "code", "no tensors"):
        place = tmp_path / "x.pth"
        torch.save({"ALBEF": {"model": {"visual_encoder.cls_token": torch.ones(1, 1, 8)}},
                    "code": {"state_dict": Path("x")}, "no tensors": {"epoch": 3}}[kind],
                   place)  # fmt: skip
    elif kind == "named otherwise":
        (folder / "config.json").write_text('{"architecture": "resnet18"}')
    elif kind == "an empty folder":
        (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=said) as caught:
        encoder(place)
    assert "image.pretrained" in str(caught.value.where)


# Options.


@pytest.mark.parametrize(
    "item",
    ["image.options={checkpoint_path: x.pth}", "image.options={pretrained_cfg: {url: x}}",
     "image.options={features_only: true}", "image.options={scriptable: true}",
     "text.options={attn_implementation: a/b}", "text.options={auto_map: {}}"],
)  # fmt: skip
def test_options_that_describe_no_architecture_are_unknown(item: str) -> None:
    with pytest.raises(ConfigError, match="Unknown key"):
        load_config("demo", [item])


def test_training_from_weights_that_do_not_fit_says_so_and_nothing_of_the_libraries(
    xmr: Callable[..., Any], tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = [part for item in TINY for part in ("--set", item)]
    run = xmr("train", "--config", "demo", *sets, "--set", f"text.pretrained={bert}")
    assert run.code == 2
    assert "another vocabulary" in run.err
    assert "text.tokenizer" in run.err
    assert len(run.err.splitlines()) < 12
    assert "LOAD REPORT" not in run.err
