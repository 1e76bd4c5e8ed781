"""Published checkpoints to model folders: a small one made here, and the reference's full size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bagformer_cli.models.checkpoint import FILES, load_model
from bagformer_cli.models.convert.albef import (
    IGNORED,
    NO_MLM,
    CheckpointSources,
    Sizes,
    checkpoint_tensors,
    convert_bagformer,
)
from bagformer_cli.models.convert.albef import weights_of as sources_of
from bagformer_cli.models.convert.report import TensorReport
from bagformer_cli.models.convert.tensors import assemble, interpolate_positions, source_shapes
from bagformer_cli.original.model import CompatDualEncoder
from tests.support.original_weights import weights_of
from tests.support.small_checkpoint import SMALL, our_shapes, published, weights


def made_of(state: dict[str, Tensor], sizes: Sizes) -> tuple[dict[str, Tensor], TensorReport]:
    shapes = our_shapes(sizes)
    return assemble(sources_of(shapes, sizes), shapes, state, (*IGNORED, NO_MLM))


def test_the_folder_is_whole_and_gives_the_same_model(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = convert_bagformer(checkpoint, out, sources).model
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "README.md"])
    assert (out / "lexicon.txt").read_text(encoding="utf-8") == "动车\n头盔\n"
    loaded = load_model(out)
    assert isinstance(loaded.dual, CompatDualEncoder)
    assert loaded.config.compat == "bagformer"
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.titles.fingerprint == made.titles.fingerprint
    state = weights()
    rows = loaded.state_dict()["dual.text_encoder.bert.embeddings.word_embeddings.weight"]
    assert torch.equal(rows, state["text_encoder.embeddings.word_embeddings.weight"])


def test_queries_keys_and_values_of_a_fusion_layer_are_stacked_in_this_order() -> None:
    state = weights()
    ours, _ = made_of(state, SMALL)
    layer = "text_encoder.encoder.layer.2"
    for kind, name in (("attention", "self_attn"), ("crossattention", "multihead_attn")):
        stacked = ours[f"cross.fusion.layers.0.{name}.in_proj_weight"].split(64)
        for part, own in zip(stacked, ("query", "key", "value"), strict=True):
            assert torch.equal(part, state[f"{layer}.{kind}.self.{own}.weight"])


def test_names_of_a_pretraining_checkpoint_lose_their_bert(tmp_path: Path) -> None:
    plain = weights()
    renamed = {
        name.replace("text_encoder.", "text_encoder.bert."): value for name, value in plain.items()
    }
    assert renamed.keys() != plain.keys()
    for content in (published(renamed), {f"module.{name}": plain[name] for name in plain}):
        torch.save(content, tmp_path / "x.pth")
        made, report = made_of(checkpoint_tensors(tmp_path / "x.pth"), SMALL)
        assert report.complete
        assert made.keys() == our_shapes(SMALL).keys()


def test_every_tensor_is_accounted_for(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path
) -> None:
    report = convert_bagformer(checkpoint, tmp_path / "out", sources).report
    given = published(weights())["model"]
    assert report.total == len(given)
    assert len(report.loaded) == len(weights())
    assert set(report.ignored) == {
        "momentum copy", "queues of the training", "numbers of positions, not weights",
    }  # fmt: skip


def test_half_precision_becomes_single() -> None:
    half = {name: value.half() for name, value in weights().items()}
    assert all(value.dtype == torch.float32 for value in made_of(half, SMALL)[0].values())


def test_another_image_size_gets_interpolated_positions(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path
) -> None:
    converted = convert_bagformer(checkpoint, tmp_path / "out", sources, image_size=64)
    model = converted.model
    assert converted.report.resized == {"visual_encoder.pos_embed": "4 × 4 → 8 × 8"}
    assert model.config.image.size == 64
    assert model.state_dict()["dual.vision_encoder.backbone.pos_embed"].shape == (1, 65, 64)
    assert load_model(tmp_path / "out").dual.encode_images(
        torch.zeros(1, 3, 64, 64)
    ).states.values.shape == (1, 65, 64)


def test_interpolation_keeps_the_class_row_and_a_constant() -> None:
    positions = torch.cat([torch.full((1, 1, 3), 7.0), torch.full((1, 16, 3), 2.0)], dim=1)
    larger = interpolate_positions(positions, 6)
    assert larger.shape == (1, 37, 3)
    assert torch.equal(larger[:, 0], positions[:, 0])
    torch.testing.assert_close(larger[:, 1:], torch.full((1, 36, 3), 2.0))
    assert interpolate_positions(positions, 4) is positions


def test_the_command(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    options = ("--vocab", sources.vocab, "--lexicon", sources.lexicon)
    out = tmp_path / "out"
    run = xmr("convert", "bagformer", checkpoint, out, *options, "--sep", "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert report["folder"] == str(out)
    assert report["add_sep"] is True
    assert report["numbers"] == sum(value.numel() for value in weights().values())
    assert load_model(out).config.text.add_sep

    again = xmr("convert", "bagformer", checkpoint, out, *options)
    assert again.code == 2
    assert "not empty" in again.err

    early = xmr(
        "convert", "bagformer", checkpoint, tmp_path / "early", *options,
        "--bag-fusion", "early", "--interaction", "cls",
    )  # fmt: skip
    assert early.code == 0, early.err
    assert str(tmp_path / "early") in early.out


def test_an_albef_of_pretraining_keeps_its_mlm_head(
    sources: CheckpointSources, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    plain = weights()
    state = {
        name.replace("text_encoder.", "text_encoder.bert."): value for name, value in plain.items()
    }
    head, table = "text_encoder.cls.predictions", "text_encoder.embeddings.word_embeddings.weight"
    shape = plain[table].shape
    state |= {
        f"{head}.transform.dense.weight": torch.ones(64, 64),
        f"{head}.transform.dense.bias": torch.zeros(64),
        f"{head}.transform.LayerNorm.weight": torch.ones(64),
        f"{head}.transform.LayerNorm.bias": torch.zeros(64),
        f"{head}.bias": torch.zeros(shape[0]),
        f"{head}.decoder.weight": plain[table],
        f"{head}.decoder.bias": torch.zeros(shape[0]),
    }
    torch.save(published(state), tmp_path / "ALBEF.pth")
    out = tmp_path / "out"
    run = xmr("convert", "albef", tmp_path / "ALBEF.pth", out, "--vocab", sources.vocab, "--json")
    assert run.code == 0, run.err
    report = run.json()["tensors"]
    assert report["tensors"] == len(published(state)["model"])
    assert report["loaded"] == len(plain) + 5
    model = load_model(out)
    assert model.config.compat is None
    assert model.config.text.max_tokens == 30
    assert torch.equal(model.state_dict()["cross.mlm_head.dense.weight"], torch.ones(64, 64))


@pytest.mark.shared
def test_the_names_and_shapes_are_the_published_ones(shared: Path) -> None:
    text = (shared / "reference/state_dict_keys.json").read_text(encoding="utf-8")
    keys = json.loads(text)["keys"]
    online = {key["name"]: tuple(key["shape"]) for key in keys if key["role"] == "model"}
    shapes = our_shapes(Sizes())
    assert source_shapes(sources_of(shapes, Sizes()), shapes) == online
    meta = {key["name"]: torch.empty(key["shape"], device="meta") for key in keys}
    assert Sizes.of(meta) == Sizes()


@pytest.mark.shared
@pytest.mark.slow
def test_the_full_size_through_convert_and_score(
    shared: Path, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    state = weights_of(shared)
    text = (shared / "reference/state_dict_keys.json").read_text(encoding="utf-8")
    shapes = {key["name"]: key["shape"] for key in json.loads(text)["keys"]}
    model = dict(published(state)["model"])
    assert model.keys() == shapes.keys()
    torch.save({"model": model, "epoch": 5}, tmp_path / "bagformer.pth")
    out = tmp_path / "out"
    data = shared / "data"
    run = xmr(
        "convert", "bagformer", tmp_path / "bagformer.pth", out,
        "--vocab", data / "bert-base-chinese/vocab.txt",
        "--lexicon", data / "bagformer/entity_dict_20220507", "--json",
    )  # fmt: skip
    assert run.code == 0, run.err
    (tmp_path / "bagformer.pth").unlink()
    record = json.loads((shared / "reference/expected.json").read_text(encoding="utf-8"))
    titles = record["inputs"]["titles"]
    with np.load(shared / "reference/expected.npz") as figures:
        name = "eval_late_fusion_bagwise_bs1_recall"
        t2i, i2t = figures[f"{name}_t2i"][:, 0], figures[f"{name}_i2t"][0]
    picture = data / "bagformer/rumble_roller.jpeg"
    scores = xmr("score", picture, *titles, "--checkpoint", out, "--json").json()
    np.testing.assert_allclose(scores["text_to_image"], t2i, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores["image_to_text"], i2t, rtol=1e-4, atol=1e-5)
    shown = [[bag["text"] for bag in bags] for bags in scores["bags"]]
    assert shown[2] == ["连衣裙", "女", "夏", "季", "新", "款"]
    assert shown[3] == ["电", "动车", "头盔", "挡", "风被"]
    shutil.rmtree(out)
